"""Hooks of PyTorch's transformer layers, whose own masks say which of their tokens are padding.

Models of Hugging Face name that mask among the arguments of the whole model, where `call_info` reads it. The layers of
PyTorch get it one by one, whatever the model around them calls it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from ohmformer.nn.calls.call_info import named_arguments
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.multihead_attention import not_padding
from ohmformer.nn.shared.memory import Mask
from ohmformer.nn.shared.state import State

MASKS: dict[type[nn.Module], str] = {
    nn.TransformerEncoderLayer: "src_key_padding_mask",
    nn.TransformerDecoderLayer: "tgt_key_padding_mask",
}
"""Layer -> its argument that hides padding [B, N] among its tokens."""


def attach_to_padded_layers(model: nn.Module, state: State) -> None:
    """Attach hooks to every transformer layer of PyTorch in a model."""
    for module in model.modules():
        for cls, name in MASKS.items():
            if isinstance(module, cls):
                module.register_forward_pre_hook(partial(begin_layer, state, name), with_kwargs=True)
                hook = partial(finish_layer, state, name)
                module.register_forward_hook(hook, with_kwargs=True, always_call=True)


@eager
def begin_layer(state: State, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Begin a layer: note which of its tokens are padding, so that these draw no read noise.

    Args:
        state: the state of the model.
        name: the argument that hides padding.
        module: the layer.
        args: positional arguments of the call.
        kwargs: its keyword arguments.
    """
    mask = _token_mask(name, module, args, kwargs)
    if mask:
        state.threads.call.encoders.append(replace(state.call_info, token_mask=mask))


@eager
def finish_layer(
    state: State, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _output: object
) -> None:
    """End a layer; the arguments are those of `begin_layer`."""
    encoders = state.threads.call.encoders
    if encoders and _token_mask(name, module, args, kwargs):
        encoders.pop()


def _token_mask(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mask:
    """The mask [B, N] of a call, True at tokens; empty without one."""
    mask = named_arguments(module, args, kwargs).get(name)
    return not_padding(mask) if isinstance(mask, Tensor) else ()
