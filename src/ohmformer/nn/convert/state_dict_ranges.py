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
    """Make `state_dict` and `load_state_dict` of a converted model include its calibrated ranges.

    Loading a dictionary without ranges, such as that of the digital model, leaves them unchanged.
    """
    model.register_state_dict_post_hook(partial(add_ranges, operands))
    model.register_load_state_dict_pre_hook(partial(load_ranges, operands))


def add_ranges(
    operands: Sequence[Operand], _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any
) -> None:
    """Add the ranges of all operands to a state dictionary."""
    for operand in operands:
        for name, tensor in ranges(operand).items():
            state[f"{prefix}{PREFIX}{operand.name}/{name}"] = tensor.detach()


def load_ranges(
    operands: Sequence[Operand],
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    _metadata: Any,
    _strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Load the ranges in a state dictionary, and remove them from it; if one does not fit, load none.

    A dictionary with the ranges of some operands only reports those of the others as missing.
    """
    start = prefix + PREFIX
    stored: dict[str, dict[str, Any]] = {}
    for key in [key for key in state if key.startswith(start)]:
        operand_name, _, name = key.removeprefix(start).rpartition("/")
        stored.setdefault(operand_name, {})[name] = state.pop(key)
    by_name = {operand.name: operand for operand in operands}
    for name, tensors in stored.items():
        misfit = unfit(by_name[name], tensors) if name in by_name else "operand"
        if misfit:
            errors.append(
                f"calibrated ranges of {name} ({misfit}) are those of another conversion; convert with the same "
                "hardware, rules and conditioning, or use ohmformer.save and restore"
            )
            return
    for name, tensors in stored.items():
        set_ranges(by_name[name], tensors)
    if stored:
        rest = (operand for operand in operands if operand.name not in stored)
        missing += [f"{start}{operand.name}/{name}" for operand in rest for name in ranges(operand)]
    handle = getattr(module, "ohmformer_crossbars", None)
    if stored and handle is not None:
        handle.largest_inputs.clear()  # the inputs behind the loaded ranges are unknown


RANGE_HOOKS = (add_ranges, load_ranges)
