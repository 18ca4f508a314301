"""Does clipping pay? Sentences computed from its results, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ohmformer.report.view import GAMMA, Series, clip_name, view
from ohmformer.study.results.spec import Accuracy, MeasuredPoint, StudyResults
from ohmformer.tasks.metric_kinds import METRICS, Metric

if TYPE_CHECKING:
    from ohmformer.stats.intervals import Floats

ENOUGH_EQUAL = 6
"""Least number of samples that exclude chance at 95 % where all of them change alike (sign test: 2 / 2^6 < 5 %)."""

UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True)
class Gain:
    """Difference of two points, with its 95 % interval: same chips, same samples, same noise.

    Positive is better, whichever way the metric counts.

    Attributes:
        x: the noise of both.
        mean: difference of the means.
        low: lower bound; -inf where the results do not show how much chips or samples vary.
        high: upper bound; inf likewise.
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
        low, high = (self.metric.text(bound, "+") for bound in bounds)
        return f"{self.metric.text(sign * self.mean, '+')}{' points' if self.metric.unit else ''} [{low}, {high}]"


def gain(x: float, accuracy: Accuracy, reference: Accuracy) -> Gain:
    """Difference of a point from a reference, on the chips and samples that both have.

    Chips and samples are crossed. Where only all samples together have a value (a correlation, a perplexity), samples
    count by the jackknife of the difference: `left_out` of a result. Results without it speak of other chips alone, and
    decide nothing. The interval is unbounded where chips or samples cannot be judged: one chip with noise, one sample,
    two samples that agree, fewer than six samples whose hits all change alike, and jackknife values without any spread
    (perfect correlations of a few pairs).

    Args:
        x: the noise of both.
        accuracy: of the point.
        reference: of the reference.
    """
    from ohmformer.stats.intervals import ROUNDING, chip_interval, crossed_interval, paired_interval

    metric = accuracy.shown
    sign = -1 if metric.better == "lower" else 1
    pairs = zip(accuracy.chips, reference.chips, strict=False)  # `trials.ci_halfwidth` may try more chips of one
    chips = sign * np.array([one - other for one, other in pairs])
    over_samples = True
    if accuracy.score_sums is not None and reference.score_sums is not None:
        count = min(accuracy.samples, reference.samples)
        sums, others = np.array(accuracy.score_sums[:count]), np.array(reference.score_sums[:count])
        same = len(accuracy.chips) == len(reference.chips)
        samples = (sums - others) / len(chips) if same else sums / len(accuracy.chips) - others / len(reference.chips)
        interval = UNBOUNDED if _by_chance(samples, metric) else crossed_interval(chips, samples)
    elif accuracy.left_out and len(accuracy.left_out) == len(reference.left_out or ()):
        left_out = np.array([accuracy.left_out, reference.left_out])  # [2, n]
        same = np.allclose(left_out, left_out[:, :1], rtol=ROUNDING, atol=0.0)  # no sample matters for either
        interval = UNBOUNDED if same else paired_interval(chips, sign * (left_out[0] - left_out[1]))
    else:
        interval, over_samples = chip_interval(chips), False
    low, high = UNBOUNDED if len(chips) == 1 and x != 0 else interval
    return Gain(x, float(chips.mean()), low, high, metric, over_samples)


def _by_chance(samples: Floats, metric: Metric) -> bool:
    """True if hits that all change alike [N], but not all stay, may do so by chance, since samples are few."""
    alike = metric.counts == "hit" and len(samples) < ENOUGH_EQUAL and bool(np.ptp(samples) == 0)
    return alike and bool(samples[0] != 0)


def clip_verdicts(results: StudyResults) -> list[str]:
    """One sentence or two for each clip that was swept against no mitigation, over the noise."""
    lines = view(results)
    by_name = {series.name: series for series in lines.series}
    reference = by_name.pop(clip_name("none"), None)
    if reference is None or not lines.x.endswith(GAMMA):
        return []
    shared = {x for x, _ in reference.points}
    return [_verdict(series, reference) for series in by_name.values() if shared & {x for x, _ in series.points}]


def findings(results: StudyResults) -> tuple[str, ...]:
    """The sentences of `clip_verdicts` that a record holds, which need the scores of single samples, or new ones."""
    return tuple(clip_verdicts(results)) if results.record is None else results.record.findings


def _verdict(series: Series, reference: Series) -> str:
    plain = dict(reference.points)
    gains = [gain(x, point.accuracy, plain[x].accuracy) for x, point in series.points if x in plain]
    parts = [_where(gains, verdict) for verdict in ("loses", "undecided", "gains")]
    words = "; ".join(part for part in parts if part)
    return f"{series.name}, against no mitigation: {words}.{_unbounded(gains)}{_why(series, plain, gains)}"


def _unbounded(gains: list[Gain]) -> str:
    """Sentence on the noise at which intervals are unbounded; empty if there is none."""
    places = ", ".join(f"{gain.x:g}" for gain in gains if np.isinf(gain.low))
    return f" At γ = {places} there are too few chips or samples to show how much they vary." if places else ""


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
    bias, last, show = gains[0], gains[-1], gains[0].metric.text
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
