"""How 1/f read noise grows with the time since the write."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def flicker_growth(age: float | Tensor, t_read: float, like: Tensor) -> float | Tensor:
    """sqrt(ln((t + t_read) / (2 t_read))), 0 where the logarithm is negative: how 1/f noise grows with time t.

    Args:
        age: t [s]; a tensor in float64 has an age of each cell.
        t_read: duration of a read [s].
        like: a tensor whose dtype and device a tensor of results has.
    """
    if isinstance(age, (int, float)):
        return math.sqrt(max(0.0, math.log((age + t_read) / (2 * t_read))))
    return ((age + t_read) / (2 * t_read)).log().clamp(min=0.0).sqrt().to(like)
