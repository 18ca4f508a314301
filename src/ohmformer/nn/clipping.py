"""ClipFormer's clip of K and V, on the integer codes that are about to be sliced and written."""

from __future__ import annotations

from torch import Tensor

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mapping.spec import KVClip


def clip_codes(codes: Tensor, clip: KVClip, array: Crossbar) -> Tensor:
    """Stage I and stage II on codes of any shape: soft threshold, saturation, then rounding to codes again.

    Signs are kept, since they only choose the half of a pair. Not idempotent: apply once, just before writing.

    Raises:
        BadInput: beta r <= 1, or the array's encoding has no sign of its own.
    """
    check_clip(clip, array)
    shift, top = clip.thresholds(array)
    x = codes.abs() / array.max_code
    return codes.sign() * ((x - shift).clamp(min=0.0, max=top) * array.max_code).round()


def check_clip(clip: KVClip, array: Crossbar) -> None:
    """Refuse a clip that an array cannot have (see `clip_codes`)."""
    clip.thresholds(array)
    if array.encoding != "differential" and (clip.alpha, clip.beta) != (0.0, 1.0):
        raise BadInput("clip: an 'offset' array stores zero in the middle of its range; use encoding = 'differential'")
