"""What a converted model knows about itself, and the settings that all its layers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import index
from typing import Any

from torch import nn

from ohmformer.capture.table import CaptureTable
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import OrderedRules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.modules.class_swap import converted_part
from ohmformer.nn.modules.structure import Structure
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.state import State


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


def crossbars(model: nn.Module) -> Crossbars:
    """The `Crossbars` of a converted model.

    Raises:
        BadInput: the model was not converted, or has been changed since.
    """
    handle = handle_of(model)
    handle.structure.check(model)
    return handle


def handle_of(model: nn.Module) -> Crossbars:
    """As `crossbars`, also for a model that has been changed since.

    Raises:
        BadInput: the model was not converted.
    """
    handle = getattr(model, "ohmformer_crossbars", None)
    if isinstance(handle, Crossbars):
        return handle
    part = converted_part(model) if isinstance(model, nn.Module) else None
    if part:
        raise BadInput(
            f"only {part} of this model is on crossbars; pass that part, or revert it and convert the whole model"
        )
    raise BadInput("this model is not on crossbars; pass it through ohmformer.convert first")


def whole_number(value: object) -> int:
    """A whole number of any type (Python, NumPy, a tensor of one element) as an int; -1 for anything else."""
    try:
        return -1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except (TypeError, RuntimeError, ValueError):
        return -1


def check_seed(seed: object, name: str = "seed") -> int:
    """The seed, or the number of a chip.

    Raises:
        BadInput: it is no whole number, 0 or more.
    """
    number = whole_number(seed)
    if not 0 <= number < 2**63:
        raise BadInput(
            f"{name} = {seed!r}: must be a whole number from 0 to 2^63 - 1; write it without quotes and decimals"
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
            call of the model.
    """
    state = crossbars(model).state
    state.check_idle()
    state.chip = check_seed(chip, "chip")
    state.seed = state.seed if seed is None else check_seed(seed)


@contextmanager
def without_quantizers(model: nn.Module) -> Iterator[None]:
    """Inside, inputs and stored values are not rounded to codes: what remains is noise, and saturation.

    There are no digits then, so each value stands in one cell, and each input is one voltage. Without rounding ties to
    flip, two ways of computing the same thing agree to the last digits. Only where converters are ideal. It holds for
    all threads.

    Raises:
        BadInput: the model was not converted, or another thread is inside a call of the model.
    """
    state = crossbars(model).state
    state.check_idle()
    before, state.rounded = state.rounded, False
    try:
        yield
    finally:
        state.rounded = before


def capture_table(model: nn.Module) -> CaptureTable:
    """What of a converted model runs where, and what stayed digital."""
    return crossbars(model).table
