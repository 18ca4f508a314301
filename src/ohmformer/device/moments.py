"""Mean and variance of the error of one write in closed form, with the clamp of `noise.write`."""

from __future__ import annotations

from torch import Tensor

from ohmformer.device.spec import Cell


def write_moments(g: Tensor, cell: Cell) -> tuple[Tensor, Tensor]:
    """Mean error [S] and variance [S^2] of one write.

    Args:
        g: targets [S] between 0 and the cell's ceiling, of any shape.
        cell: the cell.

    Returns:
        Two tensors of the same shape; both are exactly zero where writes are exact.

    Raises:
        BadInput: the kind of write noise has no such closed form.
    """
    return cell.write_noise.moments(g, cell)
