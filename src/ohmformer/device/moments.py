"""Mean and variance of what a write leaves in a cell, in closed form, the clamp of `noise.write` included."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ohmformer.device import noise
from ohmformer.device.spec import Cell, Lognormal

_SQRT_2_PI = math.sqrt(2 * math.pi)
_FAR = 40.0
"""Standard deviations beyond which a normal has no tail that a double could hold."""


def write_moments(g: Tensor, cell: Cell) -> tuple[Tensor, Tensor]:
    """By how much writes of targets g [S] miss them on average [S], and their variance [S^2].

    Targets lie between 0 and the cell's ceiling. Exactly zero where writes are exact.
    """
    spread = cell.write_noise.sigma if isinstance(cell.write_noise, Lognormal) else 0.0
    if spread:
        return _capped_lognormal(g, spread, cell.g_ceiling)
    return _censored_normal(g, noise.write_std(g, cell), cell.g_ceiling)


def _censored_normal(g: Tensor, std: Tensor, ceiling: float | None) -> tuple[Tensor, Tensor]:
    """Moments of clamp(std eps, -g, ceiling - g): all beyond the bounds sits on them (Tobin 1958)."""
    safe = torch.where(std > 0, std, 1.0)
    a = (-g / safe).clamp(min=-_FAR)
    below, at_a = torch.special.ndtr(a), density(a)
    shift = a * below + at_a
    second = a * a * below + (1 - below) + a * at_a
    if ceiling is not None:
        b = ((ceiling - g) / safe).clamp(max=_FAR)
        above, at_b = torch.special.ndtr(-b), density(b)
        shift = shift + b * above - at_b
        second = second + b * b * above - above - b * at_b
    shift, variance = shift * safe, (second - shift * shift).clamp(min=0.0) * safe**2
    exact = std == 0
    return torch.where(exact, 0.0, shift), torch.where(exact, 0.0, variance)


def _capped_lognormal(g: Tensor, sigma: float, ceiling: float | None) -> tuple[Tensor, Tensor]:
    """Moments of min(g exp(sigma eps), ceiling) - g; g = 0 stays there."""
    power = [math.exp(n * n * sigma**2 / 2) for n in (1, 2)]
    if ceiling is None:
        return g * math.expm1(sigma**2 / 2), g * g * power[1] * -math.expm1(-(sigma**2))
    z = torch.where(g > 0, ceiling / torch.where(g > 0, g, 1.0), math.inf).log() / sigma
    # What is cut off lies beyond z; the n-th power shifts the normal by n sigma.
    above = torch.special.ndtr(-z)
    mean, square = (g**n * power[n - 1] * torch.special.ndtr(z - n * sigma) + ceiling**n * above for n in (1, 2))
    return mean - g, (square - mean * mean).clamp(min=0.0)


def density(z: Tensor) -> Tensor:
    """Of the standard normal."""
    return torch.exp(-z * z / 2) / _SQRT_2_PI
