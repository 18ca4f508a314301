"""Cells with a number of levels that is no power of two, and with uneven steps between levels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.array import held_moments, mvm, program
from ohmformer.array.folded import fold
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.gaussian_writes.one_number import write_normal
from ohmformer.array.spec import analog, bits_needed
from ohmformer.device.cell_range import digits_needed
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.nn.calibration.recipes import radices
from ohmformer.schema import replace
from tests.build import UNIFORM, array, cell

UNEVEN = (1e-7, 2e-6, 3e-6, 1e-5)
"""Four levels [S]; in steps of 3.3 uS they are digits 0, 0.576, 0.879 and 3."""


@settings(max_examples=40)
@given(
    st.integers(2, 40), st.integers(2, 9), st.sampled_from(["differential", "offset"]), st.sampled_from(["ideal", 0])
)
def test_ideal_hardware_is_exact_for_any_number_of_levels(levels: int, bits: int, encoding: str, adc: Any) -> None:
    if (levels - 1).bit_length() > bits:
        return
    per_cell = (levels - 1).bit_length()
    needed = bits_needed(16, per_cell, levels=levels, both_signs=False)
    hardware = array(
        rows=16, bits=bits, bits_per_cell=per_cell, levels=levels, encoding=encoding, adc={"bits": adc or needed}
    )
    top = hardware.max_code
    w = torch.randint(-top, top + 1, (5, 20), generator=torch.Generator().manual_seed(levels)).double()
    w[0, 0] = top
    programmed = program(w, hardware)
    assert float(programmed.digits.max()) <= levels - 1
    x = torch.randint(-127, 128, (3, 20), generator=torch.Generator().manual_seed(bits)).double()
    for level in ("cell", "array", "noise"):
        torch.testing.assert_close(mvm(x, programmed, level=level, x_range=127), x @ w.T)  # type: ignore[arg-type]


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 7, 16, 100])
@pytest.mark.parametrize("bits", [1, 2, 8, 16])
def test_as_many_digits_as_the_bits_need(levels: int, bits: int) -> None:
    digits = digits_needed(bits, levels)
    assert levels ** (digits - 1) < 2**bits <= levels**digits or digits == 1


def test_loss_free_converters_and_radices_follow_the_levels() -> None:
    """ceil(log2(R (L - 1) + 1)): 64 rows of 3 levels give 0..128, that is 8 bits; 4 levels give 0..192."""
    assert bits_needed(64, 2, levels=3) == 8
    assert bits_needed(63, 2, levels=3) == 7
    assert bits_needed(64, 2) == 8
    three = array(levels=3)
    assert (three.slices(), three.base, three.max_digit, three.max_code) == (6, 3, 2, 255)
    assert radices(three) == [None, 2, 1]
    assert replace(three, "radix", 3).max_code == 3**6 - 1
    assert analog(three).max_digit == 255


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": 5}, "levels = 5 is above 2^bits_per_cell = 4; set bits_per_cell = 3"),
        ({"levels": 3, "radix": 4}, "radix = 4 is above levels = 3"),
        ({"cell": cell(levels=3)}, "bits_per_cell = 2 needs 4 levels but the cell has 3"),
        ({"cell": cell(levels=3), "levels": 4}, "levels = 4 needs 4 levels but the cell has 3; lower it"),
        (
            {"cell": cell(level_conductances=UNEVEN), "levels": 3},
            "levels = 3 uses 3 of the 4 levels of the cell, whose steps are uneven; set levels = 4",
        ),
        ({"cell": cell(level_conductances=UNEVEN), "encoding": "offset"}, "no reference column holds the offset"),
    ],
)
def test_what_levels_cannot_hold_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((BadInput, ValueError)) as caught:
        array(**fields)
    assert message in str(caught.value)


def test_values_get_the_uneven_levels_that_are_nearest() -> None:
    """Against all combinations of two cells per value, by search."""
    hardware = array(bits=4, radix=4, cell=Cell(g_min=1e-7, g_max=1e-5, level_conductances=UNEVEN))
    held = torch.tensor([(g - 1e-7) / hardware.step for g in UNEVEN], dtype=torch.float64)
    reachable = torch.tensor([float(a + 4 * b) for a, b in itertools.product(held, held)])
    w = torch.linspace(-1, 1, 301, dtype=torch.float64)[None]
    found = fold(program(w, hardware, w_range=1.0)).values * hardware.max_code
    wanted = w * hardware.max_code
    best = (wanted.abs()[..., None] - reachable).abs().amin(-1)
    assert float(((found - wanted).abs() - best).abs().max()) < 0.02  # points of the table of codes are this far apart
    assert bool((found.diff() >= -1e-9).all())


def test_levels_with_equal_steps_are_numbers_alone() -> None:
    even = array(cell=Cell(level_conductances=tuple(1e-7 + n * 3.3e-6 for n in range(4)), g_min=1e-7, g_max=1e-5))
    w = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fold(program(w, even)).values, fold(program(w, array())).values)


@pytest.mark.parametrize("verify", [None, {"writes": 3, "tolerance": 0.05}])
def test_moments_of_uneven_levels_are_those_of_many_writes(verify: Any) -> None:
    """Within 5 standard errors: a false alarm once in 1.7 million comparisons."""
    hardware = array(bits=4, cell=cell(level_conductances=UNEVEN, write_noise=UNIFORM), write_verify=verify)
    mean, variance = held_moments(hardware)
    codes, draws = torch.arange(16, dtype=torch.float64), 20_000
    held = write_folded(codes[:, None].expand(-1, draws), hardware, stream=1, w_range=15.0).values
    assert bool(((held.mean(1) - mean).abs() <= 5 * (variance / draws).sqrt() + 1e-9).all())
    squares = (held - mean[:, None]) ** 2
    assert bool(((squares.mean(1) - variance).abs() <= 5 * squares.std(1) / draws**0.5 + 1e-9).all())


def test_training_writes_uneven_levels() -> None:
    hardware = array(bits=4, cell=cell(level_conductances=UNEVEN))
    codes = torch.arange(-15.0, 16.0)[None].double()
    torch.testing.assert_close(write_normal(codes, hardware).values, write_folded(codes, hardware).values)
