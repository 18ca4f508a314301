"""Stuck-at faults: cells that hold G_min or G_max whatever is written."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.device.spec import Cell


def faulty(cell: Cell) -> bool:
    """Whether any cell can be stuck."""
    return cell.faults.stuck_at_g_min + cell.faults.stuck_at_g_max > 0


def stick(g: Tensor, cell: Cell, u: Tensor) -> Tensor:
    """Conductances [S] with stuck cells in their place; u are uniform numbers in [0, 1) that belong to the cells."""
    low, high = cell.faults.stuck_at_g_min, cell.faults.stuck_at_g_max
    stuck_low, stuck_high = u < low, (u >= low) & (u < low + high)
    return torch.where(stuck_low, cell.g_min, torch.where(stuck_high, cell.g_max, g))
