"""Analog-to-digital conversion of column currents, in units of one digit times one input unit."""

from __future__ import annotations

from torch import Tensor

from ohmformer.array.spec import Adc, Calibrated, Crossbar, FullScale, Given
from ohmformer.errors import BadInput

Range = tuple[Tensor | float, Tensor | float]
"""Lowest and highest current of a converter; tensors [S] where slices have ranges of their own."""


def full_scale(array: Crossbar, *, signed: bool) -> tuple[float, float]:
    """The lowest and highest current that a column of the array can give, every row at its largest digit and input."""
    volts = array.max_input(signed=signed) if array.inputs.kind == "amplitude" else 1
    top = float(array.rows * array.max_digit * volts)
    both_signs = array.subtract == "analog" or (array.inputs.kind == "amplitude" and signed)
    return (-top if both_signs else 0.0), top


def adc_range(array: Crossbar, *, signed: bool, calibrated: Range | None) -> Range:
    """The range of the array's converters.

    Raises:
        BadInput: the range is to be calibrated and no calibration is given.
    """
    low, high = full_scale(array, signed=signed)
    choice = array.adc.range
    match choice:
        case FullScale():
            return low, high
        case Given():
            lowest = choice.low if choice.low is not None else (-choice.high if low < 0 else 0.0)
            return lowest * high, choice.high * high
        case Calibrated():
            if calibrated is None and array.adc.bits != "ideal":
                raise BadInput(
                    "adc.range is 'calibrated' but none was given; pass what column_percentiles finds as adc_range"
                )
            return (low, high) if calibrated is None else calibrated


def at_slice(span: Range, s: int) -> Range:
    """The range of one slice's converters."""
    low, high = (end[s] if isinstance(end, Tensor) and end.dim() else end for end in span)
    return low, high


def to_codes_(current: Tensor, adc: Adc, span: Range) -> tuple[Tensor, float, float]:
    """Column currents to integer codes, in place; also the current of one code, and that of code 0.

    Where the range has both signs, code 0 is no current, and 2^bits - 1 codes are used; otherwise code 0 is the lowest
    current, and all 2^bits are. Ideal converters give currents as they are.
    """
    if adc.bits == "ideal":
        return current, 1.0, 0.0
    low, high = float(span[0]), float(span[1])
    around_zero = low < 0 < high and adc.bits > 1
    step = max(1.0, (high - low) / (2**adc.bits - (2 if around_zero else 1)))
    zero = 0.0 if around_zero else low
    codes = (current.sub_(zero) if zero else current).div_(step).round_()
    return codes.clamp_(round((low - zero) / step), round((high - zero) / step)), step, zero


def convert_(current: Tensor, adc: Adc, span: Range) -> Tensor:
    """Column currents to what the converter reports, in place: rounded to its steps and held in its range."""
    codes, step, zero = to_codes_(current, adc, span)
    return codes if step == 1 and zero == 0 else codes.mul_(step).add_(zero)
