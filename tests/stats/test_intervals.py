"""Intervals from few scores: they cover the truth, or say that they are unknown; they are never of width zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ohmformer.stats.intervals import (
    chip_interval,
    crossed_interval,
    jackknife_half_width,
    mean_interval,
    paired_interval,
    value_interval,
)

RUNS = 2000
FALSE_ALARM = 1e-5
"""Probability that one coverage test fails although the interval covers in 95 % of all cases."""


def covered(chips: int, samples: int, chip_spread: float) -> int:
    """Count the simulated studies of normal scores whose interval holds the true mean, 0."""
    random = np.random.default_rng([chips, samples])
    held = 0
    for _ in range(RUNS):
        scores = random.normal(size=(1, samples)) + chip_spread * random.normal(size=(chips, 1))
        low, high = mean_interval(scores + 0.05 * random.normal(size=(chips, samples)))
        held += low <= 0 <= high
    return held


@pytest.mark.parametrize("samples", [2, 3, 4, 6, 10])
@pytest.mark.slow
def test_few_scores_of_one_chip_cover_as_often_as_claimed(samples: int) -> None:
    """A bootstrap of these scores covers in 50 to 91 % of all cases."""
    low, high = stats.binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], RUNS, 0.95)
    assert low <= covered(1, samples, 0.0) <= high


@pytest.mark.parametrize(("chips", "samples"), [(2, 2), (2, 4), (3, 3)])
@pytest.mark.slow
def test_few_scores_of_few_chips_cover_at_least_as_often_as_claimed(chips: int, samples: int) -> None:
    assert covered(chips, samples, 0.3) >= stats.binom.ppf(FALSE_ALARM, RUNS, 0.95)


@pytest.mark.parametrize(
    "scores",
    [
        [[0.3]],
        [[0.3], [0.3]],
        [[0.3], [0.31], [0.32]],
        [[0.3, 0.3]],
        [[0.3, 0.3], [0.3, 0.3]],
        [[0.1 + 0.2, 0.3]],
        [[0.2, 0.2], [0.4, 0.4], [0.5, 0.5]],
        [[0.3, 0.9], [0.9, 0.3]],
        [[0.3, 0.6, 0.9], [0.9, 0.6, 0.3]],
    ],
)
def test_scores_that_do_not_show_how_much_they_vary_have_no_interval(scores: list[list[float]]) -> None:
    assert all(map(math.isnan, mean_interval(np.array(scores))))


def test_equal_chips_do_not_vary_and_shares_of_few_samples_have_bounds() -> None:
    row = np.array([0.3, 0.6, 0.8])
    assert mean_interval(np.stack([row, row])) == pytest.approx(mean_interval(row[None]))
    assert mean_interval(np.array([[1.0]])) == pytest.approx((0.025, 1.0))
    assert mean_interval(np.array([[1.0], [0.0]])) == (0.0, 1.0)


def test_one_number_from_each_of_two_equal_chips_has_no_interval() -> None:
    assert all(map(math.isnan, value_interval(np.array([0.5, 0.5]))))
    assert chip_interval(np.array([0.5])) == (-math.inf, math.inf)


def test_one_sample_and_two_equal_ones_are_unbounded() -> None:
    chips = np.array([1.0, 1.0])
    for few in (np.array([1.0]), np.array([1.0, 1.0])):
        assert crossed_interval(chips, few) == (-math.inf, math.inf)
        assert paired_interval(chips, few) == (-math.inf, math.inf)
        assert jackknife_half_width(few) == math.inf
