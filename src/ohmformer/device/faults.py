"""Stuck-at faults: cells that hold a fixed conductance, such as G_min or G_max, whatever is written to them."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.device.spec import Cell


def faulty(cell: Cell) -> bool:
    """True if cells are stuck with a probability above zero."""
    return any(chance > 0 for _, chance in cell.faults.states())


def apply_faults(g: Tensor, cell: Cell, u: Tensor) -> Tensor:
    """Replace the conductances of stuck cells.

    Args:
        g: conductances [S].
        cell: the cell.
        u: uniform numbers in [0, 1), one for each cell, that decide whether and where it is stuck; broadcasts with g.

    Returns:
        Conductances [S].
    """
    for g_stuck, low, high in cell.faults.stuck_intervals(cell):
        g = torch.where((u >= low) & (u < high), g_stuck, g)
    return g


def moments_with_faults(mean: Tensor, variance: Tensor, cell: Cell, max_digit: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of the digit that a cell holds, with faults as probabilities over all chips.

    Args:
        mean: mean digit of cells that work, for each digit that is written.
        variance: likewise, in digits squared.
        cell: the cell.
        max_digit: the digit of G_max.

    Returns:
        Mean, and variance in digits squared, of the same shape.
    """
    if not faulty(cell):
        return mean, variance
    states = cell.faults.states()
    works = 1.0
    for _, probability in states:
        works -= probability
    total_mean, total_square = works * mean, works * (variance + mean**2)
    for share, probability in states:
        total_mean = total_mean + probability * (share * max_digit)
        total_square = total_square + probability * (share * max_digit) ** 2
    return total_mean, (total_square - total_mean**2).clamp(min=0.0)
