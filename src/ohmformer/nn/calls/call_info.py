"""Samples, tokens and padding of a batch, read from the arguments of a call of the model.

Arguments are recognized by their names in Hugging Face; others are not interpreted.
Shapes: B samples, M new tokens, N tokens in all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from ohmformer.capture.opaque_tensors import shape_of
from ohmformer.capture.torch_private import tree_leaves
from ohmformer.nn.operands.token_numbers import as_token_mask, numbered
from ohmformer.nn.shared.memory import Mask
from ohmformer.nn.shared.state import CallInfo
from ohmformer.streams import current_samples

OTHER_INPUTS = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "flattened_patches")
"""Arguments of Hugging Face that hold images or sound."""
WORDS = ("input_ids", "inputs_embeds", "decoder_input_ids")
"""Arguments of Hugging Face that hold words."""


def call_info(model: nn.Module, named: Mapping[str, Any], inputs: Any, axis: int) -> CallInfo:
    """Read the arguments of a call of a model.

    Args:
        model: the model.
        named: the arguments by name, see `named_arguments`.
        inputs: all arguments, from which samples are counted if none holds tokens.
        axis: the axis of the inputs that holds the samples.
    """
    has_decoder_inputs, only_tokens = False, True
    for name, value in named.items():
        has_decoder_inputs = has_decoder_inputs or (name.startswith("decoder_") and value is not None)
        only_tokens = only_tokens and not is_other_input(name, value)
    prefix = "decoder_" if has_decoder_inputs else ""
    tokens = _tokens(named, prefix)
    B = _batch_size(inputs if tokens is None else tokens, axis)
    mask_argument = named.get(f"{prefix}attention_mask")
    mask = as_token_mask(mask_argument)
    new_mask: Mask = (mask,) if mask is not None and only_tokens else ()
    encoder_mask = as_token_mask(named.get("attention_mask")) if only_tokens else None
    memory_mask = None if not has_decoder_inputs else () if encoder_mask is None else (encoder_mask,)
    cache, position = named.get("past_key_values"), named.get("cache_position")
    cached = cache is not None or named.get("use_cache") is True
    M = tokens.shape[1] if tokens is not None else position.shape[-1] if isinstance(position, Tensor) else None
    if M is None or B is None or axis != 0 or (tokens is not None and tokens.shape[0] != B):
        return CallInfo(current_samples(), B, token_mask=new_mask, memory_mask=memory_mask, cached=cached)
    own_cache = cache is None and not _takes_cache(model)
    new = numbered(named, mask_argument, B, M, own_cache=own_cache)
    return CallInfo(
        current_samples(),
        B,
        new.numbers,
        () if has_decoder_inputs and mask is not None else new.tokens_so_far,
        new.token_mask if only_tokens or mask is None else (),
        memory_mask,
        cached,
        ring=own_cache and isinstance(position, Tensor),
    )


def encoder_call_info(
    encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int, model_info: CallInfo
) -> CallInfo:
    """Read the arguments of a call of an encoder, whose tokens never come one by one.

    Args:
        encoder: the encoder.
        args: positional arguments of the call.
        kwargs: its keyword arguments.
        axis: the axis of its inputs that holds the samples.
        model_info: the call of the model around it; empty if the encoder is called separately.
    """
    info = call_info(encoder, named_arguments(encoder, args, kwargs), [args, dict(kwargs)], axis)
    names = info.names if model_info.batch_size != info.batch_size or model_info.names is None else model_info.names
    return CallInfo(names, info.batch_size, token_mask=info.token_mask, at_once=True)


def encoder_of(model: nn.Module) -> nn.Module | None:
    """Return the encoder of an encoder-decoder of Hugging Face, which `generate` calls separately; None for others."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False) or not hasattr(model, "get_encoder"):
        return None
    try:
        encoder = model.get_encoder()  # type: ignore[operator]
    except Exception:  # code of a library or a user may raise anything
        return None
    return encoder if isinstance(encoder, nn.Module) and encoder is not model else None


def encoders_of(model: nn.Module) -> list[nn.Module]:
    """Return the parts of a model whose tokens all come at once: its encoder, and its towers for images or sound.

    A tower is an outermost submodule whose forward takes images or sound, and no words.
    """
    encoder = encoder_of(model)
    encoders = [] if encoder is None else [encoder]
    inside = {id(module) for part in encoders for module in part.modules()}
    for module in model.modules():
        if module is model or id(module) in inside:
            continue
        try:
            names = forward_signature(module).parameters.keys()
        except (TypeError, ValueError):  # a forward that is not written in Python
            continue
        if not names.isdisjoint(OTHER_INPUTS) and names.isdisjoint(WORDS):
            encoders.append(module)
            inside |= {id(part) for part in module.modules()}
    return encoders


def named_arguments(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a call by their names in the signature of the model's forward."""
    if not args:
        return kwargs
    try:
        return forward_signature(model).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return kwargs


def _takes_cache(model: nn.Module) -> bool:
    """True if the model takes its cache as an argument, so that a call without the argument has no cache."""
    return "past_key_values" in forward_signature(model).parameters


def forward_signature(model: nn.Module) -> inspect.Signature:
    """Return the signature of a model's forward, without `self`.

    Raises:
        TypeError: the forward is not written in Python.
        ValueError: the forward is not written in Python.
    """
    function = getattr(model.forward, "__func__", None)
    return inspect.signature(model.forward) if function is None else _method_signature(function)


@lru_cache(maxsize=1024)
def _method_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a method without `self`; cached, since reading it takes as long as a small layer."""
    signature = inspect.signature(function)
    first, *others = signature.parameters.values()
    return signature if first.kind is first.VAR_POSITIONAL else signature.replace(parameters=others)


def _batch_size(arguments: Any, axis: int) -> int | None:
    """Return the length of the first tensor along this axis; None if no tensor has the axis."""
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor) and len(shape_of(leaf)) > axis:
            return int(leaf.shape[axis])
    return None


def _tokens(named: Mapping[str, Any], prefix: str) -> Tensor | None:
    """Return the words [B, M] or their embeddings [B, M, features]; None without them."""
    for name in (f"{prefix}input_ids", f"{prefix}inputs_embeds"):
        value = named.get(name)
        if isinstance(value, Tensor) and value.dim() >= 2:
            return value
    return None


def is_other_input(name: str, value: Any) -> bool:
    """True if an input is not token data, such as an image, so that masks of tokens do not apply to it."""
    per_token = name.endswith(("inputs_embeds", "mask"))
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 2 and not per_token
