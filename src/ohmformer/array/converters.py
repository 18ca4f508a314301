"""Analog-to-digital conversion of column currents.

Currents are in digits times input units: the current of one digit at one input unit is 1. S slices.
"""

from __future__ import annotations

from torch import Tensor

from ohmformer.array.spec import Adc, Calibrated, Crossbar, FullScale, Given
from ohmformer.errors import BadInput

Range = tuple[Tensor | float, Tensor | float]
"""Lowest and highest current that a converter represents; tensors [S] if each slice has its own range."""


def full_scale(array: Crossbar, *, signed: bool) -> tuple[float, float]:
    """The lowest and highest current of a column: every row at its largest digit and input."""
    largest_input = largest_applied(array, signed=signed)
    top = float(array.rows * array.max_digit * largest_input)
    both_signs = array.subtract == "analog" or (array.inputs.kind != "bit_serial" and signed)
    return (-top if both_signs else 0.0), top


def largest_applied(array: Crossbar, *, signed: bool) -> int:
    """The largest input of a row behind one conversion: a bit, an amplitude, or the largest group of bits."""
    if array.inputs.kind == "integrated":
        return (1 << max(array.inputs.group_sizes)) - 1
    return array.max_input(signed=signed) if array.inputs.kind == "amplitude" else 1


def adc_range(array: Crossbar, *, signed: bool, calibrated: Range | None) -> Range:
    """The range of the array's converters.

    Args:
        array: the hardware.
        signed: True if inputs have both signs.
        calibrated: the calibrated range, for arrays whose `adc.range` is `calibrated`.

    Raises:
        BadInput: the array needs a calibrated range and none is given.
    """
    low, high = full_scale(array, signed=signed)
    choice = array.adc.range
    match choice:
        case FullScale():
            return low, high
        case Given():
            low_share = choice.low if choice.low is not None else (-choice.high if low < 0 else 0.0)
            return low_share * high, choice.high * high
        case Calibrated():
            if calibrated is None and array.adc.bits != "ideal":
                raise BadInput(
                    "adc.range is 'calibrated' but none was given; pass what column_percentiles finds as adc_range"
                )
            return (low, high) if calibrated is None else calibrated


def at_slice(span: Range, s: int) -> Range:
    """The range of the converters of slice s."""
    low, high = (end[s] if isinstance(end, Tensor) and end.dim() else end for end in span)
    return low, high


def to_codes_(current: Tensor, adc: Adc, span: Range) -> tuple[Tensor, float, float]:
    """Convert column currents to integer codes, in place.

    If the range has both signs, code 0 stands for no current and 2^bits - 1 codes are used. Otherwise code 0 stands for
    the lowest current and all 2^bits codes are used. An ideal converter leaves the currents unchanged.

    Args:
        current: of any shape; changed.
        adc: the converter.
        span: lowest and highest current of the range.

    Returns:
        The codes, the current of one code, and the current of code 0.
    """
    if adc.bits == "ideal":
        return current, 1.0, 0.0
    zero, step, lowest, highest = code_scale(adc.bits, span)
    codes = (current.sub_(zero) if zero else current).div_(step).round_()
    return codes.clamp_(lowest, highest), step, zero


def code_scale(bits: int, span: Range) -> tuple[float, float, int, int]:
    """The current of code 0, the current of one code, and the lowest and the highest code; see `to_codes_`.

    Args:
        bits: of the converter.
        span: lowest and highest current of its range; numbers, or tensors on the CPU, for which no device waits.
    """
    low, high = float(span[0]), float(span[1])
    around_zero = low < 0 < high and bits > 1
    step = max(1.0, (high - low) / (2**bits - (2 if around_zero else 1)))
    zero = 0.0 if around_zero else low
    return zero, step, round((low - zero) / step), round((high - zero) / step)


def convert_(current: Tensor, adc: Adc, span: Range) -> Tensor:
    """Replace column currents by the currents that the converter reports, in place: rounded and saturated."""
    codes, step, zero = to_codes_(current, adc, span)
    return codes if step == 1 and zero == 0 else codes.mul_(step).add_(zero)
