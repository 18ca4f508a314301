"""Write and read noise of a cell as pure functions of conductances and of given standard normals.

Conductances are in siemens, in tensors of any shape; standard normals `eps` have the same shape. These functions draw
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ohmformer.device.drift import age_by_age
from ohmformer.device.families import GaussianWriteNoise, WriteNoise
from ohmformer.device.kinds import SqrtRange
from ohmformer.device.spec import Cell


def write(g: Tensor, cell: Cell, eps: Tensor) -> Tensor:
    """The conductance [S] after one write of targets g [S], clamped to at least 0 and at most the cell's ceiling."""
    return cell.write_noise.after_write(g, cell, eps).clamp_(min=0.0, max=cell.g_ceiling)


def write_std(g: Tensor, cell: Cell) -> Tensor:
    """Standard deviation [S] of one write of targets g [S], before the clamp."""
    return cell.write_noise.write_std(g, cell)


def write_mean(g: Tensor, cell: Cell) -> Tensor:
    """Mean [S] of one Gaussian write of targets g [S], before the clamp; g itself if writes have no bias."""
    return cell.write_noise.write_mean(g, cell) if isinstance(cell.write_noise, GaussianWriteNoise) else g


def mean_is_target(cell: Cell) -> bool:
    """True if the mean of one Gaussian write, before the clamp, is its target."""
    return not isinstance(cell.write_noise, GaussianWriteNoise) or cell.write_noise.mean_is_target


def gaussian(cell: Cell) -> bool:
    """True if write noise is Gaussian before the clamp, so that `write_mean` and `write_std` describe it completely."""
    return isinstance(cell.write_noise, GaussianWriteNoise)


def read(g: Tensor, cell: Cell, eps: Tensor, *, age: float = 0.0, written: Tensor | None = None) -> Tensor:
    """The conductance [S] that one read of cells at g [S] measures, not clamped; arguments as in `read_std`."""
    return torch.addcmul(g, read_std(g, cell, age=age, written=written), eps)


def read_std(g: Tensor, cell: Cell, *, age: float = 0.0, written: Tensor | None = None) -> Tensor:
    """Standard deviation [S] of one read.

    Args:
        g: present conductances [S].
        cell: the cell.
        age: time since programming [s].
        written: conductances just after programming [S], if they have drifted since; None for g.
    """
    return cell.read_noise.read_std(g, cell, age=age, written=written)


def read_std_by_age(g: Tensor, cell: Cell, ages: Tensor, *, written: Tensor | None = None) -> Tensor:
    """`read_std` of cells that were written at different times.

    Args:
        g: present conductances [S].
        cell: the cell.
        ages: time since programming of each cell [s], float64 on the CPU; broadcasts against g.
        written: as in `read_std`.
    """
    if cell.read_noise.takes_ages:
        return cell.read_noise.read_std(g, cell, age=ages, written=written)  # type: ignore[arg-type]

    def of_age(age: float, part: Callable[[Tensor], Tensor]) -> Tensor:
        return read_std(part(g), cell, age=age, written=None if written is None else part(written))

    return age_by_age(ages, of_age, g)


def exact_reads(cell: Cell) -> bool:
    """True if reads are free of noise."""
    return cell.read_noise.exact


def remembers_writing(cell: Cell) -> bool:
    """True if read noise depends on the conductance before drift."""
    return cell.read_noise.remembers_writing


def silent_at_g_min(cell: Cell) -> bool:
    """True if writing G_min is exact, so that the unused half of a pair adds no write noise."""
    return cell.write_noise.silent_at_g_min(cell)


def silent(cell: Cell) -> bool:
    """True if every write is exact."""
    return cell.write_noise.silent


def with_gamma(cell: Cell, value: float) -> Cell:
    """The cell with another `gamma`; unchanged if its write noise has no such field."""
    noise = cell.write_noise
    return _with_write_noise(cell, noise.model_copy(update={"gamma": value})) if isinstance(noise, SqrtRange) else cell


def scaled(cell: Cell, factor: float) -> Cell:
    """The cell with stronger or weaker write noise.

    Args:
        cell: the cell.
        factor: factor on the standard deviation (of ln G for `lognormal`).

    Raises:
        BadInput: the kind of write noise does not say which fields scale it.
    """
    return _with_write_noise(cell, cell.write_noise.scaled(factor))


def _with_write_noise(cell: Cell, noise: WriteNoise) -> Cell:
    """The cell with another write noise."""
    return cell if noise is cell.write_noise else cell.model_copy(update={"write_noise": noise})
