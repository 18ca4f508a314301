"""Correlation and perplexity, with 95 % intervals over chips and samples.

C chips, P pairs, N windows. Free of torch.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ohmformer.errors import BadInput
from ohmformer.stats.intervals import (
    Floats,
    Summary,
    crossed_interval,
    jackknife_half_width,
    nan_if_unbounded,
    quantile,
)

MAX_BLOCKS = 200
"""Maximum number of blocks of the delete-a-block jackknife."""

ALMOST_ONE = 1 - 1e-12
"""Largest correlation that is put on Fisher's scale, where 1 would be infinite."""


def correlation_summary(
    scores: Floats, truth: Floats, kind: Literal["pearson", "spearman"], items: NDArray[np.int64] | None = None
) -> Summary:
    """Correlate the scores of each chip with the truth, and return the mean over chips with its 95 % interval.

    On Fisher's scale z = atanh(r), where a correlation is close to normal, two half-widths add in squares: that of the
    chips by Student's t, and that of the pairs by the jackknife of the chips' mean z. Pairs that share an item are not
    independent; the jackknife then leaves out items with all their pairs. Where these parts cannot be estimated (all
    correlations are 1, without any of the pairs, too), the interval is [-1, 1].

    Args:
        scores: [C, P], score of each pair on each chip.
        truth: [P], reported similarity of each pair.
        kind: kind of correlation.
        items: [P, 2], numbers of the two items of each pair; None if no item is in two pairs.

    Raises:
        BadInput: there are fewer than four pairs, or all scores of a chip, or all reported similarities, are equal.
    """
    if len(truth) < 4:
        raise BadInput(f"a correlation needs 4 pairs or more, not {len(truth)}; add pairs")
    for what, values in (("the scores in the data are", truth[None]), ("a chip's similarities are", scores)):
        if (np.ptp(values, axis=1) == 0).any():
            raise BadInput(
                f"{what} the same for all pairs, so there is no correlation; lower the noise or check the data"
            )
    chips = _correlations(scores, truth, kind)
    kept = [rows for rows in _jackknife_rows(len(truth), items) if len(rows) > 2]
    without = np.array([np.nan_to_num(_correlations(scores[:, rows], truth[rows], kind)) for rows in kept])  # [n, C]
    z = _fisher(chips)
    half = [_half_width_of_pairs(_fisher(without).mean(axis=1) if len(kept) else without)]
    if len(z) > 1:
        half.append(quantile(len(z)) * float(z.std(ddof=1)) / math.sqrt(len(z)))
    center, reach = float(z.mean()), math.hypot(*half)
    ci95 = math.tanh(center - reach), math.tanh(center + reach)
    jackknife_means = without.mean(axis=1).tolist() if len(kept) else ()
    return Summary(float(chips.mean()), ci95, tuple(chips.tolist()), tuple(jackknife_means))


def _half_width_of_pairs(jackknife_means: Floats) -> float:
    """Return the jackknife's half-width of the mean z of the chips.

    It is infinite if z is the same without any part: all correlations are then 1 or -1, as ranks of a few pairs are by
    chance, and no jackknife shows how much other pairs would vary.

    Args:
        jackknife_means: [n], mean z over chips with each part of the pairs left out in turn.
    """
    return jackknife_half_width(jackknife_means) if len(jackknife_means) and np.ptp(jackknife_means) > 0 else math.inf


def _fisher(correlations: Floats) -> Floats:
    """Transform correlations of any shape to Fisher's scale z = atanh(r)."""
    z: Floats = np.arctanh(np.clip(correlations, -ALMOST_ONE, ALMOST_ONE))
    return z


def _correlations(scores: Floats, truth: Floats, kind: str) -> Floats:
    """Return the correlations [C] of the rows of scores [C, P] with truth [P]; NaN for constant rows.

    Vectorized over chips, since the jackknife calls it up to 200 times; equal to `scipy.stats.pearsonr` and `spearmanr`
    up to rounding.
    """
    if kind == "spearman":
        scores, truth = stats.rankdata(scores, axis=1), stats.rankdata(truth)
    a = scores - scores.mean(axis=1, keepdims=True)
    b = truth - truth.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations: Floats = (a @ b) / np.sqrt((a * a).sum(axis=1) * (b @ b))
    return correlations


def _jackknife_rows(pairs: int, items: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """Return the remaining pairs for each left-out block: a block of pairs, or of items with all their pairs."""
    if items is None:
        return _without_blocks(pairs)
    generator = np.random.default_rng(0)
    numbers = np.unique(items)
    blocks = np.array_split(generator.permutation(numbers), min(len(numbers), MAX_BLOCKS))
    return [np.flatnonzero(~np.isin(items, block).any(axis=1)) for block in blocks]


def _without_blocks(count: int) -> list[NDArray[np.int64]]:
    """Return the remaining samples for each left-out block of `count` independent samples; blocks have a fixed seed."""
    blocks = np.array_split(np.random.default_rng(0).permutation(count), min(count, MAX_BLOCKS))
    return [np.delete(np.arange(count), block) for block in blocks]


def perplexity_summary(scores: Floats, tokens: Floats) -> Summary:
    """Return the perplexity, exp of the mean negative log-likelihood per token, with its 95 % interval.

    The mean is a ratio of sums over windows. Its interval follows from the windows' deviations from the ratio, since
    tokens of one window are not independent. Mean and interval are exponentiated last, so `mean` is the geometric mean
    of the chips' perplexities. The bounds are NaN for one window and for two of equal contribution, which do not show
    how much windows vary.

    Args:
        scores: [C, N], mean negative log-likelihood of the scored tokens of each window.
        tokens: [N], number of scored tokens of each window.

    Raises:
        BadInput: there is only one window on one chip, or a perplexity overflows.
    """
    if scores.size == 1:
        raise BadInput("perplexity needs more than one window on one chip for an interval; use more windows or chips")
    share = tokens / tokens.mean()
    chips = (scores * share).mean(axis=1)
    deviations = (scores - chips[:, None]) * share + chips[:, None]
    low, high = nan_if_unbounded(crossed_interval(chips, deviations.mean(axis=0)))
    with np.errstate(over="ignore"):
        perplexities = np.exp(chips)
        rest = [np.exp(np.average(scores[:, rows], axis=1, weights=tokens[rows])) for rows in _window_rows(len(tokens))]
        jackknife_means = tuple(float(values.mean()) for values in rest)
        mean = math.exp(min(float(chips.mean()), 700.0))
        summary = Summary(mean, _exp(low, high), tuple(perplexities.tolist()), jackknife_means)
    if not np.isfinite(perplexities).all():
        raise BadInput("the perplexity is too large for a float64 number; lower the noise")
    return summary


def _window_rows(count: int) -> list[NDArray[np.int64]]:
    """Return the remaining windows for each left-out block; no blocks for a single window."""
    return _without_blocks(count) if count > 1 else []


def _exp(low: float, high: float) -> tuple[float, float]:
    """Exponentiate an interval, without overflow."""
    return math.exp(np.minimum(low, 700.0)), math.exp(np.minimum(high, 700.0))
