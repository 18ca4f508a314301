"""Conductance drift: what remains of a written conductance after some time."""

from __future__ import annotations

from torch import Tensor

from ohmformer.device.spec import Cell


def drifts(cell: Cell, age: float) -> bool:
    """True if conductances change at all within `age` seconds."""
    return cell.drift.acts(age)


def drift(g: Tensor, target: Tensor, cell: Cell, eps: Tensor, *, age: float) -> Tensor:
    """Conductance [S] at time `age` [s] of cells that were found at g after writing `target`.

    eps are standard normals of the same shape, one for each cell.
    """
    return cell.drift.drifted(g, target, cell, eps, age=age) if drifts(cell, age) else g
