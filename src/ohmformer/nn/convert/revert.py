"""The way back: the digital model that a converted one was."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ohmformer.capture.torch_private import post_hooks, pre_hooks, state_dict_hooks
from ohmformer.nn.convert.handle import Crossbars, handle_of
from ohmformer.nn.convert.hooks import OWN_HOOKS
from ohmformer.nn.convert.sharing import Model, share_parameters
from ohmformer.nn.convert.state_dict_ranges import OWN_STATE_HOOKS
from ohmformer.nn.describing import forget_note
from ohmformer.nn.modules.class_swap import converted_part, own_attributes, restore_class


def revert(model: Model) -> Model:
    """The digital model around the parameters of a converted one: its classes, names and values, bit for bit.

    Parameters stay shared, so if the converted model was trained, so was this one. `model` stays converted. Changes
    that were made to the converted model, such as another head or parametrized weights, are kept.

    Args:
        model: what `convert` returned, a part of it, or a model with converted parts.

    Raises:
        BadInput: nothing of the model was converted, or it cannot be copied, since weights were pruned or normalized.
    """
    if not isinstance(model, nn.Module) or converted_part(model) is None:
        handle_of(model)
    digital = share_parameters(model, *_shared(model))
    for module in digital.modules():
        _drop_hooks(*pre_hooks(module))
        _drop_hooks(*post_hooks(module))
        for hooks in state_dict_hooks(module):
            _drop_hooks(hooks, {})
        restore_class(module)
        forget_note(module)
        vars(module).pop("ohmformer_crossbars", None)
    return digital


def _shared(model: nn.Module) -> list[object]:
    """What the conversion added to a model, which need not be copied."""
    found: list[object] = []
    for module in model.modules():
        for value in own_attributes(module):
            found += [value, value.state, *value.operands] if isinstance(value, Crossbars) else [value]
        for hooks, _ in (pre_hooks(module), post_hooks(module)):
            found += [hook.args[0] for hook in hooks.values() if isinstance(hook, partial) and hook.func in OWN_HOOKS]
    return found


def _drop_hooks(hooks: dict[int, Any], marked: dict[int, Any]) -> None:
    for key, hook in list(hooks.items()):
        hook = getattr(hook, "hook", hook)
        if (hook.func if isinstance(hook, partial) else hook) in (*OWN_HOOKS, *OWN_STATE_HOOKS):
            del hooks[key]
            marked.pop(key, None)
