"""Converters: ranges, steps, saturation."""

from typing import Any

import pytest
import torch

from ohmformer.array import mvm, program
from ohmformer.array.calibrate_adc import column_percentiles, widest
from ohmformer.array.converters import adc_range, convert_, full_scale
from ohmformer.array.encoding import quantize_input
from ohmformer.array.spec import Adc
from tests.build import array


def converted(values: list[float], bits: int, low: float, high: float) -> list[float]:
    return convert_(torch.tensor(values, dtype=torch.float64), Adc(bits=bits), (low, high)).tolist()


def test_steps_and_saturation() -> None:
    """3 bits over 0..70 have steps of 10; currents outside the range saturate."""
    assert converted([-3, 4, 6, 34.9, 68, 99], 3, 0.0, 70.0) == [0, 0, 10, 30, 70, 70]


def test_a_range_with_both_signs_has_zero_among_its_steps() -> None:
    """3 bits over -30..30 have steps of 10 and seven codes."""
    assert converted([0, 4.9, -4.9, 26, 40, -40], 3, -30.0, 30.0) == [0, 0, 0, 30, 30, -30]
    assert converted([0, 30, -6], 3, -4.0, 26.0) == [0, 25, -5]


def test_a_lowest_current_above_zero_has_a_code() -> None:
    assert converted([10, 24, 0], 2, 10.0, 40.0) == [10, 20, 10]


def test_a_step_is_never_finer_than_the_smallest_difference() -> None:
    assert converted([2.4, 7.0], 8, 0.0, 10.0) == [2, 7]


def test_one_bit_tells_two_currents_apart() -> None:
    assert converted([-9, 9], 1, -5.0, 5.0) == [-5, 5]


def test_ideal_converters_change_nothing() -> None:
    current = torch.randn(5)
    assert convert_(current, Adc(), (0.0, 1.0)) is current


FULL_SCALE = [
    ("bit_serial", "digital", True, (0, 192)),
    ("bit_serial", "analog", True, (-192, 192)),
    ("amplitude", "digital", False, (0, 192 * 255)),
    ("amplitude", "digital", True, (-192 * 127, 192 * 127)),
]


@pytest.mark.parametrize(("kind", "subtract", "signed", "expected"), FULL_SCALE)
def test_full_scale(kind: str, subtract: str, signed: bool, expected: tuple[int, int]) -> None:
    hardware = array(inputs={"kind": kind}, subtract=subtract)
    assert full_scale(hardware, signed=signed) == expected


def test_given_ranges_are_fractions_of_full_scale() -> None:
    def span(subtract: str, **fields: Any) -> Any:
        hardware = array(subtract=subtract, adc={"range": {"kind": "given", **fields}})
        return adc_range(hardware, signed=True, calibrated=None)

    assert span("digital", high=0.5) == (0, 96)
    assert span("analog", high=0.5) == (-96, 96)
    assert span("analog", low=0.25, high=0.5) == (48, 96)


@pytest.mark.parametrize("subtract", ["digital", "analog"])
@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize("level", ["array", "cell"])
def test_a_calibrated_range_holds_what_was_seen(level: Any, encoding: str, subtract: str) -> None:
    """With the extremes as the range and enough bits nothing is lost; full scale would need more bits."""
    hardware = array(
        rows=64, bits=4, encoding=encoding, subtract=subtract, adc={"bits": 7, "range": {"kind": "calibrated"}}
    )
    x, w = torch.rand(4, 40).double(), torch.randn(6, 40).double()
    programmed = program(w, hardware)
    codes, _ = quantize_input(x, hardware, None, signed=True)
    span = column_percentiles(codes, programmed, signed=True, percentile=100)
    assert len(span[0]) == len(span[1]) == programmed.slices
    y = mvm(x, programmed, level=level, adc_range=span)
    torch.testing.assert_close(y, mvm(x, programmed, level="noise"))


def test_percentiles_cut_the_tails() -> None:
    hardware = array(bits=4)
    programmed = program(torch.randn(50, 40), hardware)
    codes, _ = quantize_input(torch.rand(30, 40), hardware, None, signed=True)
    all_of_it = column_percentiles(codes, programmed, signed=True, percentile=100)
    most = column_percentiles(codes, programmed, signed=True, percentile=90)
    assert bool((most[1] < all_of_it[1]).all())
    joined = widest(most, (all_of_it[0][:1], all_of_it[1][:1]))
    assert float(joined[1][0]) == float(all_of_it[1][0])
    assert float(joined[1][1]) == float(most[1][1])
