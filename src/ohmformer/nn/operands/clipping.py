"""ClipFormer's clip of K and V, as an operation on the codes of an array."""

from __future__ import annotations

from typing import Any, Literal

from ohmformer.array.codes.codec import SoftClip
from ohmformer.array.spec import Crossbar
from ohmformer.mitigation.spec import Clip, KVClip

Clips = Clip | tuple[Clip, ...] | None


def soft_clips(clips: Clips, array: Crossbar) -> tuple[SoftClip | None, ...]:
    """The clips of an array's codes: one for each head, or one for all heads; empty if no head is clipped.

    Raises:
        BadInput: beta r <= 1, or the array's encoding has no sign of its own.
    """
    soft: list[SoftClip | None] = []
    for clip in clips if isinstance(clips, tuple) else (clips,):
        if isinstance(clip, KVClip):
            clip.check(array)
        soft.append(SoftClip(*clip.thresholds(array), clip.max_code(array)) if isinstance(clip, KVClip) else None)
    return tuple(soft) if soft != [None] else ()


def plain_clip(clip: Clip | Literal["model"] | tuple[Clip, ...]) -> Any:
    """A clip, or one of each head, as JSON values."""
    if isinstance(clip, tuple):
        return [plain_clip(each) for each in clip]
    return clip.canonical() if isinstance(clip, KVClip) else clip
