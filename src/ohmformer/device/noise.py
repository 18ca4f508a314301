"""Write and read noise of a cell as pure functions of conductance and of given standard normals.

Conductances here are SI siemens, in tensors of any shape; `eps` has the same shape. Nothing is drawn here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ohmformer.device.spec import Cell, Lognormal, NoNoise, PcmFlicker, Polynomial, Proportional, SqrtRange, Uniform


def write(g: Tensor, cell: Cell, eps: Tensor) -> Tensor:
    """The conductance found after writing targets g [S], clamped to 0 <= G' and to the cell's ceiling."""
    if isinstance(cell.write_noise, Lognormal):
        noisy = g * torch.exp(cell.write_noise.sigma * eps)
    else:
        noisy = write_std(g, cell) * eps + g
    return noisy.clamp_(min=0.0, max=cell.g_ceiling)


def write_std(g: Tensor, cell: Cell) -> Tensor:
    """Standard deviation [S] of a write of target g, before the clamp."""
    noise, span = cell.write_noise, cell.g_max - cell.g_min
    match noise:
        case NoNoise():
            return torch.zeros_like(g)
        case SqrtRange():
            x = (g - cell.g_min).clamp_(min=0.0)
            root = x.clamp(min=1e-30).rsqrt_().mul_(x)  # sqrt(x), for which many zeros are no slow case
            return root.mul_(noise.gamma * noise.sigma * math.sqrt(span))
        case Proportional():
            return noise.sigma * g
        case Uniform():
            return torch.full_like(g, noise.sigma * span)
        case Polynomial():
            x = g / cell.g_max
            return (cell.g_max / noise.g_ref * (noise.c0 + noise.c1 * x + noise.c2 * x * x)).clamp(min=0.0)
        case Lognormal():
            return g * math.sqrt(math.exp(noise.sigma**2) * math.expm1(noise.sigma**2))


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
    noise = cell.read_noise
    match noise:
        case NoNoise():
            return torch.zeros_like(g)
        case Proportional():
            return noise.sigma * g
        case Uniform():
            return torch.full_like(g, noise.sigma * (cell.g_max - cell.g_min))
        case PcmFlicker():
            x = (g if written is None else written) / cell.g_max
            q = (noise.q_scale / x.clamp(min=1e-12).pow(noise.q_power)).clamp(max=noise.q_max)
            growth = max(0.0, math.log((age + noise.t_read) / (2 * noise.t_read)))
            return g.abs() * q * math.sqrt(growth)


def remembers_writing(cell: Cell) -> bool:
    """Whether read noise depends on the conductance before drift."""
    return isinstance(cell.read_noise, PcmFlicker)


def silent_at_g_min(cell: Cell) -> bool:
    """Whether a cell written to G_min ends exactly there, so that an unused half of a pair adds no write noise."""
    noise = cell.write_noise
    match noise:
        case NoNoise() | SqrtRange():
            return True
        case Proportional() | Lognormal():
            return noise.sigma == 0 or cell.g_min == 0
        case Uniform():
            return noise.sigma == 0
        case Polynomial():
            return False


def silent(cell: Cell) -> bool:
    """Whether writes are exact everywhere."""
    noise = cell.write_noise
    match noise:
        case NoNoise():
            return True
        case SqrtRange():
            return noise.gamma * noise.sigma == 0
        case Proportional() | Uniform() | Lognormal():
            return noise.sigma == 0
        case Polynomial():
            return noise.c0 == noise.c1 == noise.c2 == 0


def with_gamma(cell: Cell, value: float) -> Cell:
    """The cell with another gamma, where its write noise has one."""
    noise = cell.write_noise
    return _with(cell, gamma=value) if isinstance(noise, SqrtRange) else cell


def scaled(cell: Cell, factor: float) -> Cell:
    """The cell with write noise of `factor` times the standard deviation (of ln G, for `lognormal`)."""
    noise = cell.write_noise
    match noise:
        case NoNoise():
            return cell
        case SqrtRange():
            return _with(cell, gamma=factor * noise.gamma)
        case Proportional() | Uniform() | Lognormal():
            return _with(cell, sigma=factor * noise.sigma)
        case Polynomial():
            return _with(cell, c0=factor * noise.c0, c1=factor * noise.c1, c2=factor * noise.c2)


def _with(cell: Cell, **values: Any) -> Cell:
    """The cell with other values in its write noise."""
    return cell.model_copy(update={"write_noise": cell.write_noise.model_copy(update=values)})
