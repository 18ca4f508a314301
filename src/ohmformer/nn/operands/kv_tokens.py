"""The tokens of one call that K or V writes, and the range that their codes span.

Shapes: B samples, R heads, N slots in which tokens come, n places at which they are written, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.spec import Crossbar
from ohmformer.nn.operands.unpad import Unpadding
from ohmformer.streams import SampleStreams


@dataclass(frozen=True, eq=False)
class KVTokens:
    """The tokens of one call as they are written: unpadded, conditioned, without gradients.

    Attributes:
        tokens: [B, R, n, d] tokens before conditioning, by which a cache knows them again.
        values: [B, R, n, d] values to write.
        streams: keys of the write noise: one of each sample, or of each token by its number.
        code_range: the value of the largest code; broadcasts against `values`.
        column_range: the same as results are scaled by it; differs where each token of V has a range of its own.
    """

    tokens: Tensor
    values: Tensor
    streams: SampleStreams
    code_range: Tensor
    column_range: Tensor


def token_has_range(array: Crossbar, axis: str) -> bool:
    """True if each token of K or V (`axis`) has a range of its own."""
    return array.scale == "token" or (array.scale == "column" and axis == "K")


def shared_axes(array: Crossbar, axis: str) -> tuple[int, ...]:
    """The axes of tokens [B, R, n, d] of K or V (`axis`) over which a range is shared."""
    if array.scale == "column":
        return (-1,) if axis == "K" else (-2,)
    return {"tensor": (-3, -2, -1), "head": (-2, -1), "token": (-1,)}[array.scale]


def percentile_range(values: Tensor, dims: tuple[int, ...], percent: float, unpadding: Unpadding | None) -> Tensor:
    """A percentile of the magnitudes of values [B, R, n, d] over some axes, which keep size one.

    Places that hold no token are zero and do not count.
    """
    if percent >= 100 or unpadding is None or -2 not in dims:
        return encoding.magnitude_range(values, dims, percent)
    rows = zip(values.unbind(0), unpadding.lengths, strict=True)
    return torch.stack([encoding.magnitude_range(row[:, : max(1, n)], dims, percent) for row, n in rows])
