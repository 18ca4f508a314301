"""Verified writes of whole matrices: slice by slice, reproducible, without other changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ohmformer as of
from ohmformer.array import fold, write, write_folded
from ohmformer.array.spec import Crossbar, analog
from ohmformer.device.write_verify import moments
from ohmformer.errors import BadInput
from ohmformer.streams import Stream
from tests.build import PROPORTIONAL, SQRT_RANGE, UNIFORM, array, cell

CODES = torch.randint(-255, 256, (24, 40), generator=torch.Generator().manual_seed(0)).float()
NOISES = {"silent at G_min": SQRT_RANGE, "uniform": UNIFORM, "proportional": PROPORTIONAL}


def hardware(noise: Any, write_verify: Any = None, **fields: Any) -> Crossbar:
    return array(cell=cell(write_noise=noise), write_verify=write_verify, **fields)


def cells(found: Crossbar, codes: Tensor = CODES) -> Tensor:
    return write(codes, found, stream=Stream(5)).digits


@pytest.mark.parametrize("name", list(NOISES))
def test_one_write_is_bit_identical_to_none_verified(name: str) -> None:
    once = hardware(NOISES[name], {"writes": 1, "tolerance": 0.1})
    assert torch.equal(cells(once), cells(hardware(NOISES[name])))


@pytest.mark.parametrize("name", list(NOISES))
def test_each_slice_has_its_own_number_of_writes(name: str) -> None:
    plain = cells(hardware(NOISES[name]))
    found = cells(hardware(NOISES[name], {"writes": [1, 1, 1, 400], "tolerance": 0.05}))
    ideal = cells(array())
    assert torch.equal(found[:, :3], plain[:, :3])
    digit = 0.05 * 3  # of the range, which is three digits
    assert float((found[:, 3] - ideal[:, 3]).abs().amax()) <= digit * (1 + 1e-5)
    assert float((plain[:, 3] - ideal[:, 3]).abs().amax()) > 2 * digit


@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize("name", list(NOISES))
def test_folded_writes_are_the_same(name: str, encoding: str) -> None:
    codes = CODES.clamp(-127, 127)
    found = hardware(NOISES[name], {"writes": 5, "tolerance": 0.04}, encoding=encoding)
    folded = write_folded(codes, found, stream=Stream(5))
    torch.testing.assert_close(folded.values, fold(write(codes, found, stream=Stream(5))).values, rtol=1e-5, atol=1e-4)


def test_noise_of_a_matrix_has_the_variance_of_the_closed_form() -> None:
    """40,000 cells: the variance is known to 0.7 %, and 4 % off is a false alarm once in 10^7 seeds."""
    found = hardware(SQRT_RANGE, {"writes": 6, "tolerance": 0.1})
    codes = torch.full((200, 200), 255.0)
    errors = (cells(found, codes)[0] - 3.0) * found.step
    mean, variance = moments(torch.tensor([found.cell.g_max]), found.cell, 0.1, 6)
    for part in errors:
        assert float(part.double().var()) == pytest.approx(float(variance), rel=0.04)
        assert float(part.double().mean()) == pytest.approx(float(mean), abs=5 * float(variance.sqrt()) / 200)


def test_without_quantizers_values_are_verified_as_the_top_slice_is() -> None:
    found = analog(hardware(SQRT_RANGE, {"writes": [1, 2, 3, 4], "tolerance": 0.1}))
    assert found.write_verify is not None
    assert (found.bits_per_cell, found.write_verify.writes) == (8, 4)


def test_values_between_digits_are_verified_too() -> None:
    found = analog(hardware(UNIFORM, {"writes": 300, "tolerance": 0.05}))
    codes = torch.linspace(-254.7, 254.7, 900).reshape(30, 30)
    ideal = write(codes, analog(array())).digits
    assert float((cells(found, codes) - ideal).abs().amax()) <= 0.05 * 255 * (1 + 1e-5)


@pytest.mark.parametrize(
    ("write_verify", "words"),
    [
        ({"writes": [1, 2], "tolerance": 0.1}, "2 numbers for 4 slices"),
        ({"writes": 0, "tolerance": 0.1}, "write_verify.writes"),
        ({"writes": [], "tolerance": 0.1}, "write_verify.writes"),
        ({"writes": 2, "tolerance": 0.0}, "write_verify.tolerance = 0"),
        ({"writes": 2}, "write_verify.tolerance"),
    ],
)
def test_what_cannot_be_is_refused(write_verify: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        Crossbar(rows=8, columns=8, cell=cell(), write_verify=write_verify)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_writes_by_slice_can_be_changed_alone_as_a_list() -> None:
    hardware = of.replace(
        of.load("clipformer_tcad_2024"), "attention.array.write_verify", {"tolerance": 0.1, "writes": 3}
    )
    changed = of.replace(hardware, "attention.array.write_verify.writes", [1, 2, 3, 4])
    assert [changed.attention.key.array.max_writes(s) for s in range(4)] == [1, 2, 3, 4]
    for bad, why in (([1, 2], "has 2 numbers for 4 slices"), ([1, 2, 3, 0.5], "whole number"), ("x", "whole number")):
        with pytest.raises(BadInput, match=why):
            of.replace(hardware, "attention.array.write_verify.writes", bad)
