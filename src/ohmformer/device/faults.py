"""Faults: cells that hold a conductance of their own whatever is written, such as G_min or G_max."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.device.spec import Cell


def faulty(cell: Cell) -> bool:
    """True if any cell can be stuck."""
    return sum(chance for _, chance in cell.faults.states()) > 0


def stick(g: Tensor, cell: Cell, u: Tensor) -> Tensor:
    """Conductances [S] with stuck cells in their place; u are uniform numbers in [0, 1) that belong to the cells."""
    low = 0.0
    for stuck, chance in cell.faults.conductances(cell):
        high = low + chance
        g = torch.where((u >= low) & (u < high), stuck, g)
        low = high
    return g


def with_faults(mean: Tensor, variance: Tensor, cell: Cell, max_digit: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of the digit that a cell holds, faults included as chances over all chips.

    Args:
        mean: of the digit of cells that work, by what was written.
        variance: likewise, in digits squared.
        cell: of this kind.
        max_digit: the digit that G_max stands for.
    """
    if not faulty(cell):
        return mean, variance
    states = cell.faults.states()
    works = 1.0
    for _, chance in states:
        works -= chance
    stuck, square = works * mean, works * (variance + mean**2)
    for share, chance in states:
        stuck = stuck + chance * (share * max_digit)
        square = square + chance * (share * max_digit) ** 2
    return stuck, (square - stuck**2).clamp(min=0.0)
