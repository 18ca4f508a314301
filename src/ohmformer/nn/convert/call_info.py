"""What the arguments of a model say of its batch: its samples, its tokens and its padding.

Names of arguments are those of Hugging Face; models with other names are run without what they would say.
Shapes: B samples, M new tokens, N tokens in all.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.masks import allowed, seen_keys
from ohmformer.nn.operands.state import Asked
from ohmformer.streams import current_samples


def asked(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int) -> Asked:
    """What a call of a model says; `axis` is that of samples in its inputs."""
    named = _named(model, args, kwargs)
    mixed = any(name.startswith("decoder_") and value is not None for name, value in named.items())
    prefix = "decoder_" if mixed else ""
    tokens = _tokens(named, prefix)
    rows = _rows([args, dict(kwargs)] if tokens is None else tokens, axis)
    said = named.get(f"{prefix}attention_mask")
    mask = _mask(said)
    alone = not any(_continuous(name, value) for name, value in named.items())
    padding: tuple[Tensor, ...] = (mask,) if mask is not None and alone else ()
    other = _mask(named.get("attention_mask")) if alone else None
    memory = None if not mixed else () if other is None else (other,)
    cache = named.get("past_key_values")
    past = _cached(cache)
    cached = cache is not None or named.get("use_cache") is True
    if tokens is None or rows is None or axis != 0 or tokens.shape[0] != rows:
        return Asked(current_samples(), rows, padding=padding, memory=memory, cached=cached)
    M = tokens.shape[1]
    if mask is not None and mask.shape[0] == rows and mask.shape[1] >= M:
        count = mask.long().cumsum(dim=1)
        numbers = torch.where(mask, count - 1, -1)[:, -M:].tolist()
        written = () if mixed else tuple(count[:, -1].tolist())
    else:
        numbers, written = [list(range(past, past + M))] * rows, (past + M,) * rows
        seen = _seen(said, rows, M)
        positions = named.get("position_ids")
        if seen is not None and isinstance(positions, Tensor) and _in_order(positions, seen):
            numbers = torch.where(seen, positions, -1).tolist()
            written = tuple(max(0, 1 + max(row)) for row in numbers)
            padding = _keys(said)
    found = tuple(tuple(row) for row in numbers)
    return Asked(current_samples(), rows, found, written, padding, memory, cached)


def asked_of_encoder(
    encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int, around: Asked
) -> Asked:
    """What a call of an encoder says, by itself or inside of a call of the model; its tokens do not come one by one."""
    found = asked(encoder, args, kwargs, axis)
    names = found.names if around.rows != found.rows or around.names is None else around.names
    return Asked(names, found.rows, padding=found.padding)


def _cached(cache: Any) -> int:
    """Tokens in a cache: one that says so, or keys and values [B, H, N, d] in tuples or lists."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    keys = next((leaf for leaf in tree_leaves(cache) if isinstance(leaf, Tensor) and leaf.dim() == 4), None)
    return 0 if keys is None else int(keys.shape[-2])


def _named(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    if not args:
        return kwargs
    try:
        return inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return kwargs


def _rows(arguments: Any, axis: int) -> int | None:
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor) and leaf.dim() > axis:
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


def _keys(value: Any) -> tuple[Tensor, ...]:
    """Which keys [B, N] anything sees, for each of the masks [B, 1, M, N] of a model's layers; the widest first."""
    masks = list(value.values()) if isinstance(value, Mapping) else [value]
    found = [seen_keys(mask) for mask in masks if isinstance(mask, Tensor) and mask.dim() == 4]
    return tuple(sorted(found, key=lambda keys: -int(keys.sum())))


def _seen(value: Any, rows: int, M: int) -> Tensor | None:
    """Which of the new tokens [B, M] are none of padding, from a mask [B, 1, M, N] that says what each may see.

    Where layers have masks of their own, the first one decides: tokens that see nothing in one see nothing in all.
    """
    mask = next(iter(value.values()), None) if isinstance(value, Mapping) else value
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[0] != rows or mask.shape[2] != M:
        return None
    return allowed(mask).any(dim=-1).any(dim=1)


def _in_order(positions: Tensor, seen: Tensor) -> bool:
    """Whether positions [B, M] number the tokens that are no padding one by one."""
    if positions.shape != seen.shape:
        return False
    steps = positions.diff(dim=1) == 1
    return bool((steps | ~seen[:, 1:] | ~seen[:, :-1]).all()) and bool((seen[:, 1:] | ~seen[:, :-1]).all())


def _mask(value: Any) -> Tensor | None:
    """A mask [B, N] of what holds something; others are the model's own affair."""
    if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point():
        return value.bool()
    return None
