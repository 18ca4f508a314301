"""Drift compensation: results are multiplied by a digital factor that restores a reading of new cells.

The factor is the reading of the cells just after they were written over the same reading now. A reading drives every
row of the matrix alone, once, and takes the mean magnitude of the results: of all columns (`global`), or of each column
(`column`). aihwkit reads in the same way (`GlobalDriftCompensation`, `PerColumnDriftCompensation`). Both readings have
read noise, but no error of converters, since these have a range of their own for a single row.

Shapes: O outputs, I inputs, C column blocks (reference columns).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.array.folded import Folded
from ohmformer.array.spec import Crossbar
from ohmformer.device import drift
from ohmformer.streams import Streams


def compensates(array: Crossbar) -> bool:
    """True if a factor compensates drift: if the array has one, and its cells have changed since they were written."""
    if array.drift_compensation == "none":
        return False
    drifted = drift.drifts(array.cell, array.age)
    return drifted or array.aged_cell.write_noise != array.cell.at_age(0.0).write_noise


@lru_cache(maxsize=256)
def when_new(array: Crossbar) -> Crossbar:
    """The array just after its cells were written."""
    return array.model_copy(update={"age": 0.0})


def factor(new: Folded, now: Folded, array: Crossbar, stream: Streams) -> Tensor:
    """The factor that turns a reading into that of new cells; 1 where cells hold nothing now.

    Args:
        new: the matrix just after its write.
        now: the same matrix now.
        array: the hardware.
        stream: key of the write.

    Returns:
        [..., 1, 1] for one factor, [..., O, 1] for one by column.
    """
    numbers = stream.child("drift compensation")
    first, last = (_reading(cells, array, numbers.child(when)) for cells, when in ((new, "new"), (now, "now")))
    return torch.where(last > 0, first / torch.where(last > 0, last, 1.0), 1.0)


def _reading(cells: Folded, array: Crossbar, stream: Streams) -> Tensor:
    """The mean magnitude of the results of single rows, in values: of all columns, or of each one."""
    y = cells.values
    if cells.variance is not None:
        y = torch.addcmul(y, cells.variance.sqrt(), stream.child("read").normal(*y.shape, like=y))
        if cells.reference_variance is not None:
            std = cells.reference_variance.sqrt()
            shared = std * stream.child("read reference").normal(*std.shape, like=std)
            y = y - cells.unit * shared.repeat_interleave(array.columns, dim=-2)[..., : y.shape[-2], :]
    magnitude = y.abs()
    return magnitude.mean(dim=-1 if array.drift_compensation == "column" else (-2, -1), keepdim=True)
