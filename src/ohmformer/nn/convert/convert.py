"""Put a real model on crossbars: capture, replace, calibrate, and prove that nothing else changed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ohmformer.array.multiply import LEVELS, Level
from ohmformer.capture.dry_run import dry_run
from ohmformer.capture.inputs import batch_size
from ohmformer.capture.pytorch_quirks import unchanged_buffers, without_fast_path
from ohmformer.capture.table import CaptureTable
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.rules import OrderedRules, RuleBook, Rules
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mitigation.spec import KVClip, WeightMitigation
from ohmformer.nn.convert import self_check
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Crossbars
from ohmformer.nn.convert.hooks import attach
from ohmformer.nn.convert.replace import Replacer
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import DynamicOperand
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import StaticOperand

Model = TypeVar("Model", bound=nn.Module)


def convert(
    model: Model,
    hardware: Accelerator,
    *,
    sample: Any,
    clip: KVClip | None = None,
    weights: WeightMitigation | None = None,
    level: Level = "array",
    rules: Rules | None = None,
    seed: int = 0,
    chip: int = 0,
    verbose: bool = False,
) -> Model:
    """The same model with its weights, and its K and V, on the crossbars of an accelerator.

    The result shares its parameters and buffers with `model`, whose structure stays as it is.

    Args:
        model: any transformer of PyTorch. What it multiplies is found by running the sample.
        hardware: what runs where, and how well.
        sample: a real batch (a tensor, a tuple of arguments or a mapping): it is run to find the products, to
            calibrate ranges, and to check that exact hardware gives the original output.
        clip: ClipFormer's clip of K and V.
        weights: how static weights are conditioned.
        level: how faithfully crossbars are simulated (see `ohmformer.array.multiply`).
        rules: name pattern (as in fnmatch) of modules, or of operands such as `layer.attention.K` -> what is different
            for them: None keeps them digital; see `ohmformer.hardware.rules` for the rest. The first match wins.
        seed: root of all noise.
        chip: which specimen of the hardware.
        verbose: print what was captured and what stayed digital, instead of warning of what is left over.

    Raises:
        BadInput: a product of two activations that is not understood, NaN in weights or sample, a rule that matches
            nothing, or a converted model that differs from the original.
    """
    ruled = _check_arguments(model, sample, level, hardware, clip, rules or {}, weights)
    weights = weights or WeightMitigation()
    converted = share_parameters(model)
    training = {name: module.training for name, module in converted.named_modules()}
    converted.eval()
    state = State(level=level, seed=seed, chip=chip, clip=clip)
    with unchanged_buffers(model), without_fast_path():
        run = dry_run(converted, sample)
        replacer = Replacer(converted, hardware, state, ruled, run, weights)
        table = replacer.replace()
        state.causal = any(isinstance(op, DynamicOperand) and op.causal for op in replacer.operands)
        found = Crossbars(
            state, table, tuple(replacer.operands), sample, (seed, chip), hardware, ruled, run.axis, weights
        )
        converted.crossbars = found  # type: ignore[assignment]
        attach(converted, found, run, set(replacer.frames))
        self_check.check(model, converted, state, _checked(found.operands), sample, run.axis)
        calibrate_ranges(converted)
    for name, module in converted.named_modules():
        module.training = training[name]
    _report(table, verbose)
    return converted


def _report(table: CaptureTable, verbose: bool) -> None:
    """Print what was captured, or warn the caller of `convert` of what is left over."""
    if verbose:
        table.print()
    elif table.left_over:
        first, count = table.left_over[0], len(table.left_over)
        line = f"{count} products stay digital, the first in {first.module or 'the model itself'}: {first.reason}"
        warnings.warn(line, StaysDigital, stacklevel=3)


def _checked(operands: tuple[Operand, ...]) -> list[str]:
    """Names of the operands that every sample must use: not those of single experts."""
    return [operand.name for operand in operands if not (isinstance(operand, StaticOperand) and operand.bank)]


class StaysDigital(UserWarning):
    """A conversion left products digital that neither a rule nor the hardware asked for."""


def share_parameters(model: Model, *shared: object) -> Model:
    """A copy of the model's structure around the very same parameters and buffers, and whatever else is shared."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise BadInput("the model is compiled by TorchScript, which hides its products; convert the original")
    try:
        return copy.deepcopy(model, {id(one): one for one in (*model.parameters(), *model.buffers(), *shared)})
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise BadInput(f"the model cannot be copied ({type(error).__name__}: {why}); make it copyable first") from error


def _check_arguments(
    model: nn.Module,
    sample: Any,
    level: str,
    hardware: Accelerator,
    clip: KVClip | None,
    rules: Rules,
    weights: WeightMitigation | None,
) -> OrderedRules:
    """The rules spelled out; refuses arguments that cannot be used, by name."""
    expected: list[tuple[str, object, type | tuple[type, ...], str]] = [
        ("model", model, nn.Module, "an nn.Module"),
        ("hardware", hardware, Accelerator, 'an accelerator, such as load("clipformer_tcad_2024")'),
        ("clip", clip, (KVClip, type(None)), "KVClip(alpha=..., beta=...) or None"),
        ("weights", weights, (WeightMitigation, type(None)), "WeightMitigation(rotate=True) or None"),
        ("rules", rules, Mapping, "a mapping of name patterns"),
    ]
    for name, value, kinds, wanted in expected:
        if not isinstance(value, kinds):
            raise BadInput(f"{name} is of type {type(value).__name__}; give {wanted}")
    if level not in LEVELS:
        raise BadInput(f"level = {level!r}: {suggest(str(level), list(LEVELS))}")
    if isinstance(getattr(model, "crossbars", None), Crossbars):
        raise BadInput("this model is on crossbars already; convert the original")
    if batch_size(sample) == 0:
        raise BadInput("sample is empty; give a batch of at least one input")
    first = next((leaf for leaf in tree_leaves(sample) if isinstance(leaf, torch.Tensor)), None)
    if first is not None and first.dim() < 2 and first.is_floating_point():
        raise BadInput(f"a sample of shape {tuple(first.shape)} has no axis of samples; add a batch dimension")
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise BadInput(f"parameter {name} is not initialised; call the model once before it is converted")
        if parameter.is_meta:
            raise BadInput(f"parameter {name} is on the meta device and holds no values; load the weights first")
        if not bool(torch.isfinite(parameter).all()):
            raise BadInput(f"parameter {name} holds NaN or infinity; load or train the model again")
    for engine in (hardware.attention.key, hardware.attention.value):
        if clip is not None and isinstance(engine, CrossbarEngine):
            clip.check(engine.array)
    return RuleBook.read(rules).rules
