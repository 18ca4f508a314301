"""The handle of a converted model, and the functions that read it or change the settings of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ohmformer.capture.table import CaptureTable
from ohmformer.errors import BadInput, given, one_line
from ohmformer.hardware.ages import Ages
from ohmformer.hardware.rules import OrderedRules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.modules.class_swap import converted_part
from ohmformer.nn.modules.structure import Structure
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.shared.state import State
from ohmformer.quantities import whole_number


@dataclass(eq=False)
class Handle:
    """The handle of a converted model: the record of its settings, operands and conversion.

    Attributes:
        state: the settings and calls that all layers share.
        table: the capture table: the engine of every product.
        operands: the operands on crossbars.
        sample: the sample batch, on which ranges are calibrated.
        calibration: seed and chip with which converter ranges are calibrated.
        hardware: the accelerator.
        rules: settings for single modules and operands.
        axis: the axis of the inputs that holds the samples.
        weights: mitigation of static weights.
        structure: its submodules, classes and forwards at the conversion.
        ages: times of the tokens of K and V, or one age of all of them [s]; None for the `age` of the arrays.
        largest_inputs: argument -> largest magnitude in the calibration; empty if unknown.
    """

    state: State
    table: CaptureTable
    operands: tuple[Operand, ...]
    sample: Any
    calibration: tuple[int, int]
    hardware: Accelerator
    rules: OrderedRules
    axis: int = 0
    weights: WeightMitigation = field(default_factory=WeightMitigation)
    structure: Structure = field(default_factory=Structure)
    ages: Ages | float | None = None
    largest_inputs: dict[str, float] = field(default_factory=dict)


@contextmanager
def undone_on_failure(handle: Handle) -> Iterator[None]:
    """Context after which a model has its former mitigations and ranges again if it fails or is interrupted.

    Args:
        handle: the handle of the model.
    """
    before = [(operand, dict(vars(operand))) for operand in handle.operands]
    weights, clip, largest = handle.weights, handle.state.clip, dict(handle.largest_inputs)
    try:
        yield
    except BaseException:  # an interrupt from the keyboard, too
        handle.weights, handle.state.clip = weights, clip
        handle.largest_inputs.clear()
        handle.largest_inputs.update(largest)
        for operand, values in before:
            vars(operand).update(values)
            if isinstance(operand, KVOperand):
                operand.watched.clear()
        raise


def crossbars(model: nn.Module) -> Handle:
    """Return the handle of a converted model.

    Raises:
        BadInput: the model was not converted, or has been changed since.
    """
    handle = handle_of(model)
    handle.structure.check()
    return handle


def handle_of(model: nn.Module) -> Handle:
    """Return the handle of a converted model, which may have been changed since its conversion.

    Raises:
        BadInput: the model was not converted.
    """
    handle = getattr(model, "ohmformer_crossbars", None)
    if isinstance(handle, Handle):
        return handle
    raise BadInput(_not_converted(model))


def _not_converted(model: object) -> str:
    """Return the message for a model without a handle: the reason and the remedy."""
    if not isinstance(model, nn.Module):
        return f"model is {given(model)}; give what ohmformer.convert returned"
    parts = [name for name, module in model.named_modules() if "ohmformer_crossbars" in vars(module)]
    if parts:
        subject = f"{parts[0]} of this model is" if len(parts) == 1 else f"{', '.join(parts)} of this model are"
        return (
            f"only {subject} on crossbars; pass that part, model.get_submodule({parts[0]!r}), or convert all of it: "
            "convert(revert(model), ...)"
        )
    part = converted_part(model)
    if part is None:
        return "this model is not on crossbars; pass it through ohmformer.convert first"
    return (
        f"{part or 'this module'} is a part of a model on crossbars; pass that whole model, or convert this part "
        "alone: convert(revert(model), ...)"
    )


def check_seed(seed: object, name: str = "seed") -> int:
    """Return a seed, the number of a chip or that of a step as an int.

    Args:
        seed: the value.
        name: its name in messages.

    Raises:
        BadInput: it is not a whole number from 0 to 2^63 - 1.
    """
    number = whole_number(seed)
    if not 0 <= number < 2**63:
        raise BadInput(
            f"{name} = {one_line(seed)}: must be a whole number from 0 to 2^63 - 1; write it without quotes and "
            "decimals"
        )
    return number


def set_chip(model: nn.Module, chip: int, *, seed: int | None = None) -> None:
    """Choose another specimen of the hardware, with other noise in every cell.

    Weights are written again when they are next used. Settings belong to the model, so all threads that call it share
    the chip; threads that need different chips each take a copy of the model (`copy.deepcopy`).

    Args:
        model: a converted model; it is changed.
        chip: number of the specimen.
        seed: root of all noise; None keeps the seed of the model.

    Raises:
        BadInput: the model was not converted, chip or seed is not a whole number from 0 to 2^63 - 1, or another thread
            calls the model or changes its settings.
    """
    state = crossbars(model).state
    chip, seed = check_seed(chip, "chip"), state.seed if seed is None else check_seed(seed)
    with state.changing("set_chip"):
        state.chip, state.seed = chip, seed


@contextmanager
def without_quantizers(model: nn.Module) -> Iterator[None]:
    """Context in which inputs and stored values are not rounded to codes, so that only noise and saturation remain.

    A value then is not cut into digits: it stands in one cell, and an input is one voltage. Two ways to compute the
    same result agree to float precision, since no value near a tie is rounded another way. Converters must be ideal.
    Inside, other threads cannot call the model, since they share its settings.

    Raises:
        BadInput: the model was not converted, or another thread calls the model or changes its settings.
    """
    state = crossbars(model).state
    with state.changing("without_quantizers"):
        before, state.rounded = state.rounded, False
        try:
            yield
        finally:
            state.rounded = before


def capture_table(model: nn.Module) -> CaptureTable:
    """Return the capture table of a converted model: for each product its engine, or why it stays digital."""
    return crossbars(model).table


def digital_token_share(model: nn.Module) -> float | None:
    """Return the share of tokens that no cell held, in the calls of this thread since it was last asked for.

    It is a mean over calls, samples, and all K and V with digital tokens (`first_tokens`, `last_tokens`); each call
    counts its tokens at its end. None if there are no such K and V, or there were no calls.

    Args:
        model: a converted model.
    """
    counts = crossbars(model).state.threads.call.token_counts
    digital, tokens = (sum(parts) for parts in zip(*counts.values(), strict=True)) if counts else (0, 0)
    counts.clear()
    return digital / tokens if tokens else None
