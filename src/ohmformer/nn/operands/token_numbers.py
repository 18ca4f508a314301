"""The number of each new token among the tokens of its sample, without padding, from the arguments of a call.

Names of arguments are those of Hugging Face. Shapes: B samples, M new tokens, L tokens that a mask covers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.masks import allowed, seen_keys
from ohmformer.capture.torch_private import tree_leaves
from ohmformer.errors import BadInput
from ohmformer.nn.shared.memory import Mask

Numbers = tuple[tuple[int, ...], ...]
"""For each sample the number of the token at each place, negative where there is none."""


@dataclass(frozen=True)
class Numbered:
    """The new tokens of a call.

    Attributes:
        numbers: for each sample, the numbers of its M new tokens; -1 at padding.
        tokens_so_far: for each sample, its number of tokens at the end of the call, cached ones included.
        slots: how many slots of a cache are in use by then, padding included.
        token_mask: [B, slots] True where a slot holds a token; empty if no argument tells.
    """

    numbers: Numbers
    tokens_so_far: tuple[int, ...]
    slots: int
    token_mask: Mask = ()


def numbered(named: Mapping[str, Any], mask: Any, B: int, M: int, *, own_cache: bool = False) -> Numbered:
    """The numbers of M new tokens of each sample.

    The first of these that a call has decides: a mask [B, L]; `position_ids` beside a mask [B, 1, M, N]; such a mask
    alone; `cache_position`; the number of tokens that the cache reports, or its size.

    Args:
        named: the arguments of the call.
        mask: the tokens that are seen: [B, L], [B, 1, M, N], or one of these for each kind of layer.
        B: number of samples.
        M: number of new tokens.
        own_cache: the model may keep a cache that the call does not show.

    Raises:
        BadInput: the mask has fewer columns than there are tokens.
    """
    cache, positions = named.get("past_key_values"), _positions(named.get("cache_position"), M)
    past = cached_tokens(cache)
    begin = past if positions is None else int(positions[0, 0])
    flat = as_token_mask(mask)
    if flat is not None and flat.shape[0] == B and flat.shape[1] >= M:
        shown = hasattr(cache, "get_seq_length") or (cache is None and not own_cache)
        if positions is None and not shown:
            begin = flat.shape[1] - M  # a cache of tensors may have slots to spare, or have lost its oldest tokens
        return _counted(flat, begin, M)
    slots, seen = begin + M, _seen(mask, B, M)
    if seen is not None:
        position_ids = named.get("position_ids")
        if isinstance(position_ids, Tensor) and _in_order(position_ids, seen):
            numbers = _tuples(torch.where(seen, position_ids, -1))
            return Numbered(numbers, tuple(max(0, 1 + max(row)) for row in numbers), slots, _keys(mask))
        if position_ids is None and _keys(mask)[0].shape == (B, slots):
            return _counted(_keys(mask)[0], begin, M)
    if positions is not None:
        numbers = _tuples(positions.expand(B, M))
    elif past and not hasattr(cache, "get_seq_length") and _beyond(named.get("position_ids"), B, M, past):
        numbers = _tuples(named["position_ids"])  # the cache is a window that has lost its oldest tokens
    else:
        numbers = (tuple(range(past, past + M)),) * B
    return Numbered(numbers, tuple(1 + max(row) for row in numbers), slots)


def cached_tokens(cache: Any) -> int:
    """Number of tokens in a cache that reports it, or that holds keys and values [B, H, N, d] in tuples or lists."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        try:
            return int(cache.get_seq_length())
        except ValueError:  # Hugging Face: none of its layers holds K and V
            return 0
    keys = next((leaf for leaf in tree_leaves(cache) if isinstance(leaf, Tensor) and leaf.dim() == 4), None)
    return 0 if keys is None else int(keys.shape[-2])


def as_token_mask(value: Any) -> Tensor | None:
    """A mask [B, L], True where there is a token; None if the value is not such a mask."""
    if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point():
        return value.bool()
    return None


def _counted(mask: Tensor, begin: int, M: int) -> Numbered:
    """The numbers of tokens along a mask [B, L] of which M, from `begin` on, are new."""
    slots = begin + M
    if mask.shape[1] < slots:
        raise BadInput(
            f"attention_mask has {mask.shape[1]} columns, but with the {begin} tokens of the cache and {M} new ones "
            f"there are {slots}; give it one column for each"
        )
    mask = mask[:, :slots]
    count = mask.long().cumsum(dim=1)
    numbers = torch.where(mask, count - 1, -1)[:, begin:]
    return Numbered(_tuples(numbers), tuple(count[:, -1].tolist()), slots, (mask,))


def _positions(value: Any, M: int) -> Tensor | None:
    """`cache_position` [M] or [B, M] as [1 or B, M]; None without one."""
    if not isinstance(value, Tensor) or value.is_floating_point() or value.dim() not in (1, 2) or value.shape[-1] != M:
        return None
    return value.reshape(-1, M)


def _tuples(numbers: Tensor) -> Numbers:
    return tuple(tuple(row) for row in numbers.tolist())


def _beyond(positions: Any, B: int, M: int, past: int) -> bool:
    """True if position_ids [B, M] show that there were more tokens than the `past` ones of the cache."""
    return isinstance(positions, Tensor) and positions.shape == (B, M) and bool((positions[:, 0] > past).all())


def _keys(value: Any) -> tuple[Tensor, ...]:
    """For each mask [B, 1, M, N] of a model's layers, [B, N] True for keys that any query sees; the widest first."""
    masks = list(value.values()) if isinstance(value, Mapping) else [value]
    seen = [seen_keys(mask) for mask in masks if isinstance(mask, Tensor) and mask.dim() == 4]
    return tuple(sorted(seen, key=lambda keys: -int(keys.sum())))


def _seen(value: Any, B: int, M: int) -> Tensor | None:
    """[B, M] True for new tokens that see anything, from a mask [B, 1, M, N]: padding sees nothing.

    Of several masks, one for each kind of layer, the first of this shape decides: what sees nothing in one sees nothing
    in all. Layers without attention, such as convolutions, may have None or a mask of another shape.
    """
    for mask in value.values() if isinstance(value, Mapping) else (value,):
        if isinstance(mask, Tensor) and mask.dim() == 4 and mask.shape[0] == B and mask.shape[2] == M:
            return allowed(mask).any(dim=-1).any(dim=1)
    return None


def _in_order(positions: Tensor, seen: Tensor) -> bool:
    """True if positions [B, M] number the tokens that are not padding one by one."""
    if positions.shape != seen.shape:
        return False
    steps = positions.diff(dim=1) == 1
    return bool((steps | ~seen[:, 1:] | ~seen[:, :-1]).all()) and bool((seen[:, 1:] | ~seen[:, :-1]).all())
