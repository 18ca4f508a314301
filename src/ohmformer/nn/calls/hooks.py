"""Forward hooks of a converted model: they record each call, its encoders and its digital modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.recorder import recording
from ohmformer.capture.torch_private import in_backward, is_replica, tree_leaves
from ohmformer.deferred_checks import defer_checks, stop_deferring
from ohmformer.errors import BadInput
from ohmformer.nn.calls.beam_search_guard import can_reorder, check_cache, guarded_class
from ohmformer.nn.calls.call_info import (
    call_info,
    encoder_call_info,
    encoders_of,
    forward_signature,
    is_other_input,
    named_arguments,
)
from ohmformer.nn.calls.larger_inputs import warn_beyond
from ohmformer.nn.calls.outputs import float_tensors
from ohmformer.nn.calls.padded_layers import attach_to_padded_layers, begin_layer, finish_layer
from ohmformer.nn.calls.sample_numbers import numbered_call, numbered_encoder
from ohmformer.nn.modules.class_swap import swap_class
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.linear import CrossbarLinear
from ohmformer.nn.modules.multihead_attention import CrossbarMultiheadAttention
from ohmformer.nn.modules.structure import Structure
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.plain_calls import refuse_transforms, refuse_valueless
from ohmformer.nn.operands.token_numbers import as_token_mask
from ohmformer.nn.shared.state import CallInfo, State, TrainingStep

ATTENDED = ("encoder_hidden_states", "key_value_states", "cross_attention_states")
"""Arguments of Hugging Face that hold the tokens [B, N, features] to which a module attends."""


class HookHandle(Protocol):
    """The attributes of a `Handle` (nn/convert/handle.py) that hooks use."""

    state: State
    axis: int
    structure: Structure
    largest_inputs: dict[str, float]

    @property
    def operands(self) -> Sequence[Operand]:
        """The operands on crossbars."""


def attach(model: nn.Module, handle: HookHandle, run: DryRun, frames: set[str]) -> None:
    """Attach all hooks to a converted model, and note its structure.

    Args:
        model: the converted model.
        handle: its handle.
        run: the dry run.
        frames: names of the modules that intercept products.
    """
    model.register_forward_pre_hook(partial(begin, handle), with_kwargs=True)
    model.register_forward_hook(partial(finish, handle), always_call=True)
    if can_reorder(model):
        cls: type[nn.Module] = type(model)
        swap_class(model, guarded_class(cls))  # type: ignore[arg-type]
    encoders = encoders_of(model)
    for encoder in encoders:
        hook = partial(begin_encoder, handle, exclusive_prefix(model, encoder))
        encoder.register_forward_pre_hook(hook, with_kwargs=True)
        encoder.register_forward_hook(partial(finish_encoder, handle), always_call=True)
    attach_to_decoders(model, handle.state, skip=encoders)
    attach_to_padded_layers(model, handle.state)
    modules = dict(model.named_modules())
    # In digital modules the interception of the modules around them pauses.
    multiplying = {product.module for product in run.seen.products} | set(run.seen.operations)
    for name in multiplying - frames:
        if not isinstance(modules[name], (CrossbarLinear, CrossbarMultiheadAttention)):
            modules[name].register_forward_pre_hook(partial(enter_digital, handle.state))
            modules[name].register_forward_hook(partial(leave_digital, handle.state), always_call=True)
    handle.structure.note(model, multiplying | frames)


@eager
def begin(handle: HookHandle, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Begin a call of the whole model: read its arguments and reset the counts of uses.

    In variation-aware training the call is the next step, unless it is recomputed for the gradients of a step.

    Raises:
        BadInput: there are more or fewer names than samples, the model has been changed since its conversion, or it is
            called inside a transform of PyTorch or by a model that is being recorded, with tensors without values, or
            while another thread changes settings.
    """
    refuse_transforms(*args, *kwargs.values())
    refuse_valueless((args, kwargs))
    if recording():
        raise BadInput(
            f"{type(model).__name__}, which this model calls, is on crossbars already; let it call the original, or "
            "what revert() returns"
        )
    handle.structure.check()
    state, named = handle.state, named_arguments(model, args, kwargs)
    if state.mode == "run":
        warn_beyond(handle.largest_inputs, named)
    state.users.begin_call(replica=is_replica(model))
    call = state.threads.enter()
    before, info = call.info, call_info(model, named, [args, dict(kwargs)], handle.axis)
    if in_backward():
        if info.batch_size == before.batch_size:
            info = replace(info, names=before.names)
    elif state.training is not None and model.training:
        call.step = state.training.draw()
        if info.names is None and info.batch_size is not None:
            # Every step draws anew, so numbers do as names of the rows.
            info = replace(info, names=tuple(range(info.batch_size)))
    else:
        call.step, info = None, numbered_call(info)
    call.info, call.active = info, True
    call.moved.clear()
    call.grown.clear()
    call.encoders.clear()
    if not in_backward():
        call.recomputed = {}
    call.uses.clear()
    state.threads.here.frames.clear()
    note_inputs(state, info, named)
    if info.names is not None and info.batch_size is not None and len(info.names) != info.batch_size:
        raise BadInput(
            f"samples(ids) names {len(info.names)} samples but the batch has {info.batch_size} rows; name one per row"
        )
    state.fingerprints.begin_call(whole=not info.goes_on and call.step is None)
    call.checks = defer_checks()


@eager
def finish(handle: HookHandle, _model: nn.Module, _args: object, output: object) -> None:
    """End a call of the whole model, and let gradients of its outputs restore its record.

    PyTorch may recompute layers for these gradients, which must then draw the same noise.

    Raises:
        BadInput: cached tokens are not the tokens that were written, or a check failed that waited for the end.
    """
    state = handle.state
    state.users.end_call()
    call = state.threads.here.call
    if call is None:  # the call was refused before it began
        return
    call.active = False
    state.fingerprints.end_call()
    checks, call.checks = call.checks, None
    if checks is not None:
        stop_deferring(checks)
        if output is not None:  # otherwise the call has failed already
            checks.end()
    check_cache(call.moved, numbered=bool(call.info.numbers))
    if state.training is not None:
        for t in float_tensors(output):
            if t.requires_grad:
                t.register_hook(partial(restore_record, state, call.step, call.info, call.recomputed))


@eager
def begin_encoder(
    handle: HookHandle, prefix: str, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Begin a call of an encoder, inside a call of the model or separately: read its own tokens and padding.

    With gradients on, this is done only for an encoder that shares no layer with the rest of the model (`prefix` is not
    empty): PyTorch may recompute single layers for the gradients, and their names must show whose tokens they hold.

    Raises:
        BadInput: the encoder is called separately while another thread changes settings.
    """
    state = handle.state
    if not state.in_own_call:
        state.users.begin_call()
    if prefix or not torch.is_grad_enabled():
        call = state.threads.enter()
        info = numbered_encoder(encoder_call_info(encoder, args, kwargs, handle.axis, state.call_info))
        call.encoders.append(info)
        if prefix:
            call.recomputed[prefix] = info


@eager
def finish_encoder(handle: HookHandle, _encoder: nn.Module, _args: object, output: object) -> None:
    """End a call of an encoder, and note its outputs, so that the decoder recognizes them as no new tokens."""
    state = handle.state
    if not state.in_own_call:
        state.users.end_call()
    call = state.threads.here.call
    if call is not None and call.encoders:
        mask = call.encoders.pop().token_mask
        for t in float_tensors(output):
            state.memory.note(t, mask)


def exclusive_prefix(model: nn.Module, part: nn.Module) -> str:
    """Return the prefix of the names in a part of a model; "" if other parts use its layers too.

    Embeddings and layers without floating-point parameters may be shared.
    """
    named_modules = list(model.named_modules(remove_duplicate=False))
    prefixes = [f"{name}." for name, module in named_modules if module is part]
    layers = {
        id(module)
        for module in part.modules()
        if not isinstance(module, nn.Embedding) and float_tensors([*module.parameters()])
    }
    exclusive = all(f"{name}.".startswith(prefixes[0]) for name, module in named_modules if id(module) in layers)
    return prefixes[0] if len(prefixes) == 1 and exclusive else ""


def note_inputs(state: State, info: CallInfo, named: Mapping[str, Any]) -> None:
    """Note the inputs of a call that are not new tokens: features of an image, or outputs of an encoder."""
    if not info.numbers:
        return
    for name, value in named.items():
        if is_other_input(name, value):
            state.memory.note(value)
        elif name == "encoder_outputs":
            for t in tree_leaves(dict(value) if isinstance(value, Mapping) else value):
                if isinstance(t, Tensor) and t.is_floating_point():
                    state.memory.note(t, info.memory_mask or ())


def attach_to_decoders(model: nn.Module, state: State, skip: Sequence[nn.Module]) -> None:
    """Attach `begin_decoder` to every module that takes other tokens to attend to, except those inside `skip`."""
    skipped = {id(module) for part in skip for module in part.modules()}
    for module in model.modules():
        try:
            names = list(forward_signature(module).parameters)
        except (TypeError, ValueError):  # a forward that is not written in Python
            continue
        for argument in ATTENDED if id(module) not in skipped else ():
            if argument in names:
                hook = partial(begin_decoder, state, argument, names.index(argument))
                module.register_forward_pre_hook(hook, with_kwargs=True)


@eager
def begin_decoder(
    state: State, name: str, position: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Begin a decoder or its attention: note the tokens to which it attends as no new tokens.

    They are not noted if they are another argument too, since attention then is to the new tokens.

    Args:
        state: the state of the model.
        name: the argument that holds them.
        position: its position among positional arguments.
    """
    attended = args[position] if position < len(args) else kwargs.get(name)
    if not isinstance(attended, Tensor):
        return
    others = (*args[:position], *args[position + 1 :], *(value for key, value in kwargs.items() if key != name))
    if not any(other is attended for other in others):
        mask = as_token_mask(kwargs.get("encoder_attention_mask"))
        state.memory.note(attended, () if mask is None else (mask,))


def restore_record(
    state: State, step: TrainingStep | None, info: CallInfo, recomputed: dict[str, CallInfo], _grad: Tensor
) -> None:
    """Restore the record of an earlier call, since its gradients begin."""
    call = state.threads.call
    call.step, call.info, call.recomputed = step, info, recomputed


@eager
def enter_digital(state: State, _module: nn.Module, _args: object) -> None:
    """Begin a digital module: no module around it intercepts its products."""
    state.threads.here.frames.append(None)


@eager
def leave_digital(state: State, _module: nn.Module, _args: object, _output: object) -> None:
    """End a digital module."""
    frames = state.threads.here.frames
    if frames:
        frames.pop()


CROSSBAR_HOOKS = (
    begin, finish, begin_encoder, finish_encoder, begin_decoder,
    begin_layer, finish_layer, enter_digital, leave_digital,
)  # fmt: skip
