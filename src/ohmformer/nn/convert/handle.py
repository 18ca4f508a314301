"""What a converted model knows about itself, and the settings that all its layers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ohmformer.capture.table import CaptureTable
from ohmformer.errors import BadInput, one_line
from ohmformer.hardware.rules import OrderedRules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.modules.class_swap import converted_part
from ohmformer.nn.modules.structure import Structure
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.state import State
from ohmformer.quantities import whole_number


@dataclass(eq=False)
class Crossbars:
    """What a converted model knows about itself.

    Attributes:
        state: what its layers share.
        table: what runs where.
        operands: all that lives on crossbars.
        sample: what ranges are calibrated on.
        calibration: seed and chip that converter ranges are calibrated on.
        hardware: what runs where, and how well.
        rules: what is different for some modules.
        axis: along which samples stand in the inputs.
        weights: how static weights are conditioned.
        structure: its submodules at the conversion.
        largest_inputs: argument -> largest magnitude that ranges are calibrated on; empty where that is not known.
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
    largest_inputs: dict[str, float] = field(default_factory=dict)


def crossbars(model: nn.Module) -> Crossbars:
    """The `Crossbars` of a converted model.

    Raises:
        BadInput: the model was not converted, or has been changed since.
    """
    handle = handle_of(model)
    handle.structure.check()
    return handle


def handle_of(model: nn.Module) -> Crossbars:
    """As `crossbars`, also for a model that has been changed since.

    Raises:
        BadInput: the model was not converted.
    """
    handle = getattr(model, "ohmformer_crossbars", None)
    if isinstance(handle, Crossbars):
        return handle
    raise BadInput(_not_converted(model))


def _not_converted(model: object) -> str:
    """Why a model is not what `convert` returned, and what to do."""
    if not isinstance(model, nn.Module):
        return f"model is of type {type(model).__name__}; give what ohmformer.convert returned"
    parts = [name for name, module in model.named_modules() if "ohmformer_crossbars" in vars(module)]
    if parts:
        named = f"{parts[0]} of this model is" if len(parts) == 1 else f"{', '.join(parts)} of this model are"
        return (
            f"only {named} on crossbars; pass that part, model.get_submodule({parts[0]!r}), or convert all of it: "
            "convert(revert(model), ...)"
        )
    part = converted_part(model)
    if part is None:
        return "this model is not on crossbars; pass it through ohmformer.convert first"
    return (
        f"{part or 'this module'} is a part of a model on crossbars; pass that whole model, or convert this one by "
        "itself: convert(revert(model), ...)"
    )


def check_seed(seed: object, name: str = "seed") -> int:
    """The seed, or the number of a chip.

    Raises:
        BadInput: it is no whole number, 0 or more.
    """
    number = whole_number(seed)
    if not 0 <= number < 2**63:
        raise BadInput(
            f"{name} = {one_line(seed)}: must be a whole number from 0 to 2^63 - 1; write it without quotes and "
            "decimals"
        )
    return number


def set_chip(model: nn.Module, chip: int, *, seed: int | None = None) -> None:
    """Another specimen of the hardware: other noise in every cell. Weights are written again when next used.

    The chip is that of the model, for all threads that call it. So is everything else that is set on a model; threads
    that need different chips take a copy of the model each (`copy.deepcopy`).

    Args:
        model: what `convert` returned; it is changed.
        chip: the number of the specimen.
        seed: root of all noise; None keeps the model's own.

    Raises:
        BadInput: the model was not converted, chip or seed is no whole number, 0 or more, or another thread is inside a
            call of the model, or changes its settings.
    """
    state = crossbars(model).state
    chip, seed = check_seed(chip, "chip"), state.seed if seed is None else check_seed(seed)
    with state.changing("set_chip"):
        state.chip, state.seed = chip, seed


@contextmanager
def without_quantizers(model: nn.Module) -> Iterator[None]:
    """Inside, inputs and stored values are not rounded to codes: what remains is noise, and saturation.

    There are no digits then, so each value stands in one cell, and each input is one voltage. Without rounding ties to
    flip, two ways of computing the same thing agree to the last digits. Only where converters are ideal. Inside, other
    threads cannot call the model, since settings hold for all threads.

    Raises:
        BadInput: the model was not converted, or another thread is inside a call of the model, or changes its settings.
    """
    state = crossbars(model).state
    with state.changing("without_quantizers"):
        before, state.rounded = state.rounded, False
        try:
            yield
        finally:
            state.rounded = before


def capture_table(model: nn.Module) -> CaptureTable:
    """What of a converted model runs where, and what stayed digital."""
    return crossbars(model).table
