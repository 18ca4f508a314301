"""Measures of many samples together, with 95 % intervals over chips and samples: correlation and perplexity.

C chips, P pairs, N windows. Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ohmformer.errors import BadInput
from ohmformer.stats.intervals import LEVEL, Floats, Summary, crossed_interval

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
    z = np.arctanh(np.clip(chips, -ALMOST_ONE, ALMOST_ONE))
    half = [_jackknife(_kept(len(truth), items), lambda rows: _mean_z(scores[:, rows], truth[rows], kind))]
    if len(z) > 1:
        half.append(float(stats.t.ppf(0.5 + LEVEL / 2, len(z) - 1)) * float(z.std(ddof=1)) / math.sqrt(len(z)))
    centre, reach = float(z.mean()), math.hypot(*half)
    return Summary(float(chips.mean()), (math.tanh(centre - reach), math.tanh(centre + reach)), tuple(chips.tolist()))


def _correlations(scores: Floats, truth: Floats, kind: str) -> Floats:
    """[C] correlations of the rows of scores [C, P] with truth [P]."""
    if kind == "spearman":
        scores, truth = stats.rankdata(scores, axis=1), stats.rankdata(truth)
    a = scores - scores.mean(axis=1, keepdims=True)
    b = truth - truth.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (a @ b) / np.sqrt((a * a).sum(axis=1) * (b @ b))
    return found


def _mean_z(scores: Floats, truth: Floats, kind: str) -> float:
    found = np.nan_to_num(_correlations(scores, truth, kind))
    return float(np.arctanh(np.clip(found, -ALMOST_ONE, ALMOST_ONE)).mean())


def _kept(pairs: int, items: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """What remains of the pairs when each part is left out: blocks of pairs, or of items with all their pairs."""
    order = np.random.default_rng(0)
    if items is None:
        blocks = np.array_split(order.permutation(pairs), min(pairs, BLOCKS))
        return [np.delete(np.arange(pairs), block) for block in blocks]
    names = np.unique(items)
    parts = np.array_split(order.permutation(names), min(len(names), BLOCKS))
    return [np.flatnonzero(~np.isin(items, part).any(axis=1)) for part in parts]


def _jackknife(kept: list[NDArray[np.int64]], statistic: Callable[[NDArray[np.int64]], float]) -> float:
    """Half-width of the 95 % interval of a statistic, from its values on what remains."""
    values = np.array([statistic(rows) for rows in kept if len(rows) > 2])
    n = len(values)
    if n < 2:
        return math.inf
    error = math.sqrt((n - 1) / n * float(((values - values.mean()) ** 2).sum()))
    return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * error


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
        found = Summary(math.exp(min(float(chips.mean()), 700.0)), _exp(low, high), tuple(values.tolist()))
    if not np.isfinite(values).all():
        raise BadInput("the perplexity is beyond all numbers; lower the noise")
    return found


def _exp(low: float, high: float) -> tuple[float, float]:
    return math.exp(min(low, 700.0)), math.exp(min(high, 700.0))
