"""Masks of attention, boolean or added to scores: what they let be seen.

Shapes: B samples, H heads, M queries, N keys.
"""

from __future__ import annotations

import torch
from torch import Tensor


def allowed(mask: Tensor) -> Tensor:
    """A mask as what may be seen: True in a boolean one, or what is not about minus infinity."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def seen_keys(mask: Tensor) -> Tensor:
    """Which keys [B or 1, N] any query may see in a mask [B or 1, H or 1, M or 1, N]: the others are padding."""
    return allowed(mask).any(dim=-2).any(dim=1)
