"""Write and read noise of a cell as pure functions of conductance and of given standard normals.

Conductances here are SI siemens, in tensors of any shape; `eps` has the same shape. Nothing is drawn here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.device.families import GaussianWriteNoise, WriteNoise
from ohmformer.device.spec import Cell, SqrtRange


def write(g: Tensor, cell: Cell, eps: Tensor) -> Tensor:
    """The conductance found after writing targets g [S], clamped to 0 <= G' and to the cell's ceiling."""
    return cell.write_noise.found(g, cell, eps).clamp_(min=0.0, max=cell.g_ceiling)


def write_std(g: Tensor, cell: Cell) -> Tensor:
    """Standard deviation [S] of a write of target g, before the clamp."""
    return cell.write_noise.write_std(g, cell)


def gaussian(cell: Cell) -> bool:
    """True if writes are Gaussian before the clamp, so that `write_std` says all."""
    return isinstance(cell.write_noise, GaussianWriteNoise)


def read(g: Tensor, cell: Cell, eps: Tensor, *, age: float = 0.0, written: Tensor | None = None) -> Tensor:
    """The conductance that one read of cells at g [S] sees; see `read_std`. It is not clamped."""
    return torch.addcmul(g, read_std(g, cell, age=age, written=written), eps)


def read_std(g: Tensor, cell: Cell, *, age: float = 0.0, written: Tensor | None = None) -> Tensor:
    """Standard deviation [S] of one read of cells at g.

    Args:
        g: conductances now.
        cell: of this kind.
        age: time since programming [s].
        written: conductances just after programming, where they have drifted since.
    """
    return cell.read_noise.read_std(g, cell, age=age, written=written)


def exact_reads(cell: Cell) -> bool:
    """True if reads are free of noise."""
    return cell.read_noise.exact


def remembers_writing(cell: Cell) -> bool:
    """True if read noise depends on the conductance before drift."""
    return cell.read_noise.remembers_writing


def silent_at_g_min(cell: Cell) -> bool:
    """True if a cell written to G_min ends exactly there, so that an unused half of a pair adds no write noise."""
    return cell.write_noise.silent_at_g_min(cell)


def silent(cell: Cell) -> bool:
    """True if writes are exact everywhere."""
    return cell.write_noise.silent


def with_gamma(cell: Cell, value: float) -> Cell:
    """The cell with another gamma, where its write noise has one."""
    noise = cell.write_noise
    return _with(cell, noise.model_copy(update={"gamma": value})) if isinstance(noise, SqrtRange) else cell


def scaled(cell: Cell, factor: float) -> Cell:
    """The cell with write noise of `factor` times the strength (the standard deviation; of ln G, for `lognormal`)."""
    return _with(cell, cell.write_noise.scaled(factor))


def _with(cell: Cell, noise: WriteNoise) -> Cell:
    """The cell with other write noise."""
    return cell if noise is cell.write_noise else cell.model_copy(update={"write_noise": noise})
