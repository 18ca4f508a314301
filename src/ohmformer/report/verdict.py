"""Does clipping pay? Sentences computed from a results document, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ohmformer.nn.statistics import crossed_interval
from ohmformer.report.view import GAMMA, Document, Point, Series, clip_name, view


@dataclass(frozen=True)
class Gain:
    """Difference of two points in accuracy, with its 95 % interval: same chips, same samples, same noise."""

    x: float
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """gains, loses or undecided: whether the interval leaves zero out."""
        return "gains" if self.low > 0 else "loses" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def gain(x: float, point: Point, reference: Point) -> Gain:
    """How much better a point is than a reference of equally many chips and samples."""
    a, b = point["accuracy"], reference["accuracy"]
    chips = np.subtract(a["chips"], b["chips"])
    hits = np.subtract(a["hits"], b["hits"]) / len(chips)
    low, high = crossed_interval(chips, hits)
    return Gain(x, float(chips.mean()), low, high)


def clip_verdicts(document: Document) -> list[str]:
    """One sentence or two for each clip that was swept against no mitigation, over the noise."""
    seen = view(document)
    by_name = {series.name: series for series in seen.series}
    reference = by_name.pop(clip_name("none"), None)
    if reference is None or not seen.x.endswith(GAMMA):
        return []
    shared = {x for x, _ in reference.points}
    return [_verdict(series, reference) for series in by_name.values() if shared & {x for x, _ in series.points}]


def _verdict(series: Series, reference: Series) -> str:
    plain = dict(reference.points)
    gains = [gain(x, point, plain[x]) for x, point in series.points if x in plain]
    parts = [_where(gains, verdict) for verdict in ("loses", "undecided", "gains")]
    found = "; ".join(part for part in parts if part)
    return f"{series.name}, against no mitigation: {found}.{_why(series, plain, gains)}"


def _where(gains: list[Gain], verdict: str) -> str:
    """'gains at γ = 6, 7 (most at 7: ...)'."""
    found = [gain for gain in gains if gain.verdict == verdict]
    if not found:
        return "" if verdict == "undecided" else f"{verdict} nowhere"
    places = ", ".join(f"{gain.x:g}" for gain in found)
    if verdict == "undecided":
        return f"no certain difference at γ = {places}"
    extreme = max(found, key=lambda gain: abs(gain.mean))
    return f"{verdict} at γ = {places} (most at {extreme.x:g}: {extreme})"


def _why(series: Series, plain: dict[float, Point], gains: list[Gain]) -> str:
    """Without noise there is only what clipping itself falsifies; then, how either one takes the noise."""
    bias, last = gains[0], gains[-1]
    if bias.x != 0 or bias.verdict != "loses" or last.x == 0:
        return ""
    clipped = dict(series.points)
    with_clip, without = (_change(points[last.x], points[0.0]) for points in (clipped, plain))
    return (
        f" Why: clipping falsifies K and V, which by itself, without noise, makes {bias}; noise up to γ = {last.x:g} "
        f"then changes accuracy by {without:+.1f} points without clipping and by {with_clip:+.1f} with it."
    )


def _change(point: Point, reference: Point) -> float:
    return 100 * float(point["accuracy"]["mean"] - reference["accuracy"]["mean"])
