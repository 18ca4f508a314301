"""Candidates of write noise where measurements are clamped at zero: their residuals and their standard errors."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from ohmformer.fitting import noise_models


def test_measurements_of_a_law_are_not_doubtful_since_some_of_them_are_clamped() -> None:
    """Residuals of what is left above zero were compared with whole normal numbers, so a quarter of them was doubtful.

    200 tables, a tenth of them clamped: no more are below 1 % than the quantile 1 - 1e-6 of the binomial distribution.
    """
    g, doubtful = np.repeat(np.linspace(0.03, 1, 6), 50), 0
    for seed in range(200):
        y = (g + 0.2 * np.random.default_rng(seed).standard_normal(len(g))).clip(0)
        fit = next(noise_models.candidates(g, y, 0.03))
        assert fit.label == "uniform"
        assert len(fit.scores) == np.count_nonzero(y)
        doubtful += fit.ks < 0.01
    assert doubtful <= stats.binom.isf(1e-6, 200, 0.01)


def test_what_a_measurement_above_zero_is_as_a_normal_number() -> None:
    """By quantiles of the normal distribution above the least one; without a least one it stays as it is."""
    z, least = np.array([-0.6, 0.3, 2.5]), np.full(3, -0.7)
    cut = stats.truncnorm(-0.7, np.inf)
    assert np.allclose(noise_models._scores(z, least), stats.norm.ppf(cut.cdf(z)), atol=1e-12)
    far = np.array([-30.0, -9.0, 0.0, 35.0])
    assert np.allclose(noise_models._scores(far, np.full(4, -60.0)), far, atol=1e-9)


def test_intervals_of_a_table_hold_the_truth_where_measurements_are_clamped() -> None:
    """95 % intervals of 400 points with a third of clamped measurements, at least the quantile 1e-6 of the binomial.

    Clamped measurements used to count as full ones: 83 % of the intervals of a deviation held it.
    """
    held, g = np.zeros(3), np.full(60, 0.05)
    for seed in range(400):
        y = (g + 0.1 * np.random.default_rng(seed).standard_normal(60)).clip(0)
        std, error = noise_models._deviation(g, y)
        shift, shift_error, within, within_error = noise_models._shift_and_deviation(g, y)
        held += [
            abs(std - 0.1) <= 1.96 * error,
            abs(shift) <= 1.96 * shift_error or math.isnan(shift_error),
            abs(within - 0.1) <= 1.96 * within_error,
        ]
    assert held.min() >= stats.binom.ppf(1e-6, 400, 0.95)
