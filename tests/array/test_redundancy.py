"""Redundant cells: codes stay the same, noise averages, each copy has its own noise and faults; what is refused."""

from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.array import encoding, fold, write, write_folded
from ohmformer.array.spec import analog
from ohmformer.errors import BadInput
from ohmformer.mapping.write_effort import effort
from ohmformer.schema import replace
from tests.array.test_slices import GEOMETRIES, built
from tests.build import SQRT_RANGE, UNIFORM, array, cell

STRONG = {"kind": "sqrt_range", "gamma": 5.0, "sigma": 0.2}


@given(GEOMETRIES, st.integers(1, 4), st.data())
def test_codes_stay_what_they_are_and_slices_come_so_many_times(
    geometry: Any, redundancy: int, data: st.DataObject
) -> None:
    one = built(geometry)
    many = replace(one, "redundancy", redundancy)
    assert (many.max_code, many.base, many.max_digit) == (one.max_code, one.base, one.max_digit)
    code = data.draw(st.integers(1, one.max_code))
    slices = one.slices(code)
    assert (many.slices(), many.slices(code)) == (redundancy * one.slices(), redundancy * slices)
    assert many.capacity(redundancy * slices) == one.capacity(slices)
    codes = torch.arange(code + 1.0)
    once = [digit for digit in encoding.slice_digits(codes, one, slices) for _ in range(redundancy)]
    found = list(encoding.slice_digits(codes, many, redundancy * slices))
    assert torch.equal(torch.stack(found), torch.stack(once))
    assert [many.slice_weight(s) for s in range(redundancy * slices)] == [
        one.slice_weight(s // redundancy) for s in range(redundancy * slices)
    ]


@pytest.mark.parametrize("redundancy", [2, 3, 4])
@pytest.mark.parametrize("encoding_of", ["differential", "offset"])
def test_the_variance_of_write_noise_falls_by_the_number_of_copies(redundancy: int, encoding_of: Any) -> None:
    """With 40,000 draws a ratio of two variances has a deviation of 1 %; 5 sigma fails once in 1.7 million."""
    variances, means = [], []
    for n in (1, redundancy):
        hardware = array(cell=cell(write_noise=STRONG), encoding=encoding_of, columns=1, redundancy=n)
        codes = torch.full((200, 200), 73.0, dtype=torch.float64)
        held = write_folded(codes, hardware, stream=1, w_range=float(hardware.max_code)).values
        variances.append(float(held.var()))
        means.append(float(held.mean()))
    assert variances[0] / variances[1] == pytest.approx(redundancy, rel=0.05)
    assert abs(means[0] - means[1]) < 5 * (sum(variances) / 40_000) ** 0.5


def test_without_digits_a_value_has_as_many_copies() -> None:
    whole = analog(array(redundancy=3, radix=1, cell=cell(write_noise=SQRT_RANGE)))
    assert (whole.slices(), whole.redundancy, whole.max_code) == (3, 3, 255)
    codes = 255 * torch.rand(9, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = write_folded(codes, replace(whole, "cell", cell()), w_range=1.0).values
    torch.testing.assert_close(exact, codes / 255)


def test_faults_and_noise_of_copies_are_their_own() -> None:
    """10 % of cells are stuck, both copies of a digit in 1 %; 5 sigma is a false alarm once in 1.7 million seeds."""
    device = cell(write_noise=UNIFORM, faults={"stuck_at_g_max": 0.1})
    codes = torch.zeros(100, 100, dtype=torch.float64)
    cells = write(codes, array(bits=2, redundancy=2, rows=100, columns=100, cell=device), stream=3).digits[0]
    stuck = (cells - 3.0).abs() < 1e-9
    assert abs(float(stuck.double().mean()) - 0.1) < 5 * (0.1 * 0.9 / 20_000) ** 0.5
    assert abs(float((stuck[0] & stuck[1]).double().mean()) - 0.01) < 5 * (0.01 * 0.99 / 10_000) ** 0.5
    working = cells[:, ~(stuck[0] | stuck[1])]
    assert abs(float(torch.corrcoef(working)[0, 1])) < 5 / working.shape[1] ** 0.5


def test_slices_that_a_clip_leaves_out_shift_no_number() -> None:
    hardware = array(redundancy=2, cell=cell(write_noise=SQRT_RANGE))
    codes = torch.randint(-15, 16, (7, 9), generator=torch.Generator().manual_seed(1)).float()
    all_, few = (write(codes, hardware, stream=4, max_code=top) for top in (None, 15))
    assert (all_.slices, few.slices) == (8, 4)
    assert torch.equal(fold(all_).values, fold(few).values)


def test_numbers_of_writes_by_slice_do_not_depend_on_copies() -> None:
    write_verify = {"writes": [1, 2, 3, 9], "tolerance": 0.05}
    one = array(write_verify=write_verify, cell=cell(write_noise=UNIFORM))
    two = replace(one, "redundancy", 2)
    assert [two.max_writes(s) for s in range(8)] == [1, 1, 2, 2, 3, 3, 9, 9]
    assert asdict(effort(two, 8)) == pytest.approx(asdict(effort(one, 4)))
    assert analog(two).max_writes(1) == 9
    error = [
        write(torch.full((300, 300), 170.0), hardware, stream=1).digits[0].sub(2).std((1, 2)) for hardware in (one, two)
    ]
    assert bool((error[0].repeat_interleave(2) / error[1] - 1).abs().lt(0.03).all()), "90,000 cells: 0.3 % each"
    with pytest.raises(
        BadInput, match=r"write_verify: writes has 8 numbers for 4 slices; give one number, or one for each"
    ):
        replace(array(redundancy=2), "write_verify", {"writes": [1] * 8, "tolerance": 0.05})


@pytest.mark.parametrize("value", [0, -1, 1.5, "two"])
def test_a_number_that_cannot_be_is_one_line(value: Any) -> None:
    with pytest.raises(BadInput, match=r"^redundancy.*: must be (>= 1; raise it|a whole number)") as caught:
        replace(array(), "redundancy", value)
    assert "\n" not in str(caught.value)
