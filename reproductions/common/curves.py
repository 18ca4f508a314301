"""Methods of a study over the noise, and paired differences between them and from the software model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from common.small_files import Point, load
from ohmformer.report.verdict import Gain, gain
from ohmformer.tasks.metric_kinds import Metric


@dataclass(frozen=True)
class Curves:
    """Methods over the noise.

    Attributes:
        name: name of the study.
        title: title of the study in words.
        found: method -> gamma -> point, gammas in ascending order.
        asked: number of points that the study has.
        software_hits: score of the model without crossbars on each sample; None if samples have no scores.
        software_left_out: for a metric that only all samples together have, its value without each part of the samples
            in turn; None if it is not stored.
    """

    name: str
    title: str
    found: dict[str, dict[float, Point]]
    asked: int
    software_hits: list[float] | None = None
    software_left_out: list[float] | None = None

    @property
    def gammas(self) -> list[float]:
        """All gammas that some method has."""
        return sorted({gamma for column in self.found.values() for gamma in column})

    @property
    def first(self) -> Point:
        """A point, for what all points have in common."""
        return next(iter(next(iter(self.found.values())).values()))

    @property
    def software(self) -> float:
        """The metric of the model without crossbars."""
        return self.first.accuracy.software

    @property
    def software_point(self) -> Point | None:
        """The model without crossbars as a point like `first`; see `software_like`."""
        return self.software_like(self.first)

    def software_like(self, point: Point) -> Point | None:
        """The model without crossbars as a point with as many equal chips as another one, for paired differences.

        Returns:
            The point; None if what the software model scores is not stored.
        """
        if self.software_hits is None and self.software_left_out is None:
            return None
        chips = len(point.accuracy.chips)
        sums = None if self.software_hits is None else tuple(chips * hit for hit in self.software_hits)
        left_out = None if self.software_left_out is None else tuple(self.software_left_out)
        same = {"chips": (self.software,) * chips, "score_sums": sums, "left_out": left_out, "mean": self.software}
        return replace(point, accuracy=point.accuracy.model_copy(update={**same, "samples": self._software_samples}))

    @property
    def _software_samples(self) -> int:
        return self.first.accuracy.samples if self.software_hits is None else len(self.software_hits)

    @property
    def metric(self) -> Metric:
        """The metric, which shows its values."""
        return self.first.accuracy.shown

    @property
    def stored(self) -> int:
        """Number of points that are stored."""
        return sum(len(column) for column in self.found.values())

    @property
    def sigma(self) -> float:
        """The sigma of K and V in all points."""
        key = self.first.write_noise.key
        return float(key.sigma if key else 0.0)

    def strength(self, gamma: float) -> float:
        """γσ of K and V."""
        return next(column[gamma] for column in self.found.values() if gamma in column).strength or 0.0

    def point(self, method: str, gamma: float) -> Point | None:
        """The point of a method; None if it is missing."""
        return self.found.get(method, {}).get(gamma)

    def gain(self, reference: str, method: str, gamma: float) -> Gain | None:
        """How much better a method is than another, paired; None if one of them is missing."""
        return paired(self.point(method, gamma), self.point(reference, gamma), gamma)


def paired(point: Point | None, reference: Point | None, gamma: float = 0.0) -> Gain | None:
    """The gain of a point over a reference; None if one is missing, or they had other chips or samples."""
    if point is None or reference is None or not alike(point, reference):
        return None
    return gain(gamma, point.accuracy, reference.accuracy)


def alike(a: Point, b: Point) -> bool:
    """True if two points have equally many chips and samples."""
    sizes = [(len(point.accuracy.chips), point.accuracy.samples) for point in (a, b)]
    return sizes[0] == sizes[1]


def curves(
    name: str, title: str, folder: Path, place: Callable[[Point], tuple[str, float] | None], order: Iterable[str] = ()
) -> Curves | None:
    """The methods of a study over the noise; None if nothing is stored.

    Args:
        name: name of the study's small file.
        title: title of the study in words.
        folder: folder of the small files.
        place: point -> its method and gamma; None for a point that is not shown.
        order: methods that come first.
    """
    content = load(name, folder)
    if content is None:
        return None
    found: dict[str, dict[float, Point]] = {method: {} for method in order}
    for row in content["points"]:
        point = Point.read(row)
        if (where := place(point)) is not None:
            found.setdefault(where[0], {})[where[1]] = point
    kept = {method: dict(sorted(column.items())) for method, column in found.items() if column}
    software = {name: content.get(name) for name in ("software_hits", "software_left_out")}
    return Curves(name, title, kept, int(content.get("asked", 0)), **software) if kept else None
