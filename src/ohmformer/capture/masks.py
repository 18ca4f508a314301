"""Masks of attention, boolean or added to scores: what they let be seen.

Shapes: B samples, H heads, M queries, N keys; `...` are axes of samples and heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN = -1000.0
"""What is added to a score to hide it is at most this: its exponential is zero in every format, and no bias goes so
far. Models use -1e4, -1e9, the least number of a format, or minus infinity."""


def allowed(mask: Tensor) -> Tensor:
    """A mask as what may be seen: True in a boolean one, or what adds more than `HIDDEN`."""
    return mask if mask.dtype == torch.bool else mask > HIDDEN


def seen_keys(mask: Tensor) -> Tensor:
    """Which keys [B or 1, N] any query may see in a mask [B or 1, H or 1, M or 1, N]: the others are padding."""
    return allowed(mask).any(dim=-2).any(dim=1)


def shows_nothing(seen: Tensor) -> bool:
    """Whether a query of seen[..., M, N] sees no key at all; a softmax then spreads over what is hidden."""
    return not bool(seen.any(dim=-1).all())


def is_causal(seen: Tensor) -> bool:
    """Whether what queries see [..., M, N] shows that none sees a key that comes later.

    The last key that is seen moves on by one with every query that sees any, in every sample and head. At the end of
    the keys it may stop, where the text does: padding behind it sees what the last token sees. Keys at the end that no
    query sees are not enough: they may be padding. A mask that hides some of the earlier keys, too, is causal where
    queries and keys are the same tokens, none of which sees a later one, though the last one seen does move on.
    """
    if seen.is_meta or seen.dim() < 2 or min(seen.shape[-2:]) < 2:
        return False
    M, N = seen.shape[-2:]
    live = seen.any(dim=-1)
    places = torch.arange(N, device=seen.device)
    last = torch.where(seen, places, -1).amax(dim=-1)
    if M == N and bool((last <= places).all()) and bool(((last.diff(dim=-1) > 0) & live[..., :-1]).any()):
        return True
    moves = (last.diff(dim=-1) == 1) | ~(live[..., 1:] & live[..., :-1])
    if not bool((moves & live[..., 1:] & live[..., :-1]).any()):
        return False
    if bool(moves.all()):
        return M <= N
    ends = (torch.arange(M, device=seen.device) + (N - M)).minimum(last.amax(dim=-1, keepdim=True))
    return M <= N and bool((last == ends)[live].all())
