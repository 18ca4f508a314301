"""The way back: the digital model that a converted one was."""

from __future__ import annotations

from functools import partial
from typing import Any

from ohmformer.capture.torch_private import post_hooks, pre_hooks, state_dict_hooks
from ohmformer.nn.convert.handle import handle_of
from ohmformer.nn.convert.hooks import OWN_HOOKS
from ohmformer.nn.convert.sharing import Model, share_parameters
from ohmformer.nn.convert.state_dict_ranges import OWN_STATE_HOOKS
from ohmformer.nn.describing import forget_note
from ohmformer.nn.modules.class_swap import restore_class


def revert(model: Model) -> Model:
    """The digital model around the parameters of a converted one: its classes, names and values, bit for bit.

    Parameters stay shared, so if the converted model was trained, so was this one. `model` stays converted. Changes
    that were made to the converted model, such as another head, are kept.

    Raises:
        BadInput: the model was not converted.
    """
    found = handle_of(model)
    digital = share_parameters(model, found, found.state, *found.operands)
    for module in digital.modules():
        _drop_hooks(*pre_hooks(module))
        _drop_hooks(*post_hooks(module))
        for hooks in state_dict_hooks(module):
            _drop_hooks(hooks, {})
        restore_class(module)
        forget_note(module)
    del digital.ohmformer_crossbars
    return digital


def _drop_hooks(hooks: dict[int, Any], marked: dict[int, Any]) -> None:
    for key, hook in list(hooks.items()):
        hook = getattr(hook, "hook", hook)
        if (hook.func if isinstance(hook, partial) else hook) in (*OWN_HOOKS, *OWN_STATE_HOOKS):
            del hooks[key]
            marked.pop(key, None)
