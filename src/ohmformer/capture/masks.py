"""Attention masks: which keys they make visible, and whether they are causal.

A mask is boolean (True: visible), or it is added to the scores. A visible mask is boolean.

Shapes: B samples, H heads, M queries, N keys; `...` are axes of samples and heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN = -1000.0
"""A value of at most this, added to a score, hides its key: its exponential is zero in every format, and no bias of a
score reaches it. Models add -1e4, -1e9, the lowest number of a format, or minus infinity."""


def allowed(mask: Tensor) -> Tensor:
    """The visible mask of a mask: True where a boolean mask is True, or where more than `HIDDEN` is added."""
    return mask if mask.dtype == torch.bool else mask > HIDDEN


def seen_keys(mask: Tensor) -> Tensor:
    """The keys [B or 1, N] that any query may see in a mask [B or 1, H or 1, M or 1, N]; the others are padding."""
    return allowed(mask).any(dim=-2).any(dim=1)


def shows_nothing(visible: Tensor) -> bool:
    """True if a query of visible[..., M, N] sees no key at all; its softmax then spreads over hidden keys."""
    return not bool(visible.any(dim=-1).all())


def is_causal(visible: Tensor) -> bool:
    """True if a visible mask [..., M, N] shows that no query sees a key that comes later.

    In every sample and head, the last visible key moves on by one with every query that sees any key. It may stop at
    the end of a text, since padding behind the text sees the same keys as the last token. Hidden keys at the end alone
    do not make a mask causal: they may be padding. A mask that also hides some of the earlier keys is causal if queries
    and keys are the same tokens, no query sees a later one, and the last visible key does move on.
    """
    if visible.is_meta or visible.dim() < 2 or min(visible.shape[-2:]) < 2:
        return False
    M, N = visible.shape[-2:]
    sees_any = visible.any(dim=-1)
    keys = torch.arange(N, device=visible.device)
    last = torch.where(visible, keys, -1).amax(dim=-1)
    if M == N and bool((last <= keys).all()) and bool(((last.diff(dim=-1) > 0) & sees_any[..., :-1]).any()):
        return True
    moves = (last.diff(dim=-1) == 1) | ~(sees_any[..., 1:] & sees_any[..., :-1])
    if not bool((moves & sees_any[..., 1:] & sees_any[..., :-1]).any()):
        return False
    if bool(moves.all()):
        return M <= N
    expected = (torch.arange(M, device=visible.device) + (N - M)).minimum(last.amax(dim=-1, keepdim=True))
    return M <= N and bool((last == expected)[sees_any].all())
