"""ClipFormer's clip of K and V, on the integer codes that are about to be sliced and written."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import Clip, KVClip

Clips = Clip | tuple[Clip, ...] | None


def clip_codes(codes: Tensor, clip: KVClip, array: Crossbar, *, rounded: bool = True) -> Tensor:
    """Stage I and stage II on codes of any shape: soft threshold, saturation, then rounding to codes again.

    Signs are kept, since they only choose the half of a pair. Not idempotent: apply once, just before writing.

    Raises:
        BadInput: beta r <= 1, or the array's encoding has no sign of its own.
    """
    clip.check(array)
    shift, top = clip.thresholds(array)
    x = (codes.abs() / array.max_code - shift).clamp(min=0.0, max=top) * array.max_code
    return codes.sign() * (x.round() if rounded else x)


def clip_heads(codes: Tensor, clips: Clips, array: Crossbar, *, rounded: bool = True) -> Tensor:
    """`clip_codes` on codes [B, R, n, d]: one clip for all heads, or one for each.

    Raises:
        BadInput: as in `clip_codes`, or R is no multiple of the number of clips.
    """
    if clips is None or clips == "none":
        return codes
    if isinstance(clips, KVClip):
        return clip_codes(codes, clips, array, rounded=rounded)
    if codes.shape[1] % len(clips):
        raise BadInput(f"clip: {len(clips)} clips for {codes.shape[1]} heads of K and V; give one for each head")
    heads = [
        head if clip == "none" else clip_codes(head, clip, array, rounded=rounded)
        for head, clip in zip(codes.unbind(1), clips * (codes.shape[1] // len(clips)), strict=True)
    ]
    return torch.stack(heads, dim=1)


def largest_code(clips: Clips, array: Crossbar) -> int | None:
    """The largest code that clips leave; None where some head is not clipped."""
    found = clips if isinstance(clips, tuple) else (clips,)
    if not all(isinstance(clip, KVClip) for clip in found):
        return None
    return max(clip.max_code(array) for clip in found if isinstance(clip, KVClip))


def plain_clip(clip: Clip | Literal["model"] | tuple[Clip, ...]) -> Any:
    """A clip, or those of heads, as plain JSON values."""
    if isinstance(clip, tuple):
        return [plain_clip(each) for each in clip]
    return clip.canonical() if isinstance(clip, KVClip) else clip
