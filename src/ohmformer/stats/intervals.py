"""Confidence intervals for a mean over chips and samples: two crossed sources of luck. Free of torch.

C chips, N samples: scores[C, N] is how well chip c does on sample n, often 0 or 1.

How often such an interval holds the truth is simulated in tests/nn/test_montecarlo.py, with two chips and more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """What scores [C, N] come to.

    Attributes:
        mean: over all chips.
        ci95: 95 % interval of what other chips would give on other samples.
        chips: every chip's own value.
        left_out: mean over chips of the value without each part of the samples in turn, for paired intervals
            (`paired_interval`); empty where samples have scores of their own, which serve that purpose better.
    """

    mean: float
    ci95: Interval
    chips: tuple[float, ...]
    left_out: tuple[float, ...] = ()


def mean_summary(scores: Floats) -> Summary:
    """Means over samples, and over chips; `scores` is [C, N]."""
    return Summary(float(scores.mean()), mean_interval(scores), tuple(scores.mean(axis=1).tolist()))


def mean_interval(scores: Floats) -> Interval:
    """95 % interval of the mean score that other chips would have on other samples.

    One chip tells nothing of other chips: the interval then covers samples only.

    Scores that are all 0 or 1 get the bounds of a share (`_share`), which hold the truth near 0 and 1, too. What no
    formula mends: with two to five chips that differ very much (most right on one, most wrong on the next) chip means
    are far from normal, and 95 % intervals hold the truth in about 90 % of all cases.

    Args:
        scores: [C, N]; the bounds stay within [0, 1] where all of them are 0 or 1.
    """
    binary = bool(np.isin(scores, (0.0, 1.0)).all())
    chip_means, sample_means = scores.mean(axis=1), scores.mean(axis=0)
    if np.ptp(sample_means) == 0 and np.ptp(chip_means) == 0:
        return _binomial(scores[0]) if binary else (float(chip_means[0]), float(chip_means[0]))
    if len(scores) == 1:
        return _binomial(scores[0]) if binary else _bootstrap(scores[0])
    return _share(chip_means, sample_means) if binary else crossed_interval(chip_means, sample_means)


def _share(chip_means: Floats, sample_means: Floats) -> Interval:
    """95 % interval of a share whose chips [C] and samples [N] are both drawn at random.

    Samples have the exact bounds of a share, for as many independent samples as have the variance that was seen (Korn
    and Graubard, 1998); chips have a half-width by Student's t. Below and above the mean the two add in squares.
    """
    mean, count = float(chip_means.mean()), len(sample_means)
    variance = float(sample_means.var(ddof=1)) / count if count > 1 else 0.0
    independent = min(max(mean * (1 - mean) / variance, 1.0), count * len(chip_means)) if variance > 0 else count
    right, tail = mean * independent, (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, right, independent - right + 1)) if right > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, right + 1, independent - right)) if right < independent else 1.0
    chips = _half_width(chip_means)
    return max(0.0, mean - math.hypot(mean - low, chips)), min(1.0, mean + math.hypot(high - mean, chips))


def crossed_interval(chip_means: Floats, sample_means: Floats) -> Interval:
    """95 % interval of a grand mean whose chips [C] and samples [N] are both drawn at random.

    Chips and samples each have a half-width by Student's t, at their own degrees of freedom; the two add in squares.
    The noise of single scores is counted twice, which is on the safe side. Pooled degrees of freedom (Welch,
    Satterthwaite) would give narrower intervals that, with two or three chips, hold the truth too seldom. A single
    chip adds nothing.
    """
    mean = float(chip_means.mean())
    half = math.hypot(*(_half_width(means) for means in (chip_means, sample_means) if len(means) > 1))
    return mean - half, mean + half


def _half_width(means: Floats) -> float:
    """Half-width of the 95 % interval of the mean of independent normal values [n], by Student's t."""
    return quantile(len(means)) * float(means.std(ddof=1)) / math.sqrt(len(means))


def quantile(count: int) -> float:
    """How many standard errors a 95 % interval reaches to either side, estimated from `count` values."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, count - 1))


def jackknife_half_width(left_out: Floats) -> float:
    """Half-width of the 95 % interval of a statistic, from its values [n] without each part of the samples in turn.

    Infinite for fewer than two parts, which tell nothing.
    """
    n = len(left_out)
    if n < 2:
        return math.inf
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    return quantile(n) * error


def paired_interval(chips: Floats, left_out: Floats) -> Interval:
    """95 % interval of the mean difference of two settings that were tried on the same chips and samples.

    Chips and samples are crossed, as in `crossed_interval`: chips count by Student's t (a single one adds nothing), and
    samples by the jackknife of the mean difference.

    Args:
        chips: [C] difference on each chip.
        left_out: [n] mean difference over chips without each part of the samples in turn.
    """
    mean = float(chips.mean())
    half = math.hypot(_half_width(chips) if len(chips) > 1 else 0.0, jackknife_half_width(left_out))
    return mean - half, mean + half


def value_interval(values: Floats) -> Interval:
    """95 % interval of the mean of one value per chip [C], by Student's t; NaN for one chip, which tells nothing."""
    if len(values) < 2:
        return math.nan, math.nan
    return crossed_interval(values, values[:1])


def _binomial(scores: Floats) -> Interval:
    """Exact (Clopper-Pearson) interval of a share of N independent successes."""
    found = stats.binomtest(int(scores.sum()), len(scores)).proportion_ci(confidence_level=LEVEL, method="exact")
    return float(found.low), float(found.high)


def _bootstrap(scores: Floats) -> Interval:
    """Bias-corrected and accelerated bootstrap over samples, always with the same resamples."""
    resampler = np.random.default_rng(0)
    found = stats.bootstrap((scores,), np.mean, confidence_level=LEVEL, method="BCa", random_state=resampler)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
