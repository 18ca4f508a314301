"""Find the ranges of inputs, of cached K and V and of converters by running the sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.inputs import at_home, batch_size, call
from ohmformer.capture.sample_batch import as_sample
from ohmformer.errors import BadInput
from ohmformer.nn.convert import self_check
from ohmformer.nn.convert.handle import Crossbars, crossbars
from ohmformer.nn.convert.unseen_ranges import magnitudes_of_sample
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.weight import share_converter_ranges, share_ranges


def calibrate_ranges(model: nn.Module, batches: Iterable[Any] = ()) -> None:
    """Find ranges of inputs and of cached K and V, and then, where needed, of converters.

    `convert` does so on its sample. More batches widen these ranges; what `calibrate` or `set_kv` set up later has
    ranges of its own, so widen after them.

    Args:
        model: what `convert` returned; it is changed.
        batches: batches beside the sample, each as `convert` takes one; such as `(x for x, _ in loader)`.

    Raises:
        BadInput: the model was not converted, or a batch is not a batch of inputs, or holds NaN or infinity, or another
            thread is inside a call of the model, or changes its settings. The model then has the ranges of before.
    """
    found = crossbars(model)
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        raise BadInput(f"batches is of type {type(batches).__name__}; give a list of batches, such as [inputs]")
    samples = [found.sample, *(_checked(model, batch) for batch in batches)]
    with found.state.changing("calibrate_ranges", unfinished=True):
        _widen(model, found, samples)


def _widen(model: nn.Module, found: Crossbars, samples: Sequence[Any]) -> None:
    """Widen all ranges, or leave them as they were where the model fails on a batch."""
    before = [(op, op.x_range, op.adc_range, getattr(op, "w_range", None)) for op in found.operands]
    try:
        _observe(model, found, samples)
    except Exception as error:
        for operand, x_range, adc_range, w_range in before:
            operand.x_range, operand.adc_range = x_range, adc_range
            if isinstance(operand, KVOperand):
                operand.w_range = w_range
        if isinstance(error, BadInput) or len(samples) == 1:
            raise
        why = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"calibrate_ranges: the model fails on a batch ({type(error).__name__}: {why}); give inputs as the model "
            "takes them"
        ) from error


def _observe(model: nn.Module, found: Crossbars, samples: Sequence[Any]) -> None:
    """Widen all ranges to what the model does on samples."""
    for sample in samples:
        with torch.no_grad(), self_check.named_rows(sample, found.axis), found.state.set_mode("observe inputs"):
            call(model, sample)
        for name, size in magnitudes_of_sample(model, sample).items():
            found.largest_inputs[name] = max(size, found.largest_inputs.get(name, 0.0))
    share_ranges(found.operands)
    if any(operand.calibrates_converters() for operand in found.operands):
        calibrate_converters(model, samples)


def _checked(model: nn.Module, batch: Any) -> Any:
    batch = at_home(model, as_sample(batch))
    if batch_size(batch) == 0:
        raise BadInput("calibrate_ranges: a batch is empty; give batches of at least one input")
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(leaf.isfinite().all()):
            raise BadInput("calibrate_ranges: a batch holds NaN or infinity; remove or mend it")
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
