"""Mean and variance of what a write leaves in a cell, in closed form, the clamp of `noise.write` included."""

from __future__ import annotations

from torch import Tensor

from ohmformer.device.spec import Cell


def write_moments(g: Tensor, cell: Cell) -> tuple[Tensor, Tensor]:
    """By how much writes of targets g [S] miss them on average [S], and their variance [S^2].

    Targets lie between 0 and the cell's ceiling. Exactly zero where writes are exact.

    Raises:
        BadInput: the write noise has no closed form of them.
    """
    return cell.write_noise.moments(g, cell)
