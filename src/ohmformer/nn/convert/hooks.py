"""What runs around the modules of a converted model, as PyTorch's hooks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.torch_private import in_backward, is_replica
from ohmformer.errors import BadInput
from ohmformer.nn.convert.beam_search_guard import check_cache, guarded_class, reorders
from ohmformer.nn.convert.call_info import call_info, encoder_call_info, encoders_of, is_other_input, named_arguments
from ohmformer.nn.convert.self_check import floats
from ohmformer.nn.convert.unseen_ranges import warn_beyond
from ohmformer.nn.modules.class_swap import swap_class
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.linear import CrossbarLinear
from ohmformer.nn.modules.multihead_attention import CrossbarMultiheadAttention
from ohmformer.nn.modules.structure import Structure
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.plain_calls import refuse_transforms, refuse_valueless
from ohmformer.nn.operands.state import CallInfo, State, TrainingStep
from ohmformer.nn.operands.token_numbers import token_mask

LOOKED_AT = ("encoder_hidden_states", "key_value_states", "cross_attention_states")
"""Arguments by which modules of Hugging Face are given the tokens [B, N, features] that their queries look at."""


class Converted(Protocol):
    """What hooks need of a converted model."""

    state: State
    axis: int
    structure: Structure
    largest_inputs: dict[str, float]

    @property
    def operands(self) -> Sequence[Operand]:
        """All that lives on crossbars."""


def attach(model: nn.Module, converted: Converted, run: DryRun, frames: set[str]) -> None:
    """Each call of the whole model says what it asks; digital products are not taken for those of modules around them.

    Afterward the structure of the model is noted. `frames` are the names of the modules that intercept.
    """
    model.register_forward_pre_hook(partial(begin, converted), with_kwargs=True)
    model.register_forward_hook(partial(finish, converted), always_call=True)
    if reorders(model):
        cls: type[nn.Module] = type(model)
        swap_class(model, guarded_class(cls))  # type: ignore[arg-type]
    encoders = encoders_of(model)
    for encoder in encoders:
        hook = partial(begin_encoder, converted, own_prefix(model, encoder))
        encoder.register_forward_pre_hook(hook, with_kwargs=True)
        encoder.register_forward_hook(partial(finish_encoder, converted), always_call=True)
    attach_to_decoders(model, converted.state, skip=encoders)
    modules = dict(model.named_modules())
    multiplying = {product.module for product in run.seen.products} | set(run.seen.operations)
    for name in multiplying - frames:
        if not isinstance(modules[name], (CrossbarLinear, CrossbarMultiheadAttention)):
            modules[name].register_forward_pre_hook(partial(enter_digital, converted.state))
            modules[name].register_forward_hook(partial(leave_digital, converted.state), always_call=True)
    converted.structure.note(model, multiplying | frames)


@eager
def begin(converted: Converted, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A forward pass of the whole model begins: what it asks is noted, and every operand is at its first use.

    In variation-aware training it is the next step, unless it is recomputed for the gradients of one.

    Raises:
        BadInput: there are more or fewer names than samples, or the model has been changed since its conversion,
            or it is called inside a transform of PyTorch, or without values, or while another thread changes settings.
    """
    refuse_transforms(*args, *kwargs.values())
    refuse_valueless((args, kwargs))
    converted.structure.check()
    state = converted.state
    if state.mode == "run":
        warn_beyond(converted.largest_inputs, model, args, kwargs)
    state.users.begin_call(replica=is_replica(model))
    call = state.threads.enter()
    before, info = call.info, call_info(model, args, kwargs, converted.axis)
    if in_backward():
        if info.rows == before.rows:
            info = replace(info, names=before.names)
    elif state.training is not None and model.training:
        call.step = state.training.draw()
        if info.names is None and info.rows is not None:
            # Nothing is drawn twice: every step draws anew, so rows need no names of their own.
            info = replace(info, names=tuple(range(info.rows)))
    else:
        call.step = None
    call.info, call.active = info, True
    call.moved.clear()
    call.encoders.clear()
    if not in_backward():
        call.recomputed = {}
    call.uses.clear()
    state.threads.here.frames.clear()
    note_inputs(state, info, model, args, kwargs)
    if info.names is not None and info.rows is not None and len(info.names) != info.rows:
        raise BadInput(
            f"samples(ids) names {len(info.names)} samples but the batch has {info.rows} rows; name one per row"
        )


@eager
def finish(converted: Converted, _model: nn.Module, _args: object, output: object) -> None:
    """The forward pass is done. When gradients come back to its outputs, layers may be recomputed: as they were.

    Raises:
        BadInput: cached tokens stood for others than they were written as.
    """
    state = converted.state
    state.users.end_call()
    call = state.threads.here.call
    if call is None:  # the call was refused before it began
        return
    call.active = False
    check_cache(call.moved, numbered=bool(call.info.numbers))
    if state.training is not None:
        for t in floats(output):
            if t.requires_grad:
                t.register_hook(partial(recall, state, call.step, call.info, call.recomputed))


@eager
def begin_encoder(
    converted: Converted, prefix: str, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """An encoder begins, inside of a call of the model or by itself: its tokens and padding are its own.

    With gradients, only if it shares no module with the rest of the model: its layers may be recomputed for them, by
    themselves, and must then be known to draw the same.

    Raises:
        BadInput: the encoder is called by itself while another thread changes settings.
    """
    state = converted.state
    if not state.in_own_call:
        state.users.begin_call()
    if prefix or not torch.is_grad_enabled():
        call = state.threads.enter()
        info = encoder_call_info(encoder, args, kwargs, converted.axis, state.call_info)
        call.encoders.append(info)
        if prefix:
            call.recomputed[prefix] = info


@eager
def finish_encoder(converted: Converted, _encoder: nn.Module, _args: object, output: object) -> None:
    """It is done. What it returns is known again where the decoder multiplies it."""
    state = converted.state
    if not state.in_own_call:
        state.users.end_call()
    call = state.threads.here.call
    if call is not None and call.encoders:
        padding = call.encoders.pop().padding
        for t in floats(output):
            state.memory.note(t, padding)


def own_prefix(model: nn.Module, part: nn.Module) -> str:
    """How names begin of what only a part of a model uses; empty if other parts use its layers, too."""
    named = list(model.named_modules(remove_duplicate=False))
    prefixes = [f"{name}." for name, module in named if module is part]
    layers = {
        id(module)
        for module in part.modules()
        if not isinstance(module, nn.Embedding) and floats([*module.parameters()])
    }
    own = all(f"{name}.".startswith(prefixes[0]) for name, module in named if id(module) in layers)
    return prefixes[0] if len(prefixes) == 1 and own else ""


def note_inputs(state: State, info: CallInfo, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Remember the inputs of a call that stand beside its tokens: features of an image, or what an encoder returned."""
    if not info.numbers:
        return
    for name, value in named_arguments(model, args, kwargs).items():
        if is_other_input(name, value):
            state.memory.note(value)
        elif name == "encoder_outputs":
            for t in tree_leaves(dict(value) if isinstance(value, Mapping) else value):
                if isinstance(t, Tensor) and t.is_floating_point():
                    state.memory.note(t, info.memory or ())


def attach_to_decoders(model: nn.Module, state: State, skip: Sequence[nn.Module]) -> None:
    """Each module that is given what its queries look at notes that, but for those in `skip`, the encoders."""
    left_out = {id(module) for part in skip for module in part.modules()}
    for module in model.modules():
        try:
            names = list(inspect.signature(module.forward).parameters)
        except (TypeError, ValueError):  # what is not written in Python
            continue
        for given in LOOKED_AT if id(module) not in left_out else ():
            if given in names:
                hook = partial(begin_decoder, state, given, names.index(given))
                module.register_forward_pre_hook(hook, with_kwargs=True)


@eager
def begin_decoder(
    state: State, name: str, place: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """A decoder, or its attention, begins: what it looks at is not its new tokens, unless it is given as these too."""
    given = args[place] if place < len(args) else kwargs.get(name)
    if not isinstance(given, Tensor):
        return
    others = (*args[:place], *args[place + 1 :], *(value for key, value in kwargs.items() if key != name))
    if not any(other is given for other in others):
        mask = token_mask(kwargs.get("encoder_attention_mask"))
        state.memory.note(given, () if mask is None else (mask,))


def recall(
    state: State, step: TrainingStep | None, info: CallInfo, recomputed: dict[str, CallInfo], _grad: Tensor
) -> None:
    """Gradients of an earlier call begin."""
    call = state.threads.call
    call.step, call.info, call.recomputed = step, info, recomputed


@eager
def enter_digital(state: State, _module: nn.Module, _args: object) -> None:
    """The products of a digital module begin."""
    state.threads.here.frames.append(None)


@eager
def leave_digital(state: State, _module: nn.Module, _args: object, _output: object) -> None:
    """They are done."""
    frames = state.threads.here.frames
    if frames:
        frames.pop()


OWN_HOOKS = (begin, finish, begin_encoder, finish_encoder, begin_decoder, enter_digital, leave_digital)
