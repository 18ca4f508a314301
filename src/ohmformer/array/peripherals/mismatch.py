"""Gain and offset of the converters of a matrix: drawn by their place on the chip, and what calibration leaves of them.

Shapes: P sides that are converted, S slices, O outputs, B row blocks, C column blocks (reference columns), N converters
of one array; `...` are matrices that share one call, such as samples (of size 1 here) and heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod, sqrt

import torch
from torch import Tensor

from ohmformer.array.peripherals.spec import TRIM_SPAN, Peripherals
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.streams import Stream, Streams

GAIN, OFFSET = 0, 1
"""Places of gain and offset in a tensor that holds both."""


@dataclass(frozen=True)
class Mismatch:
    """Errors of the converters of a written matrix.

    Attributes:
        columns: [2, P, S, ..., O, B] relative errors of the gain, and offsets as shares of the range.
        reference: [2, S, ..., C, B] likewise of converters of reference columns; None without them.
    """

    columns: Tensor
    reference: Tensor | None = None

    def of_side(self, side: int, s: int) -> Tensor:
        """Return gain and offset [2, ..., O or C, B] of the converters of a side of slice s."""
        if side and self.reference is not None:
            return self.reference[:, s]
        return self.columns[:, min(side, self.columns.shape[1] - 1), s]

    def gains(self, side: int, s: int, rows: int, inputs: int) -> Tensor:
        """Return the gain [..., O or C, I] that the current of each cell of a side of slice s sees.

        Args:
            side: 0 or 1.
            s: the slice.
            rows: rows of one block.
            inputs: I.
        """
        return (1 + self.of_side(side, s)[GAIN]).repeat_interleave(rows, dim=-1)[..., :inputs]


def draw_mismatch(
    array: Crossbar, shape: torch.Size, slices: int, stream: Streams, *, by_sample: bool, like: Tensor
) -> Mismatch:
    """Return the errors of the converters of a matrix.

    Args:
        array: the hardware.
        shape: [..., O, I] of the matrix.
        slices: number of slices that hold it.
        stream: key of the chip and the matrix.
        by_sample: True if the first axis of the shape is samples, which share the converters.
        like: a tensor of the device and the type of the result.

    Raises:
        BadInput: the stream is keyed by samples.
    """
    if not isinstance(stream, Stream):
        raise BadInput("mismatch of converters belongs to a chip, not to samples; give program a fault_stream")
    *matrices, O, I = shape
    heads = matrices[1:] if by_sample else matrices
    C, B = -(-O // array.columns), -(-I // array.rows)
    sides = 1 if array.encoding == "offset" or array.subtract == "analog" else 2

    def drawn(columns: str, sides: int, width: int, shared: int) -> Tensor:
        places = product(range(sides), range(slices), range(prod(heads)), range(C), range(B))
        converters = -(-width // shared)
        root = stream.child("converters", columns)
        found = torch.stack([_of_array(array, root.child(*place), converters, like) for place in places], dim=1)
        found = found.repeat_interleave(shared, dim=-1)[..., :width]
        found = found.reshape(2, sides, slices, *heads, C, B, width).transpose(-1, -2)
        found = found.reshape(2, sides, slices, *heads, C * width, B)
        return found.unsqueeze(3) if by_sample else found

    columns = drawn("cell", sides, array.columns, array.adc.columns_per_adc)[..., :O, :]
    reference = None
    if array.encoding == "offset" and array.subtract == "digital":
        reference = drawn("reference", 1, 1, 1)[:, 0]
    return Mismatch(columns, reference)


def _of_array(array: Crossbar, stream: Stream, converters: int, like: Tensor) -> Tensor:
    """Return gains and offsets [2, N] of the converters of one array, after calibration."""
    parts = array.peripherals
    stds = (parts.gain_mismatch, parts.offset_mismatch)
    errors = stream.normal(2, converters, like=like) * like.new_tensor(stds).unsqueeze(-1)
    if parts.calibration is None:
        return errors
    return calibrated(errors, parts, stream.child("calibration").normal(2, converters, like=like))


def calibrated(errors: Tensor, parts: Peripherals, eps: Tensor) -> Tensor:
    """Return what calibration leaves of errors of gain and offset.

    The offset is the mean of `reads` conversions of no current. The gain is the mean of as many conversions of a
    current of the whole range, less that offset, so the error of the offset enters it with the opposite sign.

    Args:
        errors: [2, N] gains and offsets.
        parts: the circuits, with a calibration.
        eps: [2, N] standard normals: noise of the mean at the full range, and at no current.

    Returns:
        [2, N], errors less their trims. A mismatch that the circuits do not have gets no trim.
    """
    how = parts.calibration
    assert how is not None
    noise = 0.0 if how.reads == "ideal" else parts.output_noise / sqrt(how.reads)
    full, zero = (noise * eps).unbind(0)
    measured = errors + torch.stack([full - zero, zero])
    left = []
    for error, value, std in zip(errors, measured, (parts.gain_mismatch, parts.offset_mismatch), strict=True):
        if std and how.bits != "ideal":
            step = 2 * TRIM_SPAN * std / 2**how.bits
            value = ((value / step).floor() + 0.5).clamp(-(2 ** (how.bits - 1)) + 0.5, 2 ** (how.bits - 1) - 0.5) * step
        left.append(error - value if std else error)
    return torch.stack(left)
