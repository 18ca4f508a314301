"""Put a real model on crossbars: capture, replace, calibrate, and prove that nothing else changed."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from ohmformer.array.multiply import LEVELS, Level
from ohmformer.array.spec import Calibrated, Crossbar
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.spec import Accelerator
from ohmformer.mapping.spec import KVClip
from ohmformer.nn import selfcheck
from ohmformer.nn.capture import batch_size, call, dry_run
from ohmformer.nn.clipping import check_clip
from ohmformer.nn.replace import Replacer, Rules
from ohmformer.nn.state import State
from ohmformer.nn.table import CaptureTable


def convert(
    model: nn.Module,
    hardware: Accelerator,
    *,
    sample: Any,
    clip: KVClip | None = None,
    level: Level = "array",
    rules: Rules | None = None,
    seed: int = 0,
    chip: int = 0,
    verbose: bool = False,
) -> nn.Module:
    """The same model with its weights, and its K and V, on the crossbars of an accelerator.

    The result shares its parameters with `model`, which itself stays as it is.

    Args:
        model: built from nn.Linear, nn.Conv2d, nn.MultiheadAttention, F.scaled_dot_product_attention and digital rest.
        hardware: what runs where, and how well.
        sample: a real batch (a tensor, a tuple of arguments or a mapping): it is run to find the products, to
            calibrate ranges, and to check that exact hardware gives the original output.
        clip: ClipFormer's clip of K and V.
        level: how faithfully crossbars are simulated (see `ohmformer.array.multiply`).
        rules: name pattern (as in fnmatch) -> None to keep the matching modules digital, or a `Crossbar` to use; the
            first match wins.
        seed: root of all noise.
        chip: which specimen of the hardware.
        verbose: print what was captured and what stayed digital, instead of warning of what is left over.

    Raises:
        BadInput: a product of two activations that is not understood, NaN in weights or sample, a rule that matches
            nothing, or a converted model that differs from the original.
    """
    _check_arguments(model, sample, level, hardware, clip)
    converted = _share_parameters(model)
    training = {name: module.training for name, module in converted.named_modules()}
    converted.eval()
    products = dry_run(converted, sample)
    state = State(level=level, seed=seed, chip=chip, clip=clip)
    replacer = Replacer(converted, hardware, state, dict(rules or {}), batch_size(sample))
    table = replacer.replace(products)
    converted.crossbars = Crossbars(state, table, replacer)  # type: ignore[assignment]
    selfcheck.check(model, converted, state, sample)
    _calibrate(converted, sample)
    for name, module in converted.named_modules():
        module.training = training[name]
    if verbose:
        table.print()
    elif table.left_over:
        first, count = table.left_over[0], len(table.left_over)
        line = f"{count} products with weights stay digital, the first in {first.module}: {first.reason}"
        warnings.warn(line, StaysDigital, stacklevel=2)
    return converted


class StaysDigital(UserWarning):
    """A conversion left products digital that neither a rule nor the hardware asked for."""


class Crossbars:
    """What a converted model knows about itself: its `State` and its `CaptureTable`."""

    def __init__(self, state: State, table: CaptureTable, replacer: Replacer) -> None:
        self.state = state
        self.table = table
        self.operands = tuple(replacer.operands)


def crossbars(model: nn.Module) -> Crossbars:
    """The `Crossbars` of a converted model.

    Raises:
        BadInput: the model was not converted.
    """
    found = getattr(model, "crossbars", None)
    if not isinstance(found, Crossbars):
        raise BadInput("this model is not on crossbars; pass it through ohmformer.convert first")
    return found


def set_chip(model: nn.Module, chip: int, *, seed: int | None = None) -> None:
    """Another specimen of the hardware: other noise in every cell. Weights are written again when next used."""
    state = crossbars(model).state
    state.chip = chip
    state.seed = state.seed if seed is None else seed


def set_clip(model: nn.Module, clip: KVClip | None) -> None:
    """Another clip of K and V, or none.

    Raises:
        BadInput: the arrays of K or V cannot have that clip.
    """
    found = crossbars(model)
    if clip is not None:
        for operand in found.operands:
            if operand.dynamic:
                check_clip(clip, operand.array)
    found.state.clip = clip


def capture_table(model: nn.Module) -> CaptureTable:
    """What of a converted model runs where, and what stayed digital."""
    return crossbars(model).table


def _share_parameters(model: nn.Module) -> nn.Module:
    """A copy of the model's structure around the very same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _check_arguments(model: nn.Module, sample: Any, level: str, hardware: Accelerator, clip: KVClip | None) -> None:
    if level not in LEVELS:
        raise BadInput(f"level = {level!r}: {suggest(str(level), list(LEVELS))}")
    if isinstance(getattr(model, "crossbars", None), Crossbars):
        raise BadInput("this model is on crossbars already; convert the original")
    if batch_size(sample) == 0:
        raise BadInput("sample is empty; give a batch of at least one input")
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise BadInput(f"parameter {name} holds NaN or infinity; load or train the model again")
    for engine in (hardware.attention.key, hardware.attention.value):
        if clip is not None and engine.kind == "crossbar":
            check_clip(clip, engine.array)


def _calibrate(model: nn.Module, sample: Any) -> None:
    """Run the sample to find input ranges, and then, where needed, converter ranges."""
    found = crossbars(model)
    state = found.state
    with torch.no_grad(), selfcheck.named_rows(sample):
        state.mode = "observe inputs"
        call(model, sample)
        if any(_calibrates_converters(operand.array) for operand in found.operands):
            level, state.level, state.mode = state.level, "array", "observe converters"
            call(model, sample)
            state.level = level
        state.mode = "run"


def _calibrates_converters(array: Crossbar) -> bool:
    return array.adc.bits != "ideal" and isinstance(array.adc.range, Calibrated)
