"""Drift compensation: results are multiplied by a digital factor that restores a reading of new cells.

The factor is the reading of the cells just after they were written over the same reading now. A reading drives every
row of the matrix alone, once, and takes the mean magnitude of the results: of all columns (`global`), or of each column
(`column`). aihwkit reads in the same way (`GlobalDriftCompensation`, `PerColumnDriftCompensation`). Both readings have
read noise, but no error of converters, since these have a range of their own for a single row.

Shapes: O outputs, I inputs, C column blocks (reference columns).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ohmformer.array.spec import Crossbar
from ohmformer.device import drift
from ohmformer.streams import Stream, Streams


def compensates(array: Crossbar) -> bool:
    """True if a factor compensates drift: if the array has one, and its cells have changed since they were written."""
    if array.drift_compensation == "none":
        return False
    drifted = drift.drifts(array.cell, array.age)
    return drifted or array.aged_cell.write_noise != array.cell.at_age(0.0).write_noise


@cache
def when_new(array: Crossbar) -> Crossbar:
    """The array just after its cells were written."""
    return array.model_copy(update={"age": 0.0})


def compensation_stream(stream: Streams | int) -> Streams:
    """Key of the read noise of both readings, from that of the write."""
    return (Stream(stream) if isinstance(stream, int) else stream).child("drift compensation")


def reading(
    weight: Tensor,
    variance: Tensor | None,
    reference_variance: Tensor | None,
    unit: Tensor,
    array: Crossbar,
    stream: Streams,
) -> Tensor:
    """The mean magnitude of the results of single rows.

    Args:
        weight: what the cells hold, in values [..., O, I].
        variance: of one read of it at unit input, in values squared; None without read noise.
        reference_variance: [..., C, I] likewise of the reference columns of `offset` arrays, in codes squared.
        unit: [..., O or 1, 1] value of one code.
        array: the hardware.
        stream: key of the read noise.

    Returns:
        [..., 1, 1] for one factor, [..., O, 1] for one by column, in values.
    """
    y = weight
    if variance is not None:
        y = torch.addcmul(y, variance.sqrt(), stream.child("read").normal(*y.shape, like=y))
        if reference_variance is not None:
            std = reference_variance.sqrt()
            shared = std * stream.child("read reference").normal(*std.shape, like=std)
            y = y - unit * shared.repeat_interleave(array.columns, dim=-2)[..., : y.shape[-2], :]
    magnitude = y.abs()
    return magnitude.mean(dim=-1 if array.drift_compensation == "column" else (-2, -1), keepdim=True)


def factor(new: Tensor, now: Tensor) -> Tensor:
    """The factor that turns a reading into that of new cells, of the same shape; 1 where cells hold nothing now."""
    return torch.where(now > 0, new / torch.where(now > 0, now, 1.0), 1.0)
