"""Calibration of ranges: of inputs, of K and V in causal attention, and of converters, by running the sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, at_home, batch_size, call
from ohmformer.capture.pytorch_quirks import evaluation_mode
from ohmformer.capture.sample_batch import as_sample, several_batches
from ohmformer.capture.torch_private import tree_leaves
from ohmformer.errors import BadInput
from ohmformer.nn.calls.larger_inputs import magnitudes_of_sample
from ohmformer.nn.checks.comparing import named_rows
from ohmformer.nn.convert.handle import Handle, crossbars, undone_on_failure
from ohmformer.nn.operands.weight import share_converter_ranges, share_ranges


def calibrate_ranges(model: nn.Module, batches: Inputs = ()) -> None:
    """Calibrate the ranges of inputs and of K and V in causal attention, and then, where needed, of converters.

    `convert` calls this on its sample. Further batches widen the ranges. `calibrate` and `set_kv` calibrate ranges
    anew, so widen them afterward.

    Args:
        model: a converted model; it is changed.
        batches: one further batch: a tensor, an array, a mapping or a tuple of arguments, or the `calibration` of a
            task. Or several of these: a list, a data loader, or a generator such as `(x for x, _ in loader)`. Without
            this argument, the sample of the conversion alone.

    Raises:
        BadInput: the model was not converted, there is no batch, a batch does not hold finite inputs of the model, or
            another thread calls the model or changes its settings. The ranges then stay as they were.
    """
    handle = crossbars(model)
    who = "calibrate_ranges: batches"
    several = [] if isinstance(batches, tuple) and not batches else _several(batches, who, handle)
    if several is None:
        further = [_checked_batch(model, batches, who)]
    else:
        further = [_checked_batch(model, batch, f"{who}[{n}]") for n, batch in enumerate(several)]
    samples = [handle.sample, *further]
    with handle.state.changing("calibrate_ranges", unfinished=True):
        _widen(model, handle, samples)


def _several(batches: Inputs, who: str, handle: Handle) -> list[Inputs] | None:
    """Return the batches of a list, a loader or a generator; None if `batches` is one batch.

    Raises:
        BadInput: it yields no batch.
    """
    several = several_batches(batches, who, handle.sample)
    if several is not None and not several:
        raise BadInput(f"{who} yields no batch; give at least one (a generator yields its batches only once)")
    return several


def _widen(model: nn.Module, handle: Handle, samples: Sequence[Any]) -> None:
    """Widen all ranges to these batches, or restore them if the model fails on one.

    Raises:
        BadInput: the model fails on a batch.
    """
    try:
        with undone_on_failure(handle):
            _observe(model, handle, samples)
    except Exception as error:
        if isinstance(error, BadInput) or len(samples) == 1:
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"calibrate_ranges: the model fails on a batch ({type(error).__name__}: {reason}); give inputs as the "
            "model takes them, without labels, such as (x for x, _ in loader)"
        ) from error


def _observe(model: nn.Module, handle: Handle, samples: Sequence[Any]) -> None:
    """Run the model on these batches, and widen all ranges to the values that occur."""
    for sample in samples:
        with torch.no_grad(), named_rows(sample, handle.axis), handle.state.set_mode("observe inputs"):
            call(model, sample)
        for name, magnitude in magnitudes_of_sample(model, sample).items():
            handle.largest_inputs[name] = max(magnitude, handle.largest_inputs.get(name, 0.0))
    share_ranges(handle.operands)
    if any(operand.calibrates_converters() for operand in handle.operands):
        calibrate_converters(model, samples)


def _checked_batch(model: nn.Module, batch: Any, who: str) -> Any:
    """Return a batch as tensors on the device of the model; `who` is its name in messages.

    Raises:
        BadInput: it is empty, or holds NaN or infinity.
    """
    batch = at_home(model, as_sample(batch, who))
    if batch_size(batch) == 0:
        raise BadInput("calibrate_ranges: a batch is empty; give batches of at least one input")
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(leaf.isfinite().all()):
            raise BadInput("calibrate_ranges: a batch holds NaN or infinity; remove or mend it")
    return batch


def calibrate_converters(model: nn.Module, samples: Sequence[Any] = ()) -> None:
    """Calibrate converter ranges at level `array`, without dropout.

    Args:
        model: a converted model; it is changed.
        samples: batches to run; by default the sample of the conversion.
    """
    handle = crossbars(model)
    samples = samples or [handle.sample]
    state, before = handle.state, (handle.state.level, handle.state.seed, handle.state.chip)
    for operand in handle.operands:
        operand.adc_range = None
    state.level, (state.seed, state.chip) = "array", handle.calibration
    try:
        for sample in samples:
            with (
                evaluation_mode(model),
                torch.no_grad(),
                named_rows(sample, handle.axis),
                state.set_mode("observe converters"),
            ):
                call(model, sample)
    finally:
        state.level, state.seed, state.chip = before
    share_converter_ranges(handle.operands)
