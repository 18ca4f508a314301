"""Analog-to-digital conversion of column currents, in units of one digit times one input unit."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array.spec import Adc, Calibrated, Crossbar, FullScale, Given
from ohmformer.errors import BadInput

Range = tuple[Tensor | float, Tensor | float]
"""Lowest and highest current of a converter; tensors broadcast against [S, ...] currents of slices."""


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
            return choice.low * high, choice.high * high
        case Calibrated():
            if calibrated is None:
                raise BadInput("adc.range is 'calibrated' but no calibration was given; pass one (see adc_percentiles)")
            return calibrated


def convert(current: Tensor, adc: Adc, span: Range) -> Tensor:
    """Column currents to what the converter reports: held in its range, then rounded to its steps."""
    if adc.bits == "ideal":
        return current
    low, high = (torch.as_tensor(end).to(current) for end in span)
    step = ((high - low) / (2**adc.bits - 1)).clamp(min=1.0)
    code = ((current.clamp(low, high) - low) / step).round_()
    return code.mul_(step).add_(low)
