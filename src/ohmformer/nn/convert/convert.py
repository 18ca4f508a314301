"""Put a real model on crossbars: capture its products, replace modules, check the result, and calibrate ranges."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from ohmformer.array.spec import Level
from ohmformer.capture.dry_run import DryRun, dry_run, refusing_random_models
from ohmformer.capture.pytorch_quirks import evaluation_mode, unchanged_buffers, without_fast_path
from ohmformer.capture.table import COMPUTED
from ohmformer.errors import BadInput, check_type
from ohmformer.hardware.ages import Ages
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, WeightMitigation
from ohmformer.nn.calls.hooks import attach
from ohmformer.nn.checks import self_check
from ohmformer.nn.checks.noise_check import warn_of_unstable_noise
from ohmformer.nn.checks.written_tokens import keeping_tokens
from ohmformer.nn.convert.arguments import as_config, checked_sample
from ohmformer.nn.convert.attention_marks import all_cross_attention, mark_cross_attention, unmark_partial_attention
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Handle
from ohmformer.nn.convert.release import release_weights
from ohmformer.nn.convert.replace import Replacer
from ohmformer.nn.convert.sharing import REMOVALS, Model, share_parameters
from ohmformer.nn.convert.spec import ConvertConfig
from ohmformer.nn.convert.state_dict_ranges import attach_ranges
from ohmformer.nn.convert.stored_weights import stored_weights
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.convert.weight_mitigation import fit_weights
from ohmformer.nn.modules.describing import note_digital
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_ages import check_ages
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.nn.shared.compiled_loops import load_compiled_loops
from ohmformer.nn.shared.state import State
from ohmformer.streams.backends import Kernels, compiles


def convert(
    model: Model,
    hardware: Accelerator | ConvertConfig,
    *,
    sample: Any,
    clip: KVClip | None = None,
    weights: WeightMitigation | None = None,
    level: Level | None = None,
    kernels: Kernels | None = None,
    rules: Rules | None = None,
    seed: int | None = None,
    chip: int | None = None,
    ages: Ages | float | None = None,
    keep_original: bool = True,
    half_cells: bool | None = None,
    weights_from: str | Path | None = None,
    verbose: bool = False,
) -> Model:
    """Put the weights of a model, and its K and V, on the crossbars of an accelerator.

    Args:
        model: any transformer of PyTorch; it stays unchanged, unless `keep_original` is False.
        hardware: the accelerator; or a `ConvertConfig`, which replaces what it holds.
        sample: a batch of real inputs: a tensor or array, a tuple of arguments, a mapping, or the `calibration` of a
            task. It is run to capture products, calibrate ranges, and check the output on exact hardware.
        clip: ClipFormer's clip of K and V; None for no clip.
        weights: mitigation of static weights, such as rotation or residual writing; None for none.
        level: how closely arrays are simulated (see `ohmformer.array.multiply`); None is "array".
        kernels: what computes on the CPU; "compiled" is faster (see `docs/speed.md`), None is "torch".
        rules: name pattern (as in fnmatch) of modules, or of operands such as `layer.attention.K` -> settings for them
            (see `ohmformer.hardware.rules`); None keeps them digital. The first match wins.
        seed: root of all noise; None is 0.
        chip: number of the specimen of the hardware; None is 0.
        ages: times of K and V from `Timeline.ages()` or `Served.ages()`; one age [s]; or None for the `age` of arrays.
        keep_original: False gives up weights, those of `model` too, once cells hold them; see docs/api.md.
        half_cells: keep what cells hold of weights as float16 codes (within 2^-11 of each), for products in float32.
        weights_from: folder or file (safetensors) of the weights of a `model` on the meta device, read as it uses them.
        verbose: print the capture table, not warnings of products that stay digital without a rule.

    Returns:
        A copy of the model's structure on crossbars. It shares parameters and buffers with `model`.

    Raises:
        BadInput: a product of two activations is not understood, weights or sample hold NaN, a rule matches nothing,
            an argument does not fit, or the converted model differs from the original on exact hardware.
    """
    for name, given in (("verbose", verbose), ("keep_original", keep_original)):
        check_type("convert", name, given, bool, "True or False")
    config = as_config(model, hardware, clip, weights, level, kernels, rules, seed, chip, half_cells)
    with stored_weights(model, weights_from) as files:
        sample = checked_sample(model, sample, config.rules, files)
        converted = share_parameters(model)
        with evaluation_mode(converted), unchanged_buffers(model), without_fast_path():
            handle = _on_crossbars(model, converted, sample, config, check_ages(ages))
            _calibrate(model, converted, handle)
            _report(converted, handle, verbose)
            if not keep_original:
                release_weights(model, converted, handle)
    return converted


def _on_crossbars(
    model: Model, converted: Model, sample: Any, config: ConvertConfig, ages: Ages | float | None
) -> Handle:
    """Replace the modules of the copy by those on crossbars, and check them against the original."""
    if any(compiles(parameter.device, config.kernels) for parameter in model.parameters()):
        load_compiled_loops(config.kernels)
    settings = {name: getattr(config, name) for name in ("level", "kernels", "seed", "chip", "clip", "half_cells")}
    state = State(**settings)
    with refusing_random_models(model, sample):
        run = _dry_run(converted, sample)
        replacer = Replacer(converted, config.hardware, state, config.rules, run, config.weights, ages)
        table = replacer.replace()
    _check_half_cells(replacer.operands)
    state.causal = any(map(_is_causal, replacer.operands)) or all_cross_attention(run, sample)
    handle = Handle(
        state, table, tuple(replacer.operands), sample, (config.seed, config.chip), config.hardware, config.rules,
        run.axis, config.weights, ages=ages)  # fmt: skip
    converted.ohmformer_crossbars = handle  # type: ignore[assignment]
    _attach(converted, handle, run, replacer)
    self_check.check(model, converted, state, _always_used(handle.operands), sample, run.axis)
    return handle


def _check_half_cells(operands: list[Operand]) -> None:
    """Refuse half precision where slices are not folded, so that cells hold digits one by one.

    Raises:
        BadInput: an array of weights is simulated so.
    """
    for operand in operands:
        if operand.state.half_cells and isinstance(operand, WeightOperand) and operand.needs_cells:
            raise BadInput(
                f"convert: half_cells: {operand.name}: level {operand.state.level!r} simulates its single slices, "
                "which have no half precision; use level='noise', or leave half_cells out"
            )


def _dry_run(converted: nn.Module, sample: Any) -> DryRun:
    """Run the sample once, with the marks that partial attention and cross attention need."""
    run = dry_run(converted, sample)
    unmark_partial_attention(run, converted, sample)
    mark_cross_attention(run, converted, sample)
    return run


def _attach(converted: nn.Module, handle: Handle, run: DryRun, replacer: Replacer) -> None:
    """Attach hooks of calls and of the state dictionary, and fit the mitigation of weights to the sample."""
    attach(converted, handle, run, set(replacer.frames))
    attach_ranges(converted, handle.operands)
    fit_weights(converted, handle)


def _is_causal(operand: Operand) -> bool:
    """True if an operand is K or V of causal attention."""
    return isinstance(operand, KVOperand) and operand.causal


def _calibrate(model: nn.Module, converted: nn.Module, handle: Handle) -> None:
    """Calibrate all ranges; then warn if noise depends on padding, other rows or a cache."""
    with keeping_tokens(handle.operands if handle.axis == 0 else (), handle.sample):
        calibrate_ranges(converted)
    if handle.axis == 0:
        warn_of_unstable_noise(model, converted, handle.state, handle.operands, handle.sample, stacklevel=3)


def _report(converted: nn.Module, handle: Handle, verbose: bool) -> None:
    """Print the capture table, or warn the caller of `convert` of products left over; warn of ranges without values."""
    table = handle.table
    note_digital(converted, table)
    warn_of_unseen(converted, handle.operands, stacklevel=3)
    if verbose:
        table.print()
    elif table.left_over:
        first, count = table.left_over[0], len(table.left_over)
        products = "1 product stays digital" if count == 1 else f"{count} products stay digital, the first"
        message = f"{products} in {first.module or 'the model itself'}: {first.reason}"
        if first.reason == COMPUTED:
            message += f"; {REMOVALS} make parameters of pruned and normalized weights"
        warnings.warn(message, StaysDigital, stacklevel=3)


def _always_used(operands: tuple[Operand, ...]) -> list[str]:
    """Return the names of the operands that every sample uses; a single expert of a bank may be unused."""
    return [operand.name for operand in operands if not (isinstance(operand, WeightOperand) and operand.bank)]


class StaysDigital(UserWarning):
    """A conversion left products digital although no rule and no part of the hardware demands it."""
