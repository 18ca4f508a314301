"""Closed forms of mean and variance of a write, against numerical integration over its random number."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.device import noise
from ohmformer.device.moments import write_moments
from ohmformer.device.spec import Cell
from tests.build import LOGNORMAL, NONE, PIECES, POLYNOMIAL, TABLE, cell
from tests.device.test_noise import CEILING, STRONG, censored

EPS = torch.linspace(-12, 12, 50_001, dtype=torch.float64)
WEIGHT = torch.exp(-EPS * EPS / 2)
TARGETS = torch.tensor([0.0, 1e-7, 1.1e-6, 3.4e-6, 6.7e-6, 1e-5], dtype=torch.float64)

NOISES = st.one_of(
    st.builds(lambda s: {"kind": "sqrt_range", "sigma": s}, st.floats(0, 2)),
    st.builds(lambda s: {"kind": "proportional", "sigma": s}, st.floats(0, 2)),
    st.builds(lambda s: {"kind": "uniform", "sigma": s}, st.floats(0, 1)),
    st.builds(lambda s: {"kind": "lognormal", "sigma": s}, st.floats(0, 1)),
    st.sampled_from([POLYNOMIAL, PIECES, TABLE]),
    st.just(NONE),
)


def integrated(target: float, device: Cell) -> tuple[float, float]:
    """Mean error and variance of `noise.write`, by summation over its standard normal."""
    g = noise.write(torch.full_like(EPS, target), device, EPS) - target
    mean = (WEIGHT * g).sum() / WEIGHT.sum()
    return float(mean), float((WEIGHT * (g - mean) ** 2).sum() / WEIGHT.sum())


@settings(max_examples=60)
@given(NOISES, st.sampled_from([0.0, 1e-7, 2e-6]), st.none() | st.floats(1e-5, 3e-5))
def test_they_are_those_of_the_write(write_noise: Any, g_min: float, ceiling: float | None) -> None:
    if ceiling is not None and write_noise is TABLE:
        ceiling += 1e-6  # a ceiling below a mean of the table is refused
    device = cell(g_min=g_min, write_noise=write_noise, g_ceiling=ceiling)
    targets = TARGETS.clamp(min=g_min)
    shift, variance = write_moments(targets, device)
    for target, one, other in zip(targets.tolist(), shift.tolist(), variance.tolist(), strict=True):
        mean, spread = integrated(target, device)
        assert one == pytest.approx(mean, rel=1e-5, abs=1e-12)
        assert other == pytest.approx(spread, rel=1e-5, abs=1e-18)


@pytest.mark.parametrize("ceiling", [None, CEILING])
@pytest.mark.parametrize(("write_noise", "std"), STRONG, ids=[kind["kind"] for kind, _ in STRONG])
def test_they_are_those_of_a_censored_normal(write_noise: Any, std: Any, ceiling: float | None) -> None:
    device = cell(write_noise=write_noise, g_ceiling=ceiling)
    shift, variance = write_moments(TARGETS[1:], device)
    for n, target in enumerate(TARGETS[1:].tolist()):
        mean, deviation = censored(target, std(target), 0.0, float("inf") if ceiling is None else ceiling)
        assert float(shift[n]) == pytest.approx(mean - target, abs=1e-15)
        assert sqrt(float(variance[n])) == pytest.approx(deviation, abs=1e-12)


def test_exact_writes_miss_nothing() -> None:
    for kind in (NONE, {"kind": "sqrt_range", "gamma": 0.0, "sigma": 0.2}, {**LOGNORMAL, "sigma": 0.0}):
        shift, variance = write_moments(TARGETS, cell(write_noise=kind))
        assert not bool(shift.any() | variance.any())
    shift, variance = write_moments(TARGETS[1:2], cell(write_noise={"kind": "sqrt_range", "sigma": 1.0}))
    assert not bool(shift.any() | variance.any()), "silent at G_min"
