"""Put a real model on crossbars: capture, replace, calibrate, and prove that nothing else changed."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from ohmformer.array.spec import Level
from ohmformer.capture.dry_run import dry_run
from ohmformer.capture.pytorch_quirks import unchanged_buffers, without_fast_path
from ohmformer.capture.table import COMPUTED
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, WeightMitigation
from ohmformer.nn.convert import self_check
from ohmformer.nn.convert.arguments import as_config, checked_sample
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.call_info import drop_parts_of_texts, note_across, only_looks_elsewhere
from ohmformer.nn.convert.handle import Crossbars
from ohmformer.nn.convert.hooks import attach
from ohmformer.nn.convert.replace import Replacer
from ohmformer.nn.convert.sharing import REMOVALS, Model, share_parameters
from ohmformer.nn.convert.spec import ConvertConfig
from ohmformer.nn.convert.state_dict_ranges import attach_ranges
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.describing import note_digital
from ohmformer.nn.noise_check import warn_of_unstable_noise
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import WeightOperand


def convert(
    model: Model,
    hardware: Accelerator | ConvertConfig,
    *,
    sample: Any,
    clip: KVClip | None = None,
    weights: WeightMitigation | None = None,
    level: Level | None = None,
    rules: Rules | None = None,
    seed: int | None = None,
    chip: int | None = None,
    verbose: bool = False,
) -> Model:
    """The same model with its weights, and its K and V, on the crossbars of an accelerator.

    The result shares its parameters and buffers with `model`, whose structure stays as it is.

    Args:
        model: any transformer of PyTorch. What it multiplies is found by running the sample.
        hardware: the accelerator; or a `ConvertConfig` with all of the following but `sample` and `verbose`.
        sample: a real batch (a tensor, a tuple of arguments or a mapping, arrays of NumPy too, or the `calibration`
            of a task): it is run to find the products, to calibrate ranges, and to check that exact hardware gives
            the original output.
        clip: ClipFormer's clip of K and V.
        weights: how static weights are conditioned.
        level: how faithfully crossbars are simulated (see `ohmformer.array.multiply`); None is "array".
        rules: name pattern (as in fnmatch) of modules, or of operands such as `layer.attention.K` -> what is different
            for them: None keeps them digital; see `ohmformer.hardware.rules` for the rest. The first match wins.
        seed: root of all noise; None is 0.
        chip: which specimen of the hardware; None is 0.
        verbose: print what was captured and what stayed digital, instead of warning of what is left over.

    Raises:
        BadInput: a product of two activations that is not understood, NaN in weights or sample, a rule that matches
            nothing, or a converted model that differs from the original.
    """
    config = as_config(model, hardware, clip, weights, level, rules, seed, chip)
    sample = checked_sample(model, sample, config.rules)
    converted = share_parameters(model)
    state = State(level=config.level, seed=config.seed, chip=config.chip, clip=config.clip)
    with self_check.evaluating(converted), unchanged_buffers(model), without_fast_path():
        run = dry_run(converted, sample)
        drop_parts_of_texts(run, converted, sample)
        note_across(run, converted, sample)
        replacer = Replacer(converted, config.hardware, state, config.rules, run, config.weights)
        table = replacer.replace()
        state.causal = any(isinstance(op, KVOperand) and op.causal for op in replacer.operands)
        state.causal = state.causal or only_looks_elsewhere(run, sample)
        found = Crossbars(
            state, table, tuple(replacer.operands), sample, (config.seed, config.chip), config.hardware, config.rules,
            run.axis, config.weights,
        )  # fmt: skip
        converted.ohmformer_crossbars = found  # type: ignore[assignment]
        attach(converted, found, run, set(replacer.frames))
        attach_ranges(converted, found.operands)
        self_check.check(model, converted, state, _checked(found.operands), sample, run.axis)
        _calibrate(model, converted, found)
    _report(converted, found, verbose)
    return converted


def _calibrate(model: nn.Module, converted: nn.Module, found: Crossbars) -> None:
    """Find all ranges; with these, see whether noise depends on what else is in a call."""
    calibrate_ranges(converted)
    if found.axis == 0:
        warn_of_unstable_noise(model, converted, found.state, found.operands, found.sample, stacklevel=3)


def _report(converted: nn.Module, found: Crossbars, verbose: bool) -> None:
    """Print what was captured, or warn the caller of `convert` of what is left over, and of what was not calibrated."""
    table = found.table
    note_digital(converted, table)
    warn_of_unseen(converted, found.operands, stacklevel=3)
    if verbose:
        table.print()
    elif table.left_over:
        first, count = table.left_over[0], len(table.left_over)
        line = f"{count} products stay digital, the first in {first.module or 'the model itself'}: {first.reason}"
        if first.reason == COMPUTED:
            line += f"; {REMOVALS} make parameters of pruned and normalized weights"
        warnings.warn(line, StaysDigital, stacklevel=3)


def _checked(operands: tuple[Operand, ...]) -> list[str]:
    """Names of the operands that every sample must use: not those of single experts."""
    return [operand.name for operand in operands if not (isinstance(operand, WeightOperand) and operand.bank)]


class StaysDigital(UserWarning):
    """A conversion left products digital that neither a rule nor the hardware asked for."""
