"""Small files of results: what figures, tables and paired intervals need of a study, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ohmformer.study.results.spec import Accuracy, RoleNoise

Row = dict[str, Any]
Document = dict[str, Any]
"""JSON values of the small files: of one point, and of a whole file."""


@dataclass(frozen=True)
class Cost:
    """What one pass costs, or one batch of requests.

    Attributes:
        latency_s: time [s].
        energy_J: energy [J].
        area_m2: area of all chips [m^2].
        arrays: number of arrays.
        wear: pulses that the most worn cell takes in a pass; None if no cell is rewritten.
    """

    latency_s: float
    energy_J: float
    area_m2: float
    arrays: float
    wear: float | None = None


@dataclass(frozen=True)
class Point:
    """A point of a small file.

    Attributes:
        set: dotted path -> swept value.
        label: label of the sweep; empty for none.
        accuracy: the measured accuracy.
        write_noise: write noise of the cells of each role.
        cost: cost of a pass; None if it is unknown.
    """

    set: dict[str, Any]
    label: str
    accuracy: Accuracy
    write_noise: RoleNoise
    cost: Cost | None = None

    @classmethod
    def read(cls, row: Row) -> Point:
        """A point from its JSON values, with the scores of samples as numbers."""
        accuracy, noise = Accuracy.model_validate(row["accuracy"]), RoleNoise.model_validate(row["write_noise"])
        cost = Cost(**row["cost"]) if row.get("cost") else None
        return cls(row["set"], row.get("label", ""), accuracy, noise, cost)

    @property
    def gamma(self) -> float | None:
        """The factor of the write noise of K; None for noise of another kind than `sqrt_range`."""
        key = self.write_noise.key
        return None if key is None or key.gamma_sigma is None else float(key.gamma)

    @property
    def strength(self) -> float | None:
        """γσ of K; None for noise of another kind than `sqrt_range`."""
        key = self.write_noise.key
        return None if key is None else key.gamma_sigma


def packed(hits: Sequence[Any]) -> Any:
    """Counts of up to nine chips as one text of digits; other scores with four digits behind the point."""
    if all(isinstance(hit, int) and 0 <= hit <= 9 for hit in hits):
        return "".join(map(str, hits))
    return [round(float(hit), 4) for hit in hits]


def _scores(content: Document) -> Iterator[tuple[dict[str, Any], str]]:
    """Every table of a document that may hold scores of samples, and the name of the scores there."""
    yield content, "software_hits"
    yield from ((point["accuracy"], "hits") for point in content["points"])


def repacked(content: Document) -> Document:
    """A document that was loaded, as it is stored."""
    points = [{**point, "accuracy": dict(point["accuracy"])} for point in content["points"]]
    found = {**content, "points": points}
    for holder, name in _scores(found):
        if isinstance(holder.get(name), list):
            holder[name] = packed(holder[name])
    return found


def to_text(content: Document) -> str:
    """A document as JSON with one line for each point."""
    head = {name: value for name, value in content.items() if name != "points"}
    rows = ",\n  ".join(json.dumps(point, ensure_ascii=False, allow_nan=False) for point in content["points"])
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "points": [\n  {rows}\n]}}\n'


def load(name: str, folder: Path) -> Document | None:
    """The stored results of a study, with the scores of samples as numbers; None if there are none."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    content: Document = json.loads(file.read_text(encoding="utf-8"))
    for holder, name in _scores(content):
        if isinstance(holder.get(name), str):
            holder[name] = [int(digit) for digit in holder[name]]
    return content


def stored_points(name: str, folder: Path) -> list[Point] | None:
    """The points of a study's small file; None if there is none."""
    content = load(name, folder)
    return None if content is None else [Point.read(row) for row in content["points"]]
