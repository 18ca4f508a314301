"""Confidence intervals for a mean over chips and samples, two crossed random effects. Free of torch.

C chips, N samples: scores[C, N] is the score of chip c on sample n, often 0 or 1.

tests/nn/test_monte_carlo.py simulates the coverage of these intervals, for two chips and more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
"""Confidence level of all intervals."""

ROUNDING = 1e-12
"""Relative difference up to which two values are equal: that of sums of float64 numbers in another order."""

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """The value of scores [C, N] under a metric.

    Attributes:
        mean: mean of the chips' values.
        ci95: 95 % confidence interval of the mean, for other chips and other samples. Both bounds are NaN if the scores
            do not show how much samples or chips vary (see `mean_interval`).
        chips: value of every chip [C].
        jackknife_means: the mean over chips of the value with each part of the samples left out in turn (see
            `paired_interval`). Empty if the value is a mean of scores, whose paired interval needs none.
    """

    mean: float
    ci95: Interval
    chips: tuple[float, ...]
    jackknife_means: tuple[float, ...] = ()


def mean_summary(scores: Floats) -> Summary:
    """Summarize scores [C, N] by their mean over samples and chips."""
    return Summary(float(scores.mean()), mean_interval(scores), tuple(scores.mean(axis=1).tolist()))


def mean_interval(scores: Floats) -> Interval:
    """Return the 95 % confidence interval of the mean score, for other chips and other samples.

    A single chip holds no information about other chips; its interval covers the choice of samples only.

    Scores of 0 and 1 get the interval of a proportion (`_proportion`; for one chip Clopper-Pearson), which keeps its
    coverage near 0 and 1. A known limit: with two to five chips that differ strongly (one mostly right, the next mostly
    wrong) chip means are far from normal, and the coverage of the 95 % interval is about 90 %.

    Other scores get Student's t over chips and samples (`crossed_interval`), which holds for few normal scores, too.
    Their interval is unknown for one sample, for two samples of equal mean score, and for two chips of equal mean whose
    scores differ.

    Args:
        scores: [C, N].

    Returns:
        Lower and upper bound; within [0, 1] if all scores are 0 or 1. Both are NaN if the interval is unknown.
    """
    binary = bool(np.isin(scores, (0.0, 1.0)).all())
    chip_means, sample_means = scores.mean(axis=1), scores.mean(axis=0)
    if binary:
        same = np.ptp(sample_means) == 0 and np.ptp(chip_means) == 0
        return _binomial(scores[0]) if same or len(scores) == 1 else _proportion(chip_means, sample_means)
    if _two_equal(chip_means) and not _two_equal(scores):
        return math.nan, math.nan
    if np.ptp(sample_means) == 0 and np.ptp(chip_means) == 0 and len(sample_means) > 2:
        return float(chip_means[0]), float(chip_means[0])  # free of the rounding of a mean over chips
    return nan_if_unbounded(crossed_interval(chip_means, sample_means))


def nan_if_unbounded(interval: Interval) -> Interval:
    """Return an interval, with NaN for both bounds if it is unbounded."""
    return interval if all(map(math.isfinite, interval)) else (math.nan, math.nan)


def _two_equal(values: Floats) -> bool:
    """True if there are exactly two values, or rows of values, and they are equal up to rounding."""
    return len(values) == 2 and bool(np.allclose(values[0], values[1], rtol=ROUNDING, atol=0.0))


def _proportion(chip_means: Floats, sample_means: Floats) -> Interval:
    """Return the 95 % interval of a proportion over random chips [C] and random samples [N].

    The part of the samples is the exact interval of a proportion at the effective sample size, the number of
    independent samples that has the observed variance (Korn and Graubard, 1998). The part of the chips is a half-width
    by Student's t. The two parts add in squares, separately below and above the mean.
    """
    mean, count = float(chip_means.mean()), len(sample_means)
    variance = float(sample_means.var(ddof=1)) / count if count > 1 else 0.0
    effective = min(max(mean * (1 - mean) / variance, 1.0), count * len(chip_means)) if variance > 0 else count
    successes, tail = mean * effective, (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, successes, effective - successes + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, effective - successes)) if successes < effective else 1.0
    chips = _half_width(chip_means)
    return max(0.0, mean - math.hypot(mean - low, chips)), min(1.0, mean + math.hypot(high - mean, chips))


def crossed_interval(chip_means: Floats, sample_means: Floats) -> Interval:
    """Return the 95 % interval of a grand mean over random chips [C] and random samples [N].

    Chips and samples each contribute a half-width by Student's t, at their own degrees of freedom; the two add in
    squares. The noise of single scores counts twice, so the interval is conservative. Pooled degrees of freedom (Welch,
    Satterthwaite) would give narrower intervals whose coverage is too low with two or three chips. A single chip
    contributes nothing; two equal chips do not vary. One sample, or two that agree, do not show how much samples vary.

    Args:
        chip_means: [C], mean score of each chip.
        sample_means: [N], mean score of each sample.

    Returns:
        Lower and upper bound; minus and plus infinity for one sample and for two samples of equal mean score.
    """
    mean = float(chip_means.mean())
    if len(sample_means) < 2 or _two_equal(sample_means):
        return -math.inf, math.inf
    half = math.hypot(*(_half_width(means) for means in (chip_means, sample_means) if len(means) > 1))
    return mean - half, mean + half


def chip_interval(values: Floats) -> Interval:
    """Return the 95 % interval of the mean of one value per chip [C], by Student's t.

    It is unbounded for a single chip and for two equal ones, which do not show how much chips vary.
    """
    if len(values) < 2 or _two_equal(values):
        return -math.inf, math.inf
    mean, half = float(values.mean()), _half_width(values)
    return mean - half, mean + half


def _half_width(means: Floats) -> float:
    """Return the half-width of the 95 % interval of the mean of independent normal values [n], by Student's t."""
    return quantile(len(means)) * float(means.std(ddof=1)) / math.sqrt(len(means))


def quantile(count: int) -> float:
    """Return the half-width of a 95 % interval in standard errors, by Student's t for `count` values."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, count - 1))


def student_errors(errors: float, count: int) -> float:
    """Return the standard errors that chance exceeds as rarely as `errors` where the standard deviation is known.

    Args:
        errors: number of standard errors for a known standard deviation (normal distribution).
        count: number of independent normal values that the standard deviation is estimated from.

    Returns:
        The number by Student's t: 1.84 for two values and one error, 1.005 for a hundred; infinite for a single value,
        which does not show how much values differ.
    """
    return float(stats.t.ppf(stats.norm.cdf(errors), count - 1)) if count > 1 else math.inf


def jackknife_half_width(jackknife_means: Floats) -> float:
    """Return the half-width of the 95 % interval of a statistic, by the jackknife (Tukey, 1958).

    Args:
        jackknife_means: [n], the statistic with each of n parts of the samples left out in turn.

    Returns:
        The half-width; infinite for fewer than two parts and for two equal values.
    """
    n = len(jackknife_means)
    if n < 2 or _two_equal(jackknife_means):
        return math.inf
    error = math.sqrt((n - 1) / n * float(((jackknife_means - jackknife_means.mean()) ** 2).sum()))
    return quantile(n) * error


def paired_interval(chips: Floats, jackknife_means: Floats) -> Interval:
    """Return the 95 % interval of the mean difference of two settings on the same chips and samples.

    Chips and samples are crossed, as in `crossed_interval`: chips contribute by Student's t (a single chip nothing),
    samples by the jackknife of the mean difference.

    Args:
        chips: [C], difference on each chip.
        jackknife_means: [n], mean difference over chips with each part of the samples left out in turn.
    """
    mean = float(chips.mean())
    half = math.hypot(_half_width(chips) if len(chips) > 1 else 0.0, jackknife_half_width(jackknife_means))
    return mean - half, mean + half


def value_interval(values: Floats) -> Interval:
    """Return the 95 % interval of the mean of one value per chip [C], by Student's t.

    Both bounds are NaN for a single chip and for two equal ones, which do not show how much chips vary.
    """
    return nan_if_unbounded(chip_interval(values))


def _binomial(scores: Floats) -> Interval:
    """Return the exact (Clopper-Pearson) 95 % interval of the proportion of successes in N independent scores."""
    interval = stats.binomtest(int(scores.sum()), len(scores)).proportion_ci(confidence_level=LEVEL, method="exact")
    return float(interval.low), float(interval.high)
