"""What runs around the modules of a converted model, as PyTorch's hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from threading import get_ident
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.torch_private import in_backward
from ohmformer.errors import BadInput
from ohmformer.nn.convert.beam_search_guard import check_cache, guarded_class, reorders
from ohmformer.nn.convert.call_info import call_info, encoder_call_info
from ohmformer.nn.convert.self_check import floats
from ohmformer.nn.modules.class_swap import swap_class
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.linear import CrossbarLinear
from ohmformer.nn.modules.multihead_attention import CrossbarMultiheadAttention
from ohmformer.nn.modules.structure import Structure
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.plain_calls import refuse_transforms, refuse_valueless
from ohmformer.nn.operands.state import CallInfo, State, TrainingStep


class Converted(Protocol):
    """What hooks need of a converted model."""

    state: State
    axis: int
    structure: Structure

    @property
    def operands(self) -> Sequence[Operand]:
        """All that lives on crossbars."""


def attach(model: nn.Module, converted: Converted, run: DryRun, frames: set[str]) -> None:
    """Each call of the whole model says what it asks; digital products are not taken for those of modules around them.

    `frames` are the names of the modules that intercept.
    """
    model.register_forward_pre_hook(partial(begin, converted), with_kwargs=True)
    model.register_forward_hook(partial(finish, converted), always_call=True)
    if reorders(model):
        cls: type[nn.Module] = type(model)
        swap_class(model, guarded_class(cls))  # type: ignore[arg-type]
    encoder = encoder_of(model)
    if encoder is not None:
        encoder.register_forward_pre_hook(partial(begin_encoder, converted), with_kwargs=True)
        encoder.register_forward_hook(partial(finish_encoder, converted), always_call=True)
    modules = dict(model.named_modules())
    multiplying = {product.module for product in run.seen.products} | set(run.seen.operations)
    for name in multiplying - frames:
        if not isinstance(modules[name], (CrossbarLinear, CrossbarMultiheadAttention)):
            modules[name].register_forward_pre_hook(partial(enter_digital, converted.state))
            modules[name].register_forward_hook(partial(leave_digital, converted.state), always_call=True)


@eager
def begin(converted: Converted, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A forward pass of the whole model begins: what it asks is noted, and every operand is at its first use.

    In variation-aware training it is the next step, unless it is recomputed for the gradients of one.

    Raises:
        BadInput: there are more or fewer names than samples, or the model has been changed since its conversion,
            or it is called inside a transform of PyTorch, or without values.
    """
    refuse_transforms(*args, *kwargs.values())
    refuse_valueless((args, kwargs))
    converted.structure.check(model)
    state = converted.state
    state.callers.add(get_ident())
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
    call.uses.clear()
    state.threads.here.frames.clear()
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
    call = state.threads.call
    call.active = False
    state.callers.discard(get_ident())
    check_cache(call.moved, numbered=bool(call.info.numbers))
    if state.training is not None:
        for t in floats(output):
            if t.requires_grad:
                t.register_hook(partial(recall, state, call.step, call.info))


def encoder_of(model: nn.Module) -> nn.Module | None:
    """The encoder of a model of Hugging Face that has a decoder too, which `generate` calls by itself."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False) or not hasattr(model, "get_encoder"):
        return None
    try:
        found = model.get_encoder()  # type: ignore[operator]
    except Exception:  # a library's own affair
        return None
    return found if isinstance(found, nn.Module) and found is not model else None


@eager
def begin_encoder(converted: Converted, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """An encoder begins, inside of a call of the model or by itself: its tokens and padding are its own.

    Not with gradients: layers that are recomputed for them are called without it, and must draw the same.
    """
    state = converted.state
    if not torch.is_grad_enabled():
        call = state.threads.enter()
        call.encoders.append(encoder_call_info(encoder, args, kwargs, converted.axis, state.call_info))


@eager
def finish_encoder(converted: Converted, _encoder: nn.Module, _args: object, output: object) -> None:
    """It is done. What it returns is known again where the decoder multiplies it."""
    state = converted.state
    encoders = state.threads.call.encoders
    padding = encoders.pop().padding if encoders else ()
    for t in floats(output) if padding else ():
        if t.shape[:2] == padding[0].shape:
            state.padded[t] = padding[0]


def recall(state: State, step: TrainingStep | None, info: CallInfo, _grad: Tensor) -> None:
    """Gradients of an earlier call begin."""
    call = state.threads.call
    call.step, call.info = step, info


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


OWN_HOOKS = (begin, finish, begin_encoder, finish_encoder, enter_digital, leave_digital)
