"""Write-verify: the closed forms against writes that are repeated one by one, and against each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmformer.device import noise
from ohmformer.device.moments import write_moments
from ohmformer.device.spec import Cell
from ohmformer.device.write_verify import miss_probability, moments, verified_eps
from tests.build import LOGNORMAL, PIECES, POLYNOMIAL, PROPORTIONAL, SQRT_RANGE, TABLE, UNIFORM, cell

CELLS = {
    "square root": cell(write_noise=SQRT_RANGE),
    "square root, ceiling": cell(write_noise=SQRT_RANGE, g_ceiling=1.05e-5),
    "proportional": cell(write_noise=PROPORTIONAL),
    "uniform, often below zero": cell(write_noise={**UNIFORM, "sigma": 0.3}, g_ceiling=1.2e-5),
    "lognormal": cell(write_noise=LOGNORMAL),
    "lognormal, ceiling": cell(write_noise=LOGNORMAL, g_ceiling=1.1e-5),
    "polynomial": cell(write_noise=POLYNOMIAL),
    "from zero": cell(g_min=0.0, write_noise=LOGNORMAL),
    "pieces": cell(write_noise=PIECES),
    "table": cell(write_noise=TABLE),
    "table, ceiling": cell(write_noise=TABLE, g_ceiling=1.075e-5),
    "table without noise": cell(write_noise={**TABLE, "std": [0.0, 5e-7, 0.0, 0.0]}),
}
TARGETS = (0.0, 0.02, 1 / 3, 1.0)
HOW = [(0.05, 1), (0.05, 3), (0.12, 8), (0.5, 2)]
Z = 5.0
"""Bound in standard errors: 768 comparisons raise a false alarm once in 2,300 seeds."""


def target(kind: Cell, share: float, count: int) -> Tensor:
    return torch.full((count,), kind.g_min + share * (kind.g_max - kind.g_min), dtype=torch.float64)


def one_by_one(g: Tensor, kind: Cell, tolerance: float, writes: int, numbers: torch.Generator) -> tuple[Tensor, Tensor]:
    """Errors and numbers of writes of cells, by simulating each write and read."""
    margin = tolerance * (kind.g_max - kind.g_min)
    found, used, done = torch.zeros_like(g), torch.zeros_like(g), torch.zeros_like(g, dtype=torch.bool)
    for _ in range(writes):
        tried = noise.write(g.clone(), kind, torch.randn(g.shape, dtype=g.dtype, generator=numbers))
        found, used = torch.where(done, found, tried), used + (~done)
        done |= (tried - g).abs() <= margin
    return found - g, used


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.slow
def test_closed_forms_are_those_of_repeated_writes(name: str) -> None:
    kind, numbers, count = CELLS[name], torch.Generator().manual_seed(7), 20_000
    for share in TARGETS:
        for tolerance, writes in HOW:
            g = target(kind, share, count)
            errors, used = one_by_one(g, kind, tolerance, writes, numbers)
            mean, variance = (float(value[0]) for value in moments(g, kind, tolerance, writes))
            q = float(miss_probability(g, kind, tolerance)[0])
            expected = sum(q**k for k in range(writes))
            spread = math.sqrt(max(0.0, sum((2 * k + 1) * q**k for k in range(writes)) - expected**2))
            # Where repetitions are rare their number is Poisson's, of which Z more are never seen.
            assert abs(float(used.mean()) - expected) <= Z * spread / math.sqrt(count) + Z / count
            unit = kind.g_max - kind.g_min
            scale = float(errors.std()) + 1e-12 * unit
            assert abs(float(errors.mean()) - mean) <= Z * scale / math.sqrt(count)
            squares = (errors - mean).square()
            wide = float(squares.std()) + 1e-12 * unit**2
            assert abs(float(squares.mean()) - variance) <= Z * wide / math.sqrt(count)


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.slow
def test_one_number_per_cell_gives_the_same_distribution(name: str) -> None:
    """By integration over all quantiles, without random numbers."""
    kind, count = CELLS[name], 20_000
    eps = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    for share in TARGETS:
        for tolerance, writes in HOW:
            g = target(kind, share, count)
            errors = noise.write(g.clone(), kind, verified_eps(eps, g, kind, tolerance, writes)) - g
            mean, variance = (float(value[0]) for value in moments(g, kind, tolerance, writes))
            deviation = max(math.sqrt(variance), 1e-6 * kind.g_max)
            assert float(errors.mean()) == pytest.approx(mean, abs=1e-3 * deviation)
            assert float(errors.square().mean() - errors.mean().square()) == pytest.approx(
                variance, abs=3e-3 * deviation**2
            )


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(CELLS)),
    share=st.floats(0, 1),
    tolerance=st.floats(0.01, 1),
    writes=st.integers(2, 400),
)
def test_it_rises_and_keeps_what_is_accepted(name: str, share: float, tolerance: float, writes: int) -> None:
    kind, eps = CELLS[name], torch.linspace(-5, 5, 501, dtype=torch.float64)
    g = target(kind, share, 501)
    found = verified_eps(eps, g, kind, tolerance, writes)
    assert bool(torch.isfinite(found).all())
    assert bool((found.diff() >= -1e-9).all())
    missed = (noise.write(g.clone(), kind, found) - g).abs() > tolerance * (kind.g_max - kind.g_min) * (1 + 1e-9)
    left = float(miss_probability(g, kind, tolerance)[0]) ** writes
    share_missed = float((missed * torch.exp(-eps * eps / 2)).sum() / torch.exp(-eps * eps / 2).sum())
    assert share_missed == pytest.approx(left, abs=0.01)


def test_one_write_is_what_it_was() -> None:
    eps = torch.randn(50)
    assert verified_eps(eps, target(cell(), 1.0, 50), CELLS["uniform, often below zero"], 0.1, 1) is eps


def test_more_writes_leave_less_noise_where_tolerance_is_near_the_noise() -> None:
    kind = CELLS["square root"]
    g = target(kind, 1.0, 1)
    left = [float(moments(g, kind, 0.1, writes)[1]) for writes in (1, 2, 4, 8, 16, 64)]
    assert left == sorted(left, reverse=True)
    # A normal cut at +-tau: sigma^2 (1 - 2 t phi(t) / (2 Phi(t) - 1)), t = tau / sigma = 1/3.
    t, s = 1 / 3, 0.3 * (kind.g_max - kind.g_min)
    cut = 1 - 2 * t * math.exp(-t * t / 2) / math.sqrt(2 * math.pi) / math.erf(t / math.sqrt(2))
    assert left[-1] == pytest.approx(cut * s * s, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_and_shapes(dtype: torch.dtype) -> None:
    kind: Any = CELLS["square root"]
    eps, g = torch.randn(1, 3, 4, dtype=dtype), torch.full((2, 3, 4), 5e-6, dtype=dtype)
    found = verified_eps(eps, g, kind, 0.1, 4)
    assert (found.shape, found.dtype) == (g.shape, dtype)


@pytest.mark.parametrize("name", list(CELLS))
def test_one_write_has_the_moments_of_a_write(name: str) -> None:
    kind = CELLS[name]
    g = torch.cat([target(kind, share, 1) for share in TARGETS])
    scale = kind.g_max - kind.g_min
    for found, expected in zip(moments(g, kind, 0.1, 1), write_moments(g, kind), strict=True):
        torch.testing.assert_close(found / scale, expected / scale, rtol=1e-6, atol=1e-14)


def test_targets_that_are_chosen_from_a_few_are_the_same() -> None:
    kind, which = CELLS["square root"], torch.randint(0, 4, (6, 7))
    levels = kind.g_min + torch.arange(4) / 3 * (kind.g_max - kind.g_min)
    eps = torch.randn(1, 7)
    assert torch.equal(
        verified_eps(eps, levels, kind, 0.1, 5, index=which), verified_eps(eps, levels[which], kind, 0.1, 5)
    )
