"""Find the ranges of inputs, of cached K and V and of converters by running the sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ohmformer.capture.inputs import at_home, batch_size, call
from ohmformer.capture.sample_batch import as_sample
from ohmformer.errors import BadInput
from ohmformer.nn.convert import self_check
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.weight import share_converter_ranges, share_ranges


def calibrate_ranges(model: nn.Module, batches: Iterable[Any] = ()) -> None:
    """Find ranges of inputs and of cached K and V, and then, where needed, of converters.

    `convert` does so on its sample. More batches widen these ranges; what `calibrate` or `set_kv` set up later has
    ranges of its own, so widen after them.

    Args:
        model: what `convert` returned; it is changed.
        batches: batches beside the sample, each as `convert` takes one; such as `(x for x, _ in loader)`.

    Raises:
        BadInput: the model was not converted, or a batch is not a batch of inputs.
    """
    found = crossbars(model)
    samples = [found.sample, *(_checked(model, batch) for batch in batches)]
    for sample in samples:
        with torch.no_grad(), self_check.named_rows(sample, found.axis), found.state.set_mode("observe inputs"):
            call(model, sample)
    share_ranges(found.operands)
    if any(operand.calibrates_converters() for operand in found.operands):
        calibrate_converters(model, samples)


def _checked(model: nn.Module, batch: Any) -> Any:
    batch = at_home(model, as_sample(batch))
    if batch_size(batch) == 0:
        raise BadInput("calibrate_ranges: a batch is empty; give batches of at least one input")
    return batch


def calibrate_converters(model: nn.Module, samples: Sequence[Any] = ()) -> None:
    """Run the sample of `convert`, or other batches, to find converter ranges: at level `array`, without dropout."""
    found = crossbars(model)
    samples = samples or [found.sample]
    state, before = found.state, (found.state.level, found.state.seed, found.state.chip)
    for operand in found.operands:
        operand.adc_range = None
    training = [module for module in model.modules() if module.training]
    model.eval()
    state.level, (state.seed, state.chip) = "array", found.calibration
    try:
        for sample in samples:
            with torch.no_grad(), self_check.named_rows(sample, found.axis), state.set_mode("observe converters"):
                call(model, sample)
    finally:
        state.level, state.seed, state.chip = before
        for module in training:
            module.training = True
    share_converter_ranges(found.operands)
