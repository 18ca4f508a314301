"""Find the ranges of inputs, of cached K and V and of converters by running the sample."""

from __future__ import annotations

import torch
from torch import nn

from ohmformer.capture.inputs import call
from ohmformer.nn.convert import self_check
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.weight import share_converter_ranges, share_ranges


def calibrate_ranges(model: nn.Module) -> None:
    """Run the sample to find ranges of inputs and of cached K and V, and then, where needed, of converters."""
    found = crossbars(model)
    with torch.no_grad(), self_check.named_rows(found.sample, found.axis):
        found.state.mode = "observe inputs"
        try:
            call(model, found.sample)
        finally:
            found.state.mode = "run"
    share_ranges(found.operands)
    if any(operand.calibrates_converters() for operand in found.operands):
        _calibrate_converters(model)


def _calibrate_converters(model: nn.Module) -> None:
    """Run the sample to find converter ranges: at level `array`, without dropout."""
    found = crossbars(model)
    state, before = found.state, (found.state.level, found.state.seed, found.state.chip)
    for operand in found.operands:
        operand.adc_range = None
    training = [module for module in model.modules() if module.training]
    model.eval()
    with torch.no_grad(), self_check.named_rows(found.sample, found.axis):
        state.mode, state.level = "observe converters", "array"
        state.seed, state.chip = found.calibration
        try:
            call(model, found.sample)
        finally:
            state.mode, (state.level, state.seed, state.chip) = "run", before
            for module in training:
                module.training = True
    share_converter_ranges(found.operands)
