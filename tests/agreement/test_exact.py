"""Where nothing is lost, nothing changes: integers through loss-free converters, and quantizers without noise."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.array import LEVELS, fold, mvm, program, write, write_folded
from ohmformer.array.spec import Crossbar, bits_needed
from tests.build import array, cell

FLOATS = {torch.float64: 2**53, torch.float32: 2**24}
"""Largest integer up to which all are exact."""


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    bits = draw(st.integers(2, 9))
    bits_per_cell = draw(st.integers(1, bits))
    encoding = draw(st.sampled_from(["differential", "offset"]))
    bases = st.none() | st.integers(1, 2**bits_per_cell) if encoding == "differential" else st.none()
    return {
        "rows": draw(st.integers(1, 40)),
        "columns": draw(st.integers(1, 20)),
        "bits": bits,
        "bits_per_cell": bits_per_cell,
        "radix": draw(bases),
        "redundancy": draw(st.sampled_from([1, 1, 2, 3, 5])),
        "encoding": encoding,
        "inputs": {"kind": draw(st.sampled_from(["bit_serial", "amplitude"])), "bits": draw(st.integers(2, 8))},
        "subtract": draw(st.sampled_from(["digital", "analog"])),
        "cell": cell(g_min=draw(st.sampled_from([0.0, 1e-7]))),
    }


def lossless_bits(fields: dict[str, Any], *, signed: bool) -> int:
    amplitude = fields["inputs"]["kind"] == "amplitude"
    bits = fields["inputs"]["bits"]
    top = (2 ** (bits - 1) - 1 if signed else 2**bits - 1) if amplitude else 1
    both_signs = fields["subtract"] == "analog" or (amplitude and signed)
    return bits_needed(fields["rows"], fields["bits_per_cell"], max_input=top, both_signs=both_signs)


@settings(max_examples=150)
@given(
    fields=geometries(),
    size=st.tuples(st.integers(1, 3), st.integers(1, 50), st.integers(1, 30)),
    signed=st.booleans(),
    converters=st.booleans(),
    dtype=st.sampled_from(list(FLOATS)),
    level=st.sampled_from(LEVELS),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers_are_exact(
    fields: dict[str, Any],
    size: tuple[int, int, int],
    signed: bool,
    converters: bool,
    dtype: torch.dtype,
    level: Any,
    seed: int,
) -> None:
    vectors, inputs, outputs = size
    bits = lossless_bits(fields, signed=signed)
    hardware = array(**fields, adc={"bits": min(16, bits) if converters and bits <= 16 else "ideal"})
    rng = np.random.default_rng(seed)
    top = hardware.max_input(signed=signed)
    w = rng.integers(-hardware.max_code, hardware.max_code + 1, (outputs, inputs))
    x = rng.integers(-top if signed else 0, top + 1, (vectors, inputs))
    if inputs * (hardware.max_code + 1) * 2**hardware.inputs.bits * 4 * hardware.redundancy > FLOATS[dtype]:
        dtype = torch.float64
    programmed = program(torch.tensor(w, dtype=dtype), hardware, w_range=hardware.max_code)
    y = mvm(torch.tensor(x, dtype=dtype), programmed, level=level, x_range=float(top), signed=signed)
    np.testing.assert_array_equal(y.numpy(), x @ w.T)


@settings(max_examples=60)
@given(
    fields=geometries(),
    scale=st.sampled_from(["tensor", "column"]),
    signed=st.booleans(),
    dynamic=st.booleans(),
    level=st.sampled_from(LEVELS),
    seed=st.integers(0, 2**32 - 1),
)
def test_without_noise_it_is_the_product_of_quantized_operands(
    fields: dict[str, Any], scale: str, signed: bool, dynamic: bool, level: Any, seed: int
) -> None:
    fields["inputs"]["range"] = "dynamic" if dynamic else "calibrated"
    hardware = array(**fields, scale=scale)
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((2, 3, 13, 21)), rng.standard_normal((2, 3, 4, 21))
    x = x if signed else np.abs(x)
    w_range = np.abs(w).max(axis=(-1,) if scale == "column" else (-2, -1), keepdims=True)
    x_range = np.abs(x).max(axis=-1, keepdims=True) if dynamic else np.abs(x).max()
    fake_w = fake_quantized(w, w_range, hardware.max_code)
    fake_x = fake_quantized(x, x_range, hardware.max_input(signed=signed))
    y = mvm(torch.tensor(x), program(torch.tensor(w), hardware), level=level, signed=signed).numpy()
    expected = fake_x @ fake_w.swapaxes(-1, -2)
    assert np.linalg.norm(y - expected) <= 1e-5 * np.linalg.norm(expected)


def fake_quantized(values: np.ndarray, value_range: Any, top: int) -> np.ndarray:
    return np.round(values / value_range * top) / top * value_range


@pytest.mark.parametrize("dtype", list(FLOATS))
def test_all_levels_agree_without_noise_and_converters(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    w, x = torch.randn(2, 70, 130, generator=rng, dtype=dtype), torch.randn(2, 5, 130, generator=rng, dtype=dtype)
    programmed = program(w, array(bits=6, bits_per_cell=4))
    first, *others = (mvm(x, programmed, level=level) for level in LEVELS)
    for other in others:
        torch.testing.assert_close(other, first)


@pytest.mark.parametrize("both_signs", [False, True])
@pytest.mark.parametrize(("rows", "bits_per_cell", "max_input"), [(64, 2, 1), (128, 1, 1), (5, 3, 7), (1, 1, 1)])
def test_bits_needed_are_needed(rows: int, bits_per_cell: int, max_input: int, both_signs: bool) -> None:
    """With one bit less, codes are fewer than currents that can occur."""
    top = rows * (2**bits_per_cell - 1) * max_input
    bits = bits_needed(rows, bits_per_cell, max_input=max_input, both_signs=both_signs)
    currents = 2 * top + 1 if both_signs else top + 1
    codes = 2**bits - 1 if both_signs else 2**bits
    assert codes >= currents > (codes - 1) // 2
    assert bits_needed(64, 2) == 8


POWER_LAW = {"kind": "power_law", "t0": 1.0, "nu": 0.1, "nu_std": 0.02}
WRITES = [
    {"write_noise": {"kind": "sqrt_range", "sigma": 0.3}, "read_noise": {"kind": "proportional", "sigma": 0.05}},
    {"write_noise": {"kind": "uniform", "sigma": 0.1}, "faults": {"stuck_at_g_min": 0.1, "stuck_at_g_max": 0.05}},
    {"write_noise": {"kind": "proportional", "sigma": 0.1}, "drift": POWER_LAW},
    {},
]


@pytest.mark.parametrize(
    "spelling",
    [
        {"encoding": "differential"},
        {"encoding": "offset"},
        {"radix": 1},
        {"radix": 3},
        {"redundancy": 3},
        {"encoding": "offset", "redundancy": 2},
    ],
    ids=["differential", "offset", "base 1", "base 3", "redundancy", "copies of offset"],
)
@pytest.mark.parametrize("fields", WRITES, ids=["sqrt_range", "uniform and faults", "drift", "ideal"])
def test_write_folded_is_fold_of_write(fields: dict[str, Any], spelling: dict[str, Any]) -> None:
    hardware: Crossbar = array(cell=cell(**fields), **spelling, columns=8, rows=16, age=100.0, bits=7)
    top = hardware.max_code
    codes = torch.randint(-top, top + 1, (3, 2, 21, 40), generator=torch.Generator().manual_seed(1)).float()
    w_range = torch.rand(3, 1, 21, 1) + 0.5
    for major in ("outputs", "inputs"):
        kept = fold(write(codes, hardware, stream=5, w_range=w_range, major=major))
        fused = write_folded(codes, hardware, stream=5, w_range=w_range, major=major)
        assert torch.equal(kept.values, fused.values)
        if kept.variance is not None:
            torch.testing.assert_close(fused.variance, kept.variance)
        if kept.reference_variance is not None:
            torch.testing.assert_close(fused.reference_variance, kept.reference_variance)
