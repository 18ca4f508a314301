"""Samples, tokens and padding of a batch, read from the arguments of a call of the model.

Arguments are recognized by their names in Hugging Face; others are not interpreted.
Shapes: B samples, M new tokens, N tokens in all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.opaque_tensors import shape_of
from ohmformer.capture.product import Product
from ohmformer.nn.operands.memory import Mask
from ohmformer.nn.operands.state import CallInfo
from ohmformer.nn.operands.token_numbers import as_token_mask, numbered
from ohmformer.streams import current_samples

OTHER_INPUTS = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "flattened_patches")
"""Arguments of Hugging Face that hold images or sound."""
WORDS = ("input_ids", "inputs_embeds", "decoder_input_ids")
"""Arguments of Hugging Face that hold words."""
ATTENTION = ("attention", "multihead attention")
"""Kinds of products that are whole attentions."""


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


def unmark_partial_attention(run: DryRun, model: nn.Module, sample: Any) -> None:
    """Mark attention as not causal if its keys are not the tokens of a whole text.

    Two cases are recognized. In a window, which is folded among samples or heads, there are fewer queries than tokens
    in the sample, or, if nothing numbers these, more keys than queries although there is no cache. And keys that are
    the same for all samples, such as codes of relative positions, are not text.
    """
    named = dict(sample) if isinstance(sample, Mapping) else {}
    args = () if named else tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    info = call_info(model, named_arguments(model, args, named), [args, named], run.axis)
    for product in run.seen.products:
        if product.causal and product.left is not None and product.right is not None:
            M = product.left.shape[-2]
            N = product.left.shape[-1] if product.role == "value" else product.right.shape[-2]
            whole_text = len(info.numbers[0]) <= M if info.numbers else N == M or info.cached
            product.causal = whole_text and (product.role != "key" or run.places[product].right is not None)


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


def mark_cross_attention(run: DryRun, model: nn.Module, sample: Any) -> None:
    """Mark the products Q K^T whose keys belong to other tokens than the queries (`Product.across`).

    Only models whose queries may come one by one have such marks.
    """
    one_by_one = any(p.causal for p in run.seen.products) or all_cross_attention(run, sample)
    encoder = encoder_of(model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is encoder), None)
    for p in run.seen.products if one_by_one else ():
        if (p.kind in ATTENTION or p.role == "key") and not p.causal:
            in_decoder = prefix is not None and not f"{p.module}.".startswith(prefix)
            p.across = in_decoder or (prefix is None and _has_other_keys(p))


def all_cross_attention(run: DryRun, sample: Any) -> bool:
    """True if all attention of the model is cross attention, so that queries do not depend on one another.

    Queries and keys then come from different inputs, and differ on the sample in number or in value.
    """
    inputs = [leaf for leaf in tree_leaves(dict(sample) if isinstance(sample, Mapping) else sample)
              if isinstance(leaf, Tensor) and leaf.dim() > 1]  # fmt: skip
    crosses = [_has_other_keys(p) for p in run.seen.products if p.kind in ATTENTION or p.role == "key"]
    return len(inputs) > 1 and bool(crosses) and all(crosses)


def _has_other_keys(product: Product) -> bool:
    """True if the shapes or values of a product Q K^T show that the keys belong to other tokens than the queries."""
    left, right = product.left, product.right
    if left is None or right is None or len(left.shape) != len(right.shape):
        return False
    if left.shape[-2] != right.shape[-2]:
        return True
    same = left.values.shape == right.values.shape and torch.equal(left.values, right.values)
    return product.kind == "multihead attention" and not same


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
