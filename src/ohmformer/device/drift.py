"""Conductance drift: the change of a written conductance over time."""

from __future__ import annotations

from torch import Tensor

from ohmformer.device.spec import Cell
from ohmformer.registry import called


def drifts(cell: Cell, age: float) -> bool:
    """True if conductances change at all within `age` seconds."""
    return bool(called(cell.drift, "acts", age))


def drift(g: Tensor, target: Tensor, cell: Cell, eps: Tensor, *, age: float) -> Tensor:
    """Conductances [S] some time after programming.

    Args:
        g: conductances just after writing [S], of any shape.
        target: conductances that were to be written [S].
        cell: the cell.
        eps: standard normals of the same shape, one for each cell.
        age: time since programming [s].

    Returns:
        Conductances of the same shape; g itself if the cell does not drift.
    """
    return cell.drift.drifted(g, target, cell, eps, age=age) if drifts(cell, age) else g
