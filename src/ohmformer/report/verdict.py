"""Does clipping pay? Sentences computed from its results, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ohmformer.report.view import GAMMA, Series, clip_name, view
from ohmformer.stats.intervals import crossed_interval, paired_interval
from ohmformer.study.results.spec import Accuracy, MeasuredPoint, StudyResults
from ohmformer.tasks.metric_kinds import METRICS, Metric


@dataclass(frozen=True)
class Gain:
    """Difference of two points, with its 95 % interval: same chips, same samples, same noise.

    Positive is better, whichever way the metric counts.

    Attributes:
        x: the noise of both.
        mean: difference of the means.
        low: lower bound.
        high: upper bound.
        metric: of both.
        over_samples: the interval is that of other chips and other samples; False where results hold nothing of
            single samples, so that it speaks of other chips alone.
    """

    x: float
    mean: float
    low: float
    high: float
    metric: Metric = METRICS["top1"]
    over_samples: bool = True

    @property
    def verdict(self) -> str:
        """gains, loses or undecided: whether the interval leaves zero out; what knows no samples decides nothing."""
        if not self.over_samples:
            return "undecided"
        return "gains" if self.low > 0 else "loses" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        sign = -1 if self.metric.better == "lower" else 1
        bounds = sorted((sign * self.low, sign * self.high))
        low, high = (self.metric.show(bound, "+") for bound in bounds)
        return f"{self.metric.show(sign * self.mean, '+')}{' points' if self.metric.unit else ''} [{low}, {high}]"


def gain(x: float, accuracy: Accuracy, reference: Accuracy) -> Gain:
    """Difference of a point from a reference with the same number of chips and of samples.

    Chips and samples are crossed. Where only all samples together have a value (a correlation, a perplexity), samples
    count by the jackknife of the difference: `left_out` of a result. Results without it speak of other chips alone, and
    decide nothing.

    Args:
        x: the noise of both.
        accuracy: of the point.
        reference: of the reference.
    """
    metric = accuracy.shown
    sign = -1 if metric.better == "lower" else 1
    chips = sign * np.subtract(accuracy.chips, reference.chips)
    mean, over_samples = float(chips.mean()), True
    if accuracy.score_sums is not None and reference.score_sums is not None:
        low, high = crossed_interval(chips, np.subtract(accuracy.score_sums, reference.score_sums) / len(chips))
    elif accuracy.left_out and len(accuracy.left_out) == len(reference.left_out or ()):
        low, high = paired_interval(chips, sign * np.subtract(accuracy.left_out, reference.left_out or ()))
    else:
        low, high = crossed_interval(chips, chips[:1]) if len(chips) > 1 else (-np.inf, np.inf)
        over_samples = False
    return Gain(x, mean, low, high, metric, over_samples)


def clip_verdicts(results: StudyResults) -> list[str]:
    """One sentence or two for each clip that was swept against no mitigation, over the noise."""
    lines = view(results)
    by_name = {series.name: series for series in lines.series}
    reference = by_name.pop(clip_name("none"), None)
    if reference is None or not lines.x.endswith(GAMMA):
        return []
    shared = {x for x, _ in reference.points}
    return [_verdict(series, reference) for series in by_name.values() if shared & {x for x, _ in series.points}]


def _verdict(series: Series, reference: Series) -> str:
    plain = dict(reference.points)
    gains = [gain(x, point.accuracy, plain[x].accuracy) for x, point in series.points if x in plain]
    parts = [_where(gains, verdict) for verdict in ("loses", "undecided", "gains")]
    words = "; ".join(part for part in parts if part)
    return f"{series.name}, against no mitigation: {words}.{_why(series, plain, gains)}"


def _where(gains: list[Gain], verdict: str) -> str:
    """'gains at γ = 6, 7 (most at 7: ...)'."""
    such = [gain for gain in gains if gain.verdict == verdict]
    if not such:
        return "" if verdict == "undecided" else f"{verdict} nowhere"
    places = ", ".join(f"{gain.x:g}" for gain in such)
    if verdict == "undecided":
        return f"no certain difference at γ = {places}"
    extreme = max(such, key=lambda gain: abs(gain.mean))
    return f"{verdict} at γ = {places} (most at {extreme.x:g}: {extreme})"


def _why(series: Series, plain: dict[float, MeasuredPoint], gains: list[Gain]) -> str:
    """Explanation of a loss: the error of clipping itself, and the effect of noise with and without clipping."""
    bias, last, show = gains[0], gains[-1], gains[0].metric.show
    if bias.x != 0 or bias.verdict != "loses" or last.x == 0:
        return ""
    clipped = dict(series.points)
    unit = " points" if bias.metric.unit else ""
    with_clip, without = (_change(points[last.x], points[0.0]) for points in (clipped, plain))
    return (
        f" Why: clipping falsifies K and V, which by itself, without noise, makes {bias}; noise up to γ = {last.x:g} "
        f"then changes {bias.metric.title} by {show(without, '+')}{unit} without clipping and by "
        f"{show(with_clip, '+')} with it."
    )


def _change(point: MeasuredPoint, reference: MeasuredPoint) -> float:
    return point.accuracy.mean - reference.accuracy.mean
