"""Write and read noise of a cell as pure functions of conductance and of given standard normals.

Conductances here are SI siemens, in tensors of any shape; `eps` has the same shape. Nothing is drawn here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.device.spec import (
    Cell,
    Lognormal,
    NoNoise,
    PcmFlicker,
    Polynomial,
    Proportional,
    SqrtRange,
    Uniform,
)


def write(g: Tensor, cell: Cell, eps: Tensor) -> Tensor:
    """The conductance found after writing targets g [S], clamped to 0 <= G' and to the cell's ceiling."""
    if isinstance(cell.write_noise, Lognormal):
        noisy = g * torch.exp(cell.write_noise.sigma * eps)
    else:
        noisy = g + write_std(g, cell) * eps
    return noisy.clamp(min=0.0, max=cell.g_ceiling)


def write_std(g: Tensor, cell: Cell) -> Tensor:
    """Standard deviation [S] of a write of target g, before the clamp."""
    noise, span = cell.write_noise, cell.g_max - cell.g_min
    match noise:
        case NoNoise():
            return torch.zeros_like(g)
        case SqrtRange():
            return noise.gamma * noise.sigma * ((g - cell.g_min).clamp(min=0.0) * span).sqrt()
        case Proportional():
            return noise.sigma * g
        case Uniform():
            return torch.full_like(g, noise.sigma * span)
        case Polynomial():
            x = g / cell.g_max
            return (cell.g_max / noise.g_ref * (noise.c0 + noise.c1 * x + noise.c2 * x * x)).clamp(min=0.0)
        case Lognormal():
            variance = noise.sigma**2
            return g * (torch.exp(torch.as_tensor(variance)) * torch.expm1(torch.as_tensor(variance))).sqrt().to(g)


def read(g: Tensor, cell: Cell, eps: Tensor, *, age: float = 0.0) -> Tensor:
    """The conductance that one read of cells at g [S] sees; `age` is the time since programming [s]."""
    return g + read_std(g, cell, age=age) * eps


def read_std(g: Tensor, cell: Cell, *, age: float = 0.0) -> Tensor:
    """Standard deviation [S] of one read of cells at g, `age` seconds after programming."""
    noise = cell.read_noise
    match noise:
        case NoNoise():
            return torch.zeros_like(g)
        case Proportional():
            return noise.sigma * g
        case Uniform():
            return torch.full_like(g, noise.sigma * (cell.g_max - cell.g_min))
        case PcmFlicker():
            x = (g / cell.g_max).pow(noise.q_power).clamp(min=1e-3)
            q = (noise.q_scale / x).clamp(max=noise.q_max)
            growth = torch.log(torch.as_tensor((age + noise.t_read) / (2 * noise.t_read), dtype=torch.float64))
            return g.abs() * q * float(growth.clamp(min=0.0).sqrt())


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
