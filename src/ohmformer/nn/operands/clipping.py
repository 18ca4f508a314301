"""ClipFormer's clip of K and V, as what it does to the codes of an array."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ohmformer.array.codec import SoftClip
from ohmformer.array.spec import Crossbar
from ohmformer.mitigation.spec import Clip, KVClip

Clips = Clip | tuple[Clip, ...] | None


def soft_clips(clips: Clips, array: Crossbar) -> tuple[SoftClip | None, ...]:
    """The clips of all heads, one for all of them, or none, on an array.

    Raises:
        BadInput: beta r <= 1, or the array's encoding has no sign of its own.
    """
    each = clips if isinstance(clips, tuple) else (clips,)
    found = tuple(_soft_clip(clip, array) if isinstance(clip, KVClip) else None for clip in each)
    return found if any(clip is not None for clip in found) or len(found) > 1 else ()


def _soft_clip(clip: KVClip, array: Crossbar) -> SoftClip:
    clip.check(array)
    return SoftClip(*clip.thresholds(array), clip.max_code(array))


def clip_codes(codes: Tensor, clip: KVClip, array: Crossbar, *, rounded: bool = True) -> Tensor:
    """Stage I and stage II on codes of any shape: soft threshold, saturation, then rounding to codes again.

    Raises:
        BadInput: as in `soft_clips`.
    """
    return _soft_clip(clip, array).clip(codes, array, rounded=rounded)


def plain_clip(clip: Clip | Literal["model"] | tuple[Clip, ...]) -> Any:
    """A clip, or those of heads, as plain JSON values."""
    if isinstance(clip, tuple):
        return [plain_clip(each) for each in clip]
    return clip.canonical() if isinstance(clip, KVClip) else clip
