"""Slice weights: digits of codes, the largest code, slices in use, and what is refused."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.array import encoding, write_folded
from ohmformer.array.spec import Crossbar, analog
from ohmformer.errors import BadInput
from ohmformer.mapping import plan
from ohmformer.mitigation.spec import KVClip
from ohmformer.schema import replace
from tests.build import SQRT_RANGE, array, cell

GEOMETRIES = st.integers(1, 4).flatmap(
    lambda c: st.tuples(st.integers(c, 9), st.just(c), st.none() | st.integers(1, 2**c))
)
"""(bits, bits_per_cell, radix)"""


def built(geometry: tuple[int, int, int | None]) -> Crossbar:
    bits, bits_per_cell, base = geometry
    return array(bits=bits, bits_per_cell=bits_per_cell, radix=base)


def spelled(codes: torch.Tensor, hardware: Crossbar, slices: int) -> torch.Tensor:
    """Digits [S, codes] of codes."""
    return torch.stack(list(encoding.slice_digits(codes, hardware, slices)))


@given(GEOMETRIES, st.sampled_from([torch.float32, torch.float64]))
def test_every_code_has_digits_that_fit(geometry: Any, dtype: torch.dtype) -> None:
    hardware = built(geometry)
    for slices in range(1, hardware.slices() + 1):
        codes = torch.arange(min(hardware.max_code, hardware.capacity(slices)) + 1, dtype=dtype)
        digits = spelled(codes, hardware, slices)
        assert bool(((digits >= 0) & (digits <= hardware.max_digit) & (digits == digits.round())).all())
        weights = torch.tensor([hardware.base**k for k in range(slices)], dtype=dtype)
        assert torch.equal(weights @ digits, codes)


def test_digits_by_hand() -> None:
    """Base 1 spreads codes evenly, bases 2 and 3 fill the most significant slices first, base 4 is positional."""
    code = torch.tensor([7.0])
    found = {base: spelled(code, array(radix=base), 4).flatten().tolist() for base in (1, 2, 3, 4)}
    assert found == {1: [1, 2, 2, 2], 2: [1, 1, 1, 0], 3: [1, 2, 0, 0], 4: [3, 1, 0, 0]}
    assert [array(radix=base).max_code for base in (None, 1, 2, 3, 4)] == [255, 12, 45, 120, 255]


@given(st.integers(1, 16), st.integers(1, 16), st.sampled_from(["differential", "offset"]))
def test_without_a_base_codes_have_their_bits(bits: int, bits_per_cell: int, spelling: str) -> None:
    """As ever, also where the last slice has bits to spare: then only a number as base uses them."""
    if bits_per_cell > bits or (spelling == "offset" and bits < 2):
        return
    hardware = array(bits=bits, bits_per_cell=bits_per_cell, encoding=spelling)
    assert hardware.max_code == (2**bits - 1 if spelling == "differential" else 2 ** (bits - 1) - 1)
    assert hardware.slices() == -(-bits // bits_per_cell)
    if spelling == "differential":
        for code in (1, hardware.max_code // 3 + 1, hardware.max_code):
            assert hardware.slices(code) == -(-code.bit_length() // bits_per_cell)
        whole = replace(hardware, "radix", 2**bits_per_cell)
        assert whole.max_code == 2 ** (bits_per_cell * hardware.slices()) - 1


@given(GEOMETRIES, st.data())
def test_slices_in_use_hold_the_largest_code_and_no_slice_too_many_is_used(geometry: Any, data: st.DataObject) -> None:
    hardware = built(geometry)
    code = data.draw(st.integers(1, hardware.max_code))
    slices = hardware.slices(code)
    assert hardware.capacity(slices) >= code
    assert slices == 1 or hardware.capacity(slices - 1) < code
    assert slices <= hardware.slices(hardware.max_code) <= hardware.slices()


@given(GEOMETRIES)
def test_arrays_and_cells_are_those_of_the_positional_code(geometry: Any) -> None:
    bits, bits_per_cell, _ = geometry
    one, other = plan(70, 90, built(geometry)), plan(70, 90, built((bits, bits_per_cell, None)))
    assert (one.arrays, one.cells, one.reads(7)) == (other.arrays, other.cells, other.reads(7))


def test_a_clip_leaves_slices_empty() -> None:
    """A quarter of the range: 3 of 12 codes need one slice, 11 of 45 three, 29 of 120 three."""
    clip = KVClip(alpha=2.0, beta=0.25)
    arrays = [array(radix=base) for base in (1, 2, 3, 4)]
    assert [clip.max_code(one) for one in arrays] == [3, 11, 29, 62]
    assert [plan(8, 8, one, max_code=clip.max_code(one)).slices for one in arrays] == [1, 3, 3, 3]


def test_slices_that_count_alike_have_less_noise() -> None:
    """At full scale the variance of the top cell alone is 64^2 / 85^2, that of four equal ones 4 / 4^2."""
    variances = []
    for base in (4, 1):
        hardware = array(radix=base, cell=cell(write_noise={"kind": "sqrt_range", "sigma": 0.1}))
        codes = torch.full((200, 200), float(hardware.max_code), dtype=torch.float64)
        variances.append(float(write_folded(codes, hardware, stream=1, w_range=1.0).values.var()))
    positional = (64**2 + 16**2 + 4**2 + 1) / 85**2
    # 40,000 draws: the quotient of two variances has a deviation of 1 %; five of them, once in 1.7 million.
    assert variances[0] / variances[1] == pytest.approx(positional / 0.25, rel=0.05)


@pytest.mark.parametrize("base", [1, 2, 3, 4, None])
def test_values_that_are_not_rounded_keep_their_scale(base: int | None) -> None:
    """One cell per value spans the same range, whatever the slice weights of the array are."""
    whole = analog(array(radix=base, bits=7, cell=cell(write_noise=SQRT_RANGE)))
    assert (whole.slices(), whole.max_code, whole.max_digit, whole.base) == (1, 127, 127, 128)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"radix": 2, "encoding": "offset"}, "radix = 2: an 'offset' array holds the bits of a shifted code"),
        ({"radix": 5}, r"radix = 5: is above 2\^bits_per_cell = 4.*; lower it"),
        ({"radix": 0}, "radix = 0: must be >= 1; raise it"),
    ],
)
def test_an_impossible_base_is_refused(fields: dict[str, Any], message: str) -> None:
    hardware = array(encoding=fields.get("encoding", "differential"))
    with pytest.raises(BadInput, match=message):
        replace(hardware, "radix", fields["radix"])


@pytest.mark.parametrize("base", [1, 2, 3])
def test_codes_are_bounded_by_the_slices(base: int) -> None:
    hardware = array(radix=base)
    top = float(hardware.max_code)
    assert bool((write_folded(torch.full((2, 2), -top), hardware, w_range=top).values == -top).all())
    with pytest.raises(BadInput, match=f"within {hardware.max_code} of zero"):
        write_folded(torch.full((2, 2), top + 1), hardware)
