"""Measures of many samples together, with 95 % intervals over chips and samples: correlation and perplexity.

C chips, P pairs, N windows. Free of torch.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ohmformer.errors import BadInput
from ohmformer.stats.intervals import Floats, Summary, crossed_interval, jackknife_half_width, quantile

BLOCKS = 200
"""At most so many parts are left out, one after the other, to see how a correlation depends on its pairs."""

ALMOST_ONE = 1 - 1e-12


def correlation_summary(
    scores: Floats, truth: Floats, kind: Literal["pearson", "spearman"], items: NDArray[np.int64] | None = None
) -> Summary:
    """One correlation per chip, their mean, and an interval over chips and pairs.

    On Fisher's scale z = atanh(r), where a correlation is close to normal, two half-widths add in squares: that of the
    chips by Student's t, and that of the pairs by the jackknife of the chips' mean z. Pairs that share an item are not
    independent; then items are left out, with all their pairs, instead of pairs.

    Args:
        scores: [C, P] what each chip says of each pair.
        truth: [P] what people said.
        kind: of the correlation.
        items: [P, 2] which two items make up each pair; None where no item is in two pairs.

    Raises:
        BadInput: fewer than four pairs, or a chip (or the truth) says the same of all.
    """
    if len(truth) < 4:
        raise BadInput(f"a correlation needs 4 pairs or more; there are {len(truth)}")
    for what, values in (("the scores in the data are", truth[None]), ("a chip's similarities are", scores)):
        if (np.ptp(values, axis=1) == 0).any():
            raise BadInput(
                f"{what} the same for all pairs, so that nothing correlates; lower the noise or check the data"
            )
    chips = _correlations(scores, truth, kind)
    kept = [rows for rows in _kept(len(truth), items) if len(rows) > 2]
    without = np.array([np.nan_to_num(_correlations(scores[:, rows], truth[rows], kind)) for rows in kept])  # [n, C]
    z = _fisher(chips)
    half = [jackknife_half_width(_fisher(without).mean(axis=1) if len(kept) else without)]
    if len(z) > 1:
        half.append(quantile(len(z)) * float(z.std(ddof=1)) / math.sqrt(len(z)))
    center, reach = float(z.mean()), math.hypot(*half)
    ci95 = math.tanh(center - reach), math.tanh(center + reach)
    left_out = without.mean(axis=1).tolist() if len(kept) else ()
    return Summary(float(chips.mean()), ci95, tuple(chips.tolist()), tuple(left_out))


def _fisher(correlations: Floats) -> Floats:
    """Correlations of any shape on Fisher's scale, where they are close to normal."""
    found: Floats = np.arctanh(np.clip(correlations, -ALMOST_ONE, ALMOST_ONE))
    return found


def _correlations(scores: Floats, truth: Floats, kind: str) -> Floats:
    """[C] correlations of the rows of scores [C, P] with truth [P]."""
    if kind == "spearman":
        scores, truth = stats.rankdata(scores, axis=1), stats.rankdata(truth)
    a = scores - scores.mean(axis=1, keepdims=True)
    b = truth - truth.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (a @ b) / np.sqrt((a * a).sum(axis=1) * (b @ b))
    return found


def _kept(pairs: int, items: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """What remains of the pairs when each part is left out: blocks of pairs, or of items with all their pairs."""
    if items is None:
        return _without_blocks(pairs)
    order = np.random.default_rng(0)
    names = np.unique(items)
    parts = np.array_split(order.permutation(names), min(len(names), BLOCKS))
    return [np.flatnonzero(~np.isin(items, part).any(axis=1)) for part in parts]


def _without_blocks(count: int) -> list[NDArray[np.int64]]:
    """What remains of `count` independent samples when each block of them is left out, always the same blocks."""
    blocks = np.array_split(np.random.default_rng(0).permutation(count), min(count, BLOCKS))
    return [np.delete(np.arange(count), block) for block in blocks]


def perplexity_summary(scores: Floats, tokens: Floats) -> Summary:
    """exp of the mean negative log-likelihood of a token, over chips and windows.

    The mean is a ratio, of sums over windows; its interval is that of the windows' deviations from it, since tokens of
    one window are not independent. Mean and interval are exponentiated, so `mean` is the geometric mean of the chips.

    Args:
        scores: [C, N] mean negative log-likelihood of the tokens that are scored in each window.
        tokens: [N] how many those are.

    Raises:
        BadInput: a single number, or one beyond all numbers.
    """
    if scores.size == 1:
        raise BadInput("one window on one chip tells nothing of others; take more windows or chips")
    share = tokens / tokens.mean()
    chips = (scores * share).mean(axis=1)
    deviations = (scores - chips[:, None]) * share + chips[:, None]
    low, high = crossed_interval(chips, deviations.mean(axis=0))
    with np.errstate(over="ignore"):
        values = np.exp(chips)
        rest = [np.exp(np.average(scores[:, rows], axis=1, weights=tokens[rows])) for rows in _windows(len(tokens))]
        left_out = tuple(float(each.mean()) for each in rest)
        mean = math.exp(min(float(chips.mean()), 700.0))
        found = Summary(mean, _exp(low, high), tuple(values.tolist()), left_out)
    if not np.isfinite(values).all():
        raise BadInput("the perplexity is beyond all numbers; lower the noise")
    return found


def _windows(count: int) -> list[NDArray[np.int64]]:
    """What remains of the windows when each block of them is left out; nothing of a single window."""
    return _without_blocks(count) if count > 1 else []


def _exp(low: float, high: float) -> tuple[float, float]:
    return math.exp(min(low, 700.0)), math.exp(min(high, 700.0))
