"""Revert a conversion: make a digital model around the parameters of a converted one."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ohmformer.capture.torch_private import post_hooks, pre_hooks, state_dict_hooks
from ohmformer.nn.calls.hooks import CROSSBAR_HOOKS
from ohmformer.nn.convert.handle import Handle, handle_of
from ohmformer.nn.convert.release import check_kept
from ohmformer.nn.convert.sharing import Model, share_parameters
from ohmformer.nn.convert.state_dict_ranges import RANGE_HOOKS
from ohmformer.nn.modules.class_swap import added_values, converted_part, restore_class
from ohmformer.nn.modules.describing import forget_note


def revert(model: Model) -> Model:
    """Make a digital model around the parameters of a converted one.

    Parameters stay shared, so training of the converted model is included. `model` stays converted. Changes that were
    made to the converted model, such as another head or parametrized weights, are kept.

    Args:
        model: a converted model, a part of it, or a model with converted parts.

    Returns:
        A model with the classes, names and values of a digital one; it computes the same bits as the original would.

    Raises:
        BadInput: no part of the model was converted, its weights were given up (`keep_original=False`), or it cannot be
            copied, such as after pruning of weights.
    """
    if not isinstance(model, nn.Module) or converted_part(model) is None:
        handle_of(model)
    check_kept(model, "revert")
    digital = share_parameters(model, *_added_objects(model))
    for module in digital.modules():
        _drop_hooks(*pre_hooks(module))
        _drop_hooks(*post_hooks(module))
        for hooks in state_dict_hooks(module):
            _drop_hooks(hooks, {})
        restore_class(module)
        forget_note(module)
        vars(module).pop("ohmformer_crossbars", None)
    return digital


def _added_objects(model: nn.Module) -> list[object]:
    """Return the objects that the conversion added to a model, which a digital copy does not need."""
    added: list[object] = []
    for module in model.modules():
        for value in added_values(module):
            added += [value, value.state, *value.operands] if isinstance(value, Handle) else [value]
        for hooks, _ in (pre_hooks(module), post_hooks(module)):
            ours = (h for h in hooks.values() if isinstance(h, partial) and h.func in CROSSBAR_HOOKS)
            added += [hook.args[0] for hook in ours]
    return added


def _drop_hooks(hooks: dict[int, Any], marks: dict[int, Any]) -> None:
    """Remove the hooks of conversions from a table of hooks, and from the table that marks some of them."""
    for key, hook in list(hooks.items()):
        hook = getattr(hook, "hook", hook)
        if (hook.func if isinstance(hook, partial) else hook) in (*CROSSBAR_HOOKS, *RANGE_HOOKS):
            del hooks[key]
            marks.pop(key, None)
