"""Calibrated ranges in the state dictionary of a converted model, as keys `ohmformer_ranges.OPERAND/NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.ranges import ranges, set_ranges, unfit

PREFIX = "ohmformer_ranges."


def attach_ranges(model: nn.Module, operands: Sequence[Operand]) -> None:
    """Let `state_dict` and `load_state_dict` of a converted model carry its calibrated ranges.

    A dictionary without ranges, such as that of the digital model, leaves them as they are.
    """
    model.register_state_dict_post_hook(partial(put, operands))
    model.register_load_state_dict_pre_hook(partial(take, operands))


def put(operands: Sequence[Operand], _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Put the ranges of all operands into a state dictionary."""
    for operand in operands:
        for name, tensor in ranges(operand).items():
            state[f"{prefix}{PREFIX}{operand.name}/{name}"] = tensor.detach()


def take(
    operands: Sequence[Operand],
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    _metadata: Any,
    _strict: bool,
    _missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Take ranges out of a state dictionary that is loaded; all of them, or none if one does not fit."""
    start = prefix + PREFIX
    stored: dict[str, dict[str, Any]] = {}
    for key in [key for key in state if key.startswith(start)]:
        operand_name, _, name = key.removeprefix(start).rpartition("/")
        stored.setdefault(operand_name, {})[name] = state.pop(key)
    named = {operand.name: operand for operand in operands}
    for name, tensors in stored.items():
        wrong = unfit(named[name], tensors) if name in named else "operand"
        if wrong:
            errors.append(
                f"calibrated ranges of {name} ({wrong}) are those of another conversion; convert with the same "
                "hardware, rules and conditioning, or use ohmformer.save and restore"
            )
            return
    for name, tensors in stored.items():
        set_ranges(named[name], tensors)
    found = getattr(module, "ohmformer_crossbars", None)
    if stored and found is not None:
        found.largest_inputs.clear()  # what those ranges were calibrated on is not known


OWN_STATE_HOOKS = (put, take)
