"""Results of the studies here as small files: what figures, tables and paired intervals need, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ohmformer.report.verdict import Gain, gain
from ohmformer.study.loaded import loaded, one_thread
from ohmformer.study.read_study import read_study
from ohmformer.study.results.document import study_results
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.key import code_digest
from ohmformer.study.results.spec import Accuracy, RoleNoise
from ohmformer.study.results.store import Store
from ohmformer.study.run import study_keys
from ohmformer.study.spec import Settings
from ohmformer.tasks.metric_kinds import Metric
from ohmformer.tasks.scoring import scores

HERE = Path(__file__).parent
RESULTS = HERE / "results"
STUDIES = {
    "vit_s": "ViT-S on photographs, noise per cell",
    "vit_s_vat": "ViT-S trained under noise, noise per cell",
    "vit_s_vat_clip": "ViT-S trained under noise with the clip, noise per cell",
    "vit_s_vat_kv": "ViT-S trained under noise with ours, noise per cell",
    "vit_s_per_value": "ViT-S, noise per whole value",
    "fashion_vit": "bundled ViT, Fashion-MNIST",
    "fashion_vit_vat": "bundled ViT trained under noise, Fashion-MNIST",
    "fashion_vit_vat_kv": "bundled ViT trained under noise with ours, Fashion-MNIST",
    "minilm_tweets": "MiniLM, tweets",
    "minilm_tweets_vat": "MiniLM trained under noise, tweets",
    "minilm_tweets_vat_kv": "MiniLM trained under noise with ours, tweets",
    "minilm_lee50": "MiniLM, pairs of news texts",
    "smollm2_news": "SmolLM2, news through a KV cache",
    "smollm2_news_vat": "SmolLM2 trained under noise, news through a KV cache",
    "smollm2_news_vat_kv": "SmolLM2 trained under noise with ours, news through a KV cache",
    "deit_s_imagenet": "DeiT-S on ImageNet",
}
"""Studies over the noise, by the names of their files, and what they are called."""

ABLATION = "ablation"
CHANCE = 0.1
"""Accuracy of the ViT-S studies by guessing: ten classes, equally many photographs of each."""

GAMMAS = (3, 4, 5)
"""Noise levels of the paper."""

CLIP, KV = "mitigation.clip", "mitigation.kv"
GAMMA = "hardware.attention.array.cell.write_noise.gamma"
METHODS = {
    "none": "no mitigation",
    "clip": "ClipFormer (2, 0.25)",
    "calibrated": "ClipFormer, calibrated",
    "auto": "ours",
}
"""What is compared, in the order of the tables."""

TRAINED = {
    "_vat": ("none", "VAT"),
    "_vat_clip": ("clip", "VAT + ClipFormer"),
    "_vat_kv": ("auto", "VAT + ours"),
}
"""What the name of a study adds to that of its parent, where the model was trained under noise: the method whose points
stand beside those of the parent, and what they are called there."""

COMPARED = (("none", "clip"), ("clip", "auto"), ("none", "auto"))
"""Reference and method of the gains that are told."""

Row = dict[str, Any]
Document = dict[str, Any]
"""JSON values of the small files: of one point, and of a whole file."""


@dataclass(frozen=True)
class Point:
    """A point of a small file.

    Attributes:
        set: dotted path -> swept value.
        label: label of the sweep; empty for none.
        accuracy: what was measured.
        write_noise: what the cells of each role had.
    """

    set: dict[str, Any]
    label: str
    accuracy: Accuracy
    write_noise: RoleNoise

    @classmethod
    def read(cls, row: Row) -> Point:
        """A point from its JSON values, with the scores of samples as numbers."""
        accuracy, noise = Accuracy.model_validate(row["accuracy"]), RoleNoise.model_validate(row["write_noise"])
        return cls(row["set"], row.get("label", ""), accuracy, noise)


def collected(study_file: Path, runs: Path, sets: Iterable[str] = ()) -> Document:
    """What the store in `runs` holds of a study: also of one that was stopped, or still goes on.

    Raises:
        BadInput: the study cannot be read, or model and data are not there.
    """
    study = read_study(str(study_file), list(sets))
    keys = study_keys(study)
    with Store(runs / "results.sqlite") as store:
        known = store.get(dict.fromkeys(keys))
    there = {key: point for key, point in zip(keys, study.points, strict=True) if key in known}
    part = replace(study, points=tuple(there.values()))
    results = study_results(part, list(there), [known[key] for key in there])
    found = results.model_dump(by_alias=True)
    points = [{**_small(point), "code": code_digest()[:12]} for point in found["points"]]
    software = _software(study.points[0].settings) if points and "hits" in points[0]["accuracy"] else None
    return {**found, "asked": len(set(keys)), "software_hits": software, "points": points}


def added(study_file: Path, new: Document, old: Document, sets: Iterable[str] = ()) -> Document:
    """The points of both, in the order of the study; where both have one, the new one."""
    fresh, known = (
        {json.dumps(point["set"], sort_keys=True): point for point in each["points"]} for each in (new, old)
    )
    asked = [json.dumps(point.set, sort_keys=True) for point in read_study(str(study_file), list(sets)).points]
    both = {**known, **fresh}
    return {**new, "points": [both[name] for name in dict.fromkeys(asked) if name in both]}


def _software(settings: Settings) -> Any:
    """What the model without crossbars scores on each sample, packed."""
    with one_thread(), torch.inference_mode():
        hits = scores(*loaded(settings.model, settings.task), settings.simulation.batch)
    return packed([int(hit) if hit in (0, 1) else float(hit) for hit in hits.tolist()])


def _small(point: Row) -> Row:
    accuracy = {name: value for name, value in point["accuracy"].items() if name != "chosen"}
    chosen = point["accuracy"].get("chosen")
    if chosen:
        accuracy["chosen"] = {name: chosen[name] for name in ("recipe", "losses")}
    if "hits" in accuracy:
        accuracy["hits"] = packed(accuracy["hits"])
    kept = {name: value for name, value in point.items() if name in ("set", "label", "write_noise", "notes")}
    return {**kept, "accuracy": accuracy}


def packed(hits: Sequence[Any]) -> Any:
    """Counts of up to nine chips as one text of digits; other scores with four digits behind the point."""
    if all(isinstance(hit, int) and 0 <= hit <= 9 for hit in hits):
        return "".join(map(str, hits))
    return [round(float(hit), 4) for hit in hits]


def _scores(content: Document) -> Iterator[tuple[dict[str, Any], str]]:
    """Every table of a document that may hold scores of samples, and under which name."""
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


def load(name: str, folder: Path = RESULTS) -> Document | None:
    """The stored results of a study, with the scores of samples as numbers; None where there are none."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    content: Document = json.loads(file.read_text(encoding="utf-8"))
    for holder, name in _scores(content):
        if isinstance(holder.get(name), str):
            holder[name] = [int(digit) for digit in holder[name]]
    return content


def stored_points(name: str, folder: Path = RESULTS) -> list[Point] | None:
    """The points of a study's small file; None where there is none."""
    content = load(name, folder)
    return None if content is None else [Point.read(row) for row in content["points"]]


def default_runs(study_file: Path) -> Path:
    """Where `ohmformer accuracy` puts the results of a study."""
    return default_folder(read_study(str(study_file)).name)


def method_of(settings: Mapping[str, Any], label: str) -> str | None:
    """Which of the methods a point is; None for others, such as those with a label."""
    if label or set(settings) - {GAMMA, CLIP, KV}:
        return None
    clip, kv = settings.get(CLIP, "none"), settings.get(KV, "none")
    match clip, kv:
        case "none" | "calibrated", "none":
            return str(clip)
        case {"alpha": 2.0, "beta": 0.25}, "none":
            return "clip"
        case "none", "auto":
            return "auto"
    return None


@dataclass(frozen=True)
class Curves:
    """Methods over the noise.

    Attributes:
        name: of the study.
        title: what it is called.
        found: method -> gamma -> point, gammas in ascending order.
        asked: how many points the study has.
        software_hits: what the model without crossbars scores on each sample, where samples have scores.
    """

    name: str
    title: str
    found: dict[str, dict[float, Point]]
    asked: int
    software_hits: list[float] | None = None

    @property
    def gammas(self) -> list[float]:
        """All that some method has."""
        return sorted({gamma for column in self.found.values() for gamma in column})

    @property
    def first(self) -> Point:
        """Some point, for what all have in common."""
        return next(iter(next(iter(self.found.values())).values()))

    @property
    def software(self) -> float:
        """What the model reaches without crossbars."""
        return self.first.accuracy.software

    @property
    def software_point(self) -> Point | None:
        """The model without crossbars, as if each chip were one: for paired differences."""
        if self.software_hits is None:
            return None
        chips = len(self.first.accuracy.chips)
        sums = tuple(chips * hit for hit in self.software_hits)
        same = {"chips": (self.software,) * chips, "score_sums": sums, "mean": self.software}
        return replace(self.first, accuracy=self.first.accuracy.model_copy(update=same))

    @property
    def metric(self) -> Metric:
        """How values are shown."""
        return self.first.accuracy.shown

    @property
    def stored(self) -> int:
        """How many points there are."""
        return sum(len(column) for column in self.found.values())

    @property
    def sigma(self) -> float:
        """That of K and V in all points."""
        key = self.first.write_noise.key
        return float(key.sigma if key else 0.0)

    def strength(self, gamma: float) -> float:
        """γσ of K and V."""
        point = next(column[gamma] for column in self.found.values() if gamma in column)
        key = point.write_noise.key
        return (key.gamma_sigma if key else None) or 0.0

    def gain(self, reference: str, method: str, gamma: float) -> Gain | None:
        """How much better a method is than another, paired; None where one of them is missing."""
        return paired(self.found.get(method, {}).get(gamma), self.found.get(reference, {}).get(gamma), gamma)


def paired(point: Point | None, reference: Point | None, gamma: float = 0.0) -> Gain | None:
    """The gain of a point over a reference; None where one is missing, or they had other chips or samples."""
    if point is None or reference is None or not alike(point, reference):
        return None
    return gain(gamma, point.accuracy, reference.accuracy)


def alike(a: Point, b: Point) -> bool:
    """Whether two points have equally many chips and samples."""
    sizes = [(len(point.accuracy.chips), point.accuracy.samples) for point in (a, b)]
    return sizes[0] == sizes[1]


def curves(name: str, folder: Path = RESULTS) -> Curves | None:
    """The methods of a study over the noise; None where nothing is stored."""
    content, points = load(name, folder), stored_points(name, folder)
    if content is None or points is None:
        return None
    found: dict[str, dict[float, Point]] = {method: {} for method in METHODS}
    for point in points:
        method = method_of(point.set, point.label)
        if method is not None:
            found[method][float(point.set[GAMMA])] = point
    kept = {method: dict(sorted(column.items())) for method, column in found.items() if column}
    asked, software = int(content.get("asked", 0)), content.get("software_hits")
    return Curves(name, STUDIES[name], kept, asked, software) if kept else None
