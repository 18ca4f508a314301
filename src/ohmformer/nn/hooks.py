"""What runs around the modules of a converted model, as PyTorch's hooks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from torch import nn

from ohmformer.errors import BadInput
from ohmformer.nn.asked import asked
from ohmformer.nn.becoming import become
from ohmformer.nn.capture import DryRun
from ohmformer.nn.compiling import eager
from ohmformer.nn.generation import reorders, steady_class
from ohmformer.nn.linear import CrossbarLinear
from ohmformer.nn.multihead import CrossbarMultiheadAttention
from ohmformer.nn.operand import Operand
from ohmformer.nn.state import State


class Converted(Protocol):
    """What hooks need of a converted model."""

    state: State
    axis: int

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
        become(model, steady_class(cls))  # type: ignore[arg-type]
    modules = dict(model.named_modules())
    multiplying = {product.module for product in run.seen.products} | set(run.seen.operations)
    for name in multiplying - frames:
        if not isinstance(modules[name], (CrossbarLinear, CrossbarMultiheadAttention)):
            modules[name].register_forward_pre_hook(partial(enter_digital, converted.state))
            modules[name].register_forward_hook(partial(leave_digital, converted.state), always_call=True)


@eager
def begin(converted: Converted, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A forward pass of the whole model begins: what it asks is noted, and every operand is at its first use.

    Raises:
        BadInput: there are more or fewer names than samples.
    """
    state = converted.state
    state.said, state.inside = asked(model, args, kwargs, converted.axis), True
    state.frames.clear()
    names, rows = state.said.names, state.said.rows
    if names is not None and rows is not None and len(names) != rows:
        raise BadInput(f"samples(ids) names {len(names)} samples but the batch has {rows} rows; name one per row")
    for operand in converted.operands:
        operand.turn = 0


@eager
def finish(converted: Converted, _model: nn.Module, _args: object, _output: object) -> None:
    """The forward pass is done."""
    converted.state.inside = False


@eager
def enter_digital(state: State, _module: nn.Module, _args: object) -> None:
    """The products of a digital module begin."""
    state.frames.append(None)


@eager
def leave_digital(state: State, _module: nn.Module, _args: object, _output: object) -> None:
    """They are done."""
    if state.frames:
        state.frames.pop()


OWN_HOOKS = (begin, finish, enter_digital, leave_digital)
