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
        gain: [B, R, 1, n] what inputs are multiplied by where each token of V has a range of its own; None elsewhere.
    """

    tokens: Tensor
    values: Tensor
    streams: SampleStreams
    code_range: Tensor
    column_range: Tensor
    gain: Tensor | None = None


def to_write(
    tokens: Tensor,
    values: Tensor,
    streams: SampleStreams,
    code_range: Tensor,
    w_range: Tensor | None,
    axis: str,
    *,
    own_scale: bool,
) -> tuple[KVTokens, Tensor]:
    """The tokens of a call as they are written, and the matrix [..., O, I] that they are in a product.

    Args:
        tokens: as in `KVTokens`.
        values: conditioned tokens [B, R, n, d], with gradients.
        streams: as in `KVTokens`.
        code_range: as in `KVTokens`.
        w_range: the calibrated range; None for none.
        axis: "K" (tokens are outputs) or "V" (tokens are inputs).
        own_scale: each token has a scale of its own.
    """
    w, column_range, gain = values if axis == "K" else values.transpose(-2, -1), code_range, None
    if own_scale and axis == "V":
        # Columns sum over tokens, so a token's own range scales its input in place of the result.
        column_range = code_range.amax(dim=-2, keepdim=True) if w_range is None else w_range.to(values)
        gain = (code_range / torch.where(column_range > 0, column_range, 1.0)).transpose(-2, -1)
        w = w / torch.where(gain > 0, gain, 1.0)
    return KVTokens(tokens.detach(), values.detach(), streams, code_range, column_range, gain), w


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
