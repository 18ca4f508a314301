"""Drift compensation: exact for uniform drift, and against an independent program of single devices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from ohmformer.array import counting, fold, mvm, program, write, write_folded
from ohmformer.array.gaussian_writes.one_number import writable
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.schema import validate
from tests.build import PIECES, SQRT_RANGE, array, cell

UNIFORM_DRIFT = {"kind": "power_law", "t0": 3.0, "nu": 0.07}
SPREAD_DRIFT = {"kind": "power_law", "t0": 3.0, "nu": 0.07, "nu_std": 0.03}
LEAK = {"kind": "exponential", "tau": 40.0, "stretch": 0.7}
LEVELS = ("cell", "array", "noise")
W = torch.randn(9, 70, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
X = torch.randn(5, 70, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def hardware(how: str, age: float = 1e4, **fields: Any) -> Crossbar:
    of_cell = {"write_noise": SQRT_RANGE, "drift": SPREAD_DRIFT, **fields.pop("cell", {})}
    basis = {"rows": 32, "columns": 4, "age": age, "drift_compensation": how, "cell": cell(**of_cell)}
    return array(**{**basis, **fields})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", ["global", "column"])
@pytest.mark.parametrize(
    "fields",
    [
        {"cell": {"drift": UNIFORM_DRIFT}},
        {"cell": {"drift": UNIFORM_DRIFT, "g_min": 0.0}, "redundancy": 2},
        {"cell": {"drift": UNIFORM_DRIFT}, "encoding": "offset"},
        {"cell": {"drift": LEAK}, "age": 90.0, "subtract": "analog"},
    ],
)
def test_uniform_drift_is_undone_to_rounding(fields: dict[str, Any], how: Any, level: Any) -> None:
    """All cells lose the same share, so one factor gives back the products of new cells."""
    old, new = hardware(how, **fields), hardware("none", **{**fields, "age": 0.0})
    first, last = (mvm(X, program(W, each, stream=5), level=level) for each in (new, old))
    plain = mvm(X, program(W, hardware("none", **fields), stream=5), level=level)
    assert torch.allclose(last, first, rtol=1e-9, atol=1e-9)
    assert float((plain - first).abs().max()) > 0.2 * float(first.abs().max())


@pytest.mark.parametrize("how", ["global", "column"])
def test_the_factor_is_the_ratio_of_mean_magnitudes(how: str) -> None:
    """From what the cells hold at both ages, by hand; all three ways to write agree."""
    new, old = (fold(program(W, hardware("none", age), stream=5)).values.numpy() for age in (0.0, 1e4))
    axes = 1 if how == "column" else None
    expected = old * np.abs(new).mean(axis=axes, keepdims=True) / np.abs(old).mean(axis=axes, keepdims=True)
    held = program(W, hardware(how), stream=5)
    assert np.allclose(fold(held).values.numpy(), expected, rtol=1e-9)
    codes = (W / W.abs().max() * 255).round()
    a, b = fold(write(codes, hardware(how), stream=5)), write_folded(codes, hardware(how), stream=5)
    assert torch.allclose(a.values, b.values, rtol=1e-12)
    assert torch.allclose(a.unit, b.unit, rtol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", ["global", "column"])
def test_products_follow_a_program_of_single_devices(how: str, level: Any) -> None:
    """3,000 chips of a matrix [3, 4] in pairs of one cell; Kolmogorov-Smirnov at probability 1e-6 for each output.

    Readings are noisy at levels `cell` and `array`, and free of noise at level `noise`, where reads have none.
    """
    chips, age, sigma = 3000, 1e4, 0.04
    noises = {"write_noise": {"kind": "uniform", "sigma": 0.05}, "read_noise": {"kind": "uniform", "sigma": sigma}}
    old = hardware(how, bits=4, bits_per_cell=4, cell={"g_min": 0.0, **noises})
    codes = np.array([[3.0, -7, 15, 1], [9, 2, -4, 0], [-12, 5, 6, -1]])
    batch = torch.tensor(codes).expand(chips, 3, 4)
    if level == "noise":
        held = write_folded(batch, old, read_noise=False, stream=3, w_range=15.0)
        found = (torch.ones(1, 4, dtype=torch.float64) @ held.values.transpose(-2, -1)).squeeze(1).numpy()
        sigma = 0.0
    else:
        held = write(batch, old, stream=3, w_range=15.0)
        x = torch.ones(chips, 1, 4, dtype=torch.float64)
        one_cycle = mvm(x, held, level=level, x_range=1.0, stream=4)
        found = one_cycle.squeeze(1).numpy()
    rng, n = np.random.default_rng(2), 40_000
    g = 15 * np.stack([np.maximum(codes, 0), np.maximum(-codes, 0)]) / 15
    g = np.clip(g + 15 * 0.05 * rng.standard_normal((n, 2, 3, 4)), 0, None)
    later = g * (age / 3.0) ** -np.clip(0.07 + 0.03 * rng.standard_normal(g.shape), 0, None)

    def read(cells: np.ndarray, cycles: float = 1.0) -> np.ndarray:
        noisy = cells + 15 * sigma * math.sqrt(cycles) * rng.standard_normal(cells.shape)
        return noisy[:, 0] - noisy[:, 1]

    axes = -1 if how == "column" else (-2, -1)
    factor = np.abs(read(g)).mean(axis=axes, keepdims=True) / np.abs(read(later)).mean(axis=axes, keepdims=True)
    # a product takes 7 cycles with weights 1 .. 64, of which all are driven by the largest input
    power = sum(4**z for z in range(7)) / 127**2
    expected = (read(later, power) * factor).sum(axis=-1)
    for one, other in zip(found.T, expected.T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-6


def test_readings_have_a_stream_of_their_own() -> None:
    """The same chip reads the same numbers; reading changes no other draw; another chip reads others."""
    noisy = {"read_noise": {"kind": "uniform", "sigma": 0.05}}
    first, again, other = (program(W, hardware("global", cell=noisy), stream=seed) for seed in (5, 5, 6))
    plain = program(W, hardware("none", cell=noisy), stream=5)
    assert torch.equal(first.unit, again.unit)
    assert torch.equal(first.digits, plain.digits)
    assert not torch.equal(first.unit, other.unit)
    exact = program(W, hardware("global"), stream=5)
    assert not torch.equal(first.unit, exact.unit)


def test_without_drift_nothing_changes_and_writes_count_once() -> None:
    for age in (0.0, 2.9):
        assert torch.equal(program(W, hardware("global", age), stream=5).unit, program(W, hardware("none", age)).unit)
    with counting() as plain:
        program(W, hardware("none"))
    with counting() as compensated:
        program(W, hardware("global"))
        write_folded(torch.ones(2, 2), hardware("column"))
    assert compensated.cell_writes == plain.cell_writes + 4 * 4 * 2


def test_cells_that_have_lost_everything_give_no_nan() -> None:
    empty = hardware("column", 1e9, cell={"g_min": 0.0, "write_noise": {"kind": "none"}, "drift": LEAK})
    held = fold(program(W.float(), empty)).values
    assert bool(held.isfinite().all())
    assert float(held.abs().max()) == 0


def test_write_noise_that_grows_with_time_is_compensated_too_and_not_drawn_as_one_normal() -> None:
    pieces = {
        "kind": "piecewise_polynomial", "g_ref": 1e-5, "times": [1.0, 1e5], "coefficients": [[1e-7], [2e-7]]
    }  # fmt: skip
    assert PIECES["kind"] == pieces["kind"]
    aged = hardware(
        "global", 1e5, cell={"write_noise": pieces, "drift": {"kind": "none"}, "g_min": 5e-6, "g_max": 5e-5}
    )
    plain = aged.model_copy(update={"drift_compensation": "none"})
    assert writable(plain)
    assert not writable(aged)
    assert not torch.equal(program(W, aged, stream=1).unit, program(W, plain, stream=1).unit)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(BadInput, match="drift_compensation"):
        validate(Crossbar, {"rows": 8, "columns": 8, "cell": cell(), "drift_compensation": "row"}, where="array")


@pytest.mark.parametrize("how", ["global", "column"])
def test_converters_with_other_gains_change_nothing_in_the_compensation(how: str) -> None:
    """Without read noise, as at level `noise`, the readings have none either; so the compensation stays exact."""
    of_cell = {"drift": UNIFORM_DRIFT, "g_min": 0.0, "read_noise": {"kind": "uniform", "sigma": 0.1}}
    parts = {"gain_mismatch": 0.1}
    codes = torch.randint(-255, 256, (9, 70), generator=torch.Generator().manual_seed(3)).double()
    aged, new = (
        write_folded(codes, hardware(kind, age, cell=of_cell, peripherals=parts), read_noise=False, stream=3).values
        for kind, age in ((how, 1e4), ("none", 0.0))
    )
    torch.testing.assert_close(aged, new, rtol=1e-9, atol=1e-9)
