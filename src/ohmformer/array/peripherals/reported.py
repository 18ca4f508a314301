"""What converters get in place of a current: with their gain, their offset and their noise.

Shapes: M input vectors, O outputs, I inputs, B row blocks, C column blocks (reference columns), S slices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array.peripherals.mismatch import GAIN, OFFSET, Mismatch
from ohmformer.array.spec import Crossbar
from ohmformer.streams import Streams

Span = tuple[Tensor | float, Tensor | float]
"""Lowest and highest current of a converter; tensors [S] if each slice has its own."""


def read_blocks(codes: Tensor, rows: int) -> Tensor:
    """Return [..., M, B], 1.0 where an input vector [..., M, I] has an input other than zero in a block of rows."""
    blocks = codes.split(rows, dim=-1)
    return torch.stack([(block != 0).any(-1) for block in blocks], dim=-1).to(codes.dtype)


def widths(span: Span, slices: int, like: Tensor) -> Tensor:
    """Return the width [S] of the range of the converters of each slice."""
    low, high = (torch.as_tensor(end).to(like) for end in span)
    width = (high - low).expand(max(slices, high.numel())) if high.dim() == 0 else high - low
    return width[:slices]


def total_width(array: Crossbar, width: Tensor) -> Tensor:
    """Return the width of the ranges of all slices [S] in codes: a scalar."""
    weights = width.new_tensor([array.slice_weight(s) for s in range(len(width))])
    return (weights * width).sum() / array.redundancy


def reported(
    current: Tensor,
    array: Crossbar,
    *,
    errors: Tensor | None,
    width: Tensor | float | None,
    read: Tensor,
    stream: Streams | None,
) -> Tensor:
    """Return what the converters of one side, slice and row block get in place of a current.

    Args:
        current: [..., M, O or C].
        array: the hardware.
        errors: gain and offset [2, ..., O or C] of the converters; None if they are alike.
        width: width of their range; None leaves out offset and noise, which are shares of it.
        read: [..., M, 1] 1.0 for input vectors that read this row block, else 0.0.
        stream: key of this conversion; None for converters without noise.
    """
    parts = array.peripherals
    if errors is not None:
        current = current * (1 + errors[GAIN]).unsqueeze(-2)
    if width is None:
        return current
    added: Tensor | None = None
    if errors is not None and parts.offset_mismatch:
        added = errors[OFFSET].unsqueeze(-2)
    if stream is not None and parts.output_noise:
        noise = parts.output_noise * stream.child("output").normal(*current.shape, like=current)
        added = noise if added is None else added + noise
    return current if added is None else current + added * width * read


def folded_offset(mismatch: Mismatch, array: Crossbar, width: Tensor, read: Tensor) -> Tensor:
    """Return the offsets of all conversions in a sum over slices, sides and row blocks, in codes: [..., M, O].

    Args:
        mismatch: the errors of the converters.
        array: the hardware.
        width: [S] of the ranges.
        read: [..., M, B], see `read_blocks`.
    """
    outputs = mismatch.columns.shape[-2]
    total: Tensor | None = None
    for s in range(len(width)):
        offset = mismatch.of_side(0, s)[OFFSET]
        if array.subtract == "digital":
            minus = mismatch.of_side(1, s)[OFFSET]
            if mismatch.reference is not None:
                minus = minus.repeat_interleave(array.columns, dim=-2)[..., :outputs, :]
            offset = offset - minus
        part = offset * (width[s] * array.slice_weight(s))
        total = part if total is None else total + part
    assert total is not None
    return read @ (total / array.redundancy).transpose(-2, -1)


def folded_std(array: Crossbar, width: Tensor, weights: list[int]) -> Tensor:
    """Return the standard deviation of the noise of all conversions of one side and row block, in codes: a scalar.

    Args:
        array: the hardware.
        width: [S] of the ranges.
        weights: of the results of the conversions of one input vector.
    """
    parts = array.peripherals
    by_slice = width.new_tensor([array.slice_weight(s) for s in range(len(width))]) * width
    by_input = width.new_tensor(weights).square().sum().sqrt()
    return parts.output_noise / array.redundancy * by_slice.square().sum().sqrt() * by_input
