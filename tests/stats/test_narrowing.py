"""Trials until the interval is narrow: which trials are added, and how often the interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ohmformer.stats.intervals import chip_interval
from ohmformer.stats.narrowing import GROWTH, LOOKS, Trials, grown, is_narrow, share_interval
from ohmformer.study.spec import FEWEST_CHIPS

RUNS = 20_000
FALSE_ALARM = 1e-5
"""Probability that one coverage test fails although the interval covers as claimed."""
CLAIM = 0.94
"""Least coverage of the 95 % interval where chips and samples are added."""


def looks(first: int, most: int) -> list[int]:
    """Numbers of chips of all looks, with all samples from the start."""
    now, found, chips = Trials(first, 10), [], tuple(np.linspace(0, 1, first))
    while now is not None:
        found.append(now.chips)
        now = grown(now, Trials(most, 10), (0.0, 1.0), chips)
    return found


def ended(needed: int, first: int, in_a_row: int) -> tuple[float, float, float]:
    """Studies whose interval, and whose mean plus and minus the asked half-width, hold the truth; mean chips."""
    values, counts = np.random.default_rng(needed).standard_normal((RUNS, 300)), np.array(looks(first, 300))
    means = np.stack([values[:, :n].mean(axis=1) for n in counts], axis=1)
    spreads = np.stack([values[:, :n].std(axis=1, ddof=1) for n in counts], axis=1)
    half = stats.t.ppf(0.975, counts - 1) * spreads / np.sqrt(counts)
    asked = 1.96 / math.sqrt(needed)
    narrow = half <= asked
    if in_a_row == 2:
        narrow = narrow & np.pad(narrow, ((0, 0), (1, 0)))[:, :-1]
    last = np.where(narrow.any(axis=1), narrow.argmax(axis=1), len(counts) - 1)
    rows = np.arange(RUNS)
    off = np.abs(means[rows, last])
    return float((off <= half[rows, last]).sum()), float((off <= asked).sum()), float(counts[last].mean())


@pytest.mark.parametrize("needed", [10, 20, 60])
def test_the_interval_holds_the_truth_as_often_as_claimed(needed: int) -> None:
    held, within, chips = ended(needed, FEWEST_CHIPS, LOOKS)
    assert held >= stats.binom.ppf(FALSE_ALARM, RUNS, CLAIM)
    assert within >= stats.binom.ppf(FALSE_ALARM, RUNS, 0.98)
    assert chips < 2.5 * max(needed, FEWEST_CHIPS), "more chips than needed"


def test_to_stop_at_the_first_narrow_interval_of_three_chips_would_not_cover() -> None:
    """The test above can fail: the usual rule, from few chips on, misses the truth too often."""
    held, _, _ = ended(15, 3, 1)
    assert held < stats.binom.ppf(FALSE_ALARM, RUNS, CLAIM)


def test_the_larger_part_of_the_interval_says_what_is_added() -> None:
    chips = tuple(np.linspace(0.4, 0.6, 8))
    of_chips = chip_interval(np.array(chips))
    wide, most = (0.0, 1.0), Trials(100, 1000)
    assert grown(Trials(8, 100), most, wide, chips) == Trials(8, 150)
    assert grown(Trials(8, 100), most, of_chips, chips) == Trials(12, 100)
    assert grown(Trials(8, 1000), most, wide, chips) == Trials(12, 1000)
    assert grown(Trials(100, 100), most, of_chips, chips) == Trials(100, 150)
    assert grown(Trials(90, 1000), most, wide, chips) == Trials(100, 1000)
    assert grown(most, most, wide, chips) is None
    assert GROWTH > 1


def test_an_unknown_interval_is_not_narrow() -> None:
    assert not is_narrow((math.nan, math.nan), 1e9)


def test_the_exact_interval_of_a_share() -> None:
    assert share_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert share_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
