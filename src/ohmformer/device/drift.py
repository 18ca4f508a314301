"""Conductance drift: what remains of a written conductance after some time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ohmformer.device.spec import Cell, NoDrift, PcmDrift, PowerLaw


def drifts(cell: Cell, age: float) -> bool:
    """Whether conductances change at all within `age` seconds."""
    return not isinstance(cell.drift, NoDrift) and age > cell.drift.t0


def exponent(target: Tensor, cell: Cell, eps: Tensor) -> Tensor:
    """Drift exponent nu >= 0 of cells with target conductances [S]; eps are standard normals of the same shape."""
    drift = cell.drift
    match drift:
        case NoDrift():
            return torch.zeros_like(target)
        case PowerLaw():
            return (drift.nu + drift.nu_std * eps).clamp(min=0.0)
        case PcmDrift():
            log_g = (target / cell.g_max).clamp(min=1e-12).log()
            mu = (drift.mu_slope * log_g + drift.mu_offset).clamp(drift.mu_min, drift.mu_max)
            s = (drift.s_slope * log_g + drift.s_offset).clamp(drift.s_min, drift.s_max)
            return (mu + s * eps).abs()


def drift(g: Tensor, target: Tensor, cell: Cell, eps: Tensor, *, age: float) -> Tensor:
    """Conductance [S] at time `age` [s] of cells that were found at g after writing `target`: G' (t / t0)^-nu."""
    if not drifts(cell, age):
        return g
    assert not isinstance(cell.drift, NoDrift)
    return g * torch.exp(-exponent(target, cell, eps) * math.log(age / cell.drift.t0))
