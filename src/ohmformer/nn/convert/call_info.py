"""What the arguments of a model say of its batch: its samples, its tokens and its padding.

Names of arguments are those of Hugging Face; models with other names are run without what they would say.
Shapes: B samples, M new tokens, N tokens in all.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.opaque_tensors import shape_of
from ohmformer.nn.operands.state import CallInfo
from ohmformer.nn.operands.token_numbers import numbered, token_mask
from ohmformer.streams import current_samples


def call_info(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int) -> CallInfo:
    """What a call of a model says; `axis` is that of samples in its inputs."""
    named = _named(model, args, kwargs)
    mixed, alone = False, True  # with inputs for a decoder; without continuous inputs, such as images
    for name, value in named.items():
        mixed = mixed or (name.startswith("decoder_") and value is not None)
        alone = alone and not _continuous(name, value)
    prefix = "decoder_" if mixed else ""
    tokens = _tokens(named, prefix)
    rows = _rows([args, dict(kwargs)] if tokens is None else tokens, axis)
    said = named.get(f"{prefix}attention_mask")
    mask = token_mask(said)
    padding: tuple[Tensor, ...] = (mask,) if mask is not None and alone else ()
    other = token_mask(named.get("attention_mask")) if alone else None
    memory = None if not mixed else () if other is None else (other,)
    cache, position = named.get("past_key_values"), named.get("cache_position")
    cached = cache is not None or named.get("use_cache") is True
    M = tokens.shape[1] if tokens is not None else position.shape[-1] if isinstance(position, Tensor) else None
    if M is None or rows is None or axis != 0 or (tokens is not None and tokens.shape[0] != rows):
        return CallInfo(current_samples(), rows, padding=padding, memory=memory, cached=cached)
    own_cache = cache is None and not _takes_cache(model)
    new = numbered(named, said, rows, M, own_cache=own_cache)
    return CallInfo(
        current_samples(),
        rows,
        new.numbers,
        () if mixed and mask is not None else new.totals,
        new.padding if alone or mask is None else (),
        memory,
        cached,
        ring=own_cache and isinstance(position, Tensor),
    )


def encoder_call_info(
    encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int, around: CallInfo
) -> CallInfo:
    """What a call of an encoder says, by itself or inside of a call of the model; its tokens do not come one by one."""
    found = call_info(encoder, args, kwargs, axis)
    names = found.names if around.rows != found.rows or around.names is None else around.names
    return CallInfo(names, found.rows, padding=found.padding)


def drop_parts_of_texts(run: DryRun, model: nn.Module, sample: Any) -> None:
    """Only where the keys are those of a whole text do tokens come one by one; elsewhere attention is not causal.

    Queries of a window, which is folded among samples or heads, are fewer than the tokens of the sample; where nothing
    names those, they have more keys than queries, though there is no cache. What is the same for all samples, such as
    codes of distances, is no text.
    """
    named = dict(sample) if isinstance(sample, Mapping) else {}
    args = () if named else tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    said = call_info(model, args, named, run.axis)
    for product in run.seen.products:
        if product.causal and product.left is not None and product.right is not None:
            M = product.left.shape[-2]
            N = product.left.shape[-1] if product.role == "value" else product.right.shape[-2]
            whole = len(said.numbers[0]) <= M if said.numbers else N == M or said.cached
            product.causal = whole and (product.role != "key" or run.places[product].right is not None)


def _named(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    if not args:
        return kwargs
    try:
        return inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return kwargs


def _takes_cache(model: nn.Module) -> bool:
    """True if the model has an argument for its cache, so that it has none where a call gives none."""
    return "past_key_values" in inspect.signature(model.forward).parameters


def _rows(arguments: Any, axis: int) -> int | None:
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor) and len(shape_of(leaf)) > axis:
            return int(leaf.shape[axis])
    return None


def _tokens(named: Mapping[str, Any], prefix: str) -> Tensor | None:
    for name in (f"{prefix}input_ids", f"{prefix}inputs_embeds"):
        value = named.get(name)
        if isinstance(value, Tensor) and value.dim() >= 2:
            return value
    return None


def _continuous(name: str, value: Any) -> bool:
    """Whether an input is none of tokens, such as images: masks of tokens do not speak of it."""
    tokens = name.endswith(("inputs_embeds", "mask"))
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 2 and not tokens
