"""Mean, variance and parts of them for write noise that is Gaussian or lognormal, on plain tensors.

One write of a target g gives G' = clamp(G + d(eps)) with a standard normal eps: clamped at 0, and at a ceiling where
there is one. Conductances are SI siemens in tensors of any shape; nothing is drawn here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SQRT_2_PI = math.sqrt(2 * math.pi)
_FAR = 40.0
"""Standard deviations beyond which a normal has no tail that a double could hold."""

Parts = tuple[Tensor, Tensor, Tensor]
"""Integrals of d phi(eps) [S] and d^2 phi(eps) [S^2] over an interval without what is above the ceiling, and the eps
at which the ceiling is reached."""


def censored_normal(g: Tensor, std: Tensor, ceiling: float | None) -> tuple[Tensor, Tensor]:
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


def capped_lognormal(g: Tensor, sigma: float, ceiling: float | None) -> tuple[Tensor, Tensor]:
    """Moments of min(g exp(sigma eps), ceiling) - g; g = 0 stays there."""
    power = [math.exp(n * n * sigma**2 / 2) for n in (1, 2)]
    if ceiling is None:
        return g * math.expm1(sigma**2 / 2), g * g * power[1] * -math.expm1(-(sigma**2))
    z = torch.where(g > 0, ceiling / torch.where(g > 0, g, 1.0), math.inf).log() / sigma
    # What is cut off lies beyond z; the n-th power shifts the normal by n sigma.
    above = torch.special.ndtr(-z)
    mean, square = (g**n * power[n - 1] * torch.special.ndtr(z - n * sigma) + ceiling**n * above for n in (1, 2))
    return mean - g, (square - mean * mean).clamp(min=0.0)


def normal_parts(g: Tensor, std: Tensor, ceiling: float, a: Tensor, b: Tensor) -> Parts:
    """Of d = std eps, clamped, for eps from a to b; an infinite ceiling is none."""
    floor = torch.nan_to_num(-g / std, nan=-math.inf, neginf=-math.inf)
    top = torch.nan_to_num((ceiling - g) / std, nan=math.inf, posinf=math.inf)
    l, h = (torch.minimum(torch.maximum(end, floor), top) for end in (a, b))
    zero = normal_mass(a, torch.minimum(b, torch.maximum(floor, a)))
    first = std * (density(l) - density(h)) - g * zero
    second = std * std * (normal_mass(l, h) + _moment(l) - _moment(h)) + g * g * zero
    return first, second, top


def lognormal_parts(g: Tensor, sigma: float, ceiling: float, a: Tensor, b: Tensor) -> Parts:
    """The same of d = g exp(sigma eps) - g."""
    top = torch.nan_to_num(torch.log(ceiling / g) / sigma, nan=math.inf, posinf=math.inf)
    h = torch.minimum(b, torch.maximum(top, a))
    # The integral of exp(k sigma eps) phi(eps) is that of phi, moved by k sigma, times exp((k sigma)^2 / 2).
    none, once, twice = (
        math.exp(moved * moved / 2) * normal_mass(a - moved, h - moved) for moved in (0.0, sigma, 2 * sigma)
    )
    return g * (once - none), g * g * (twice - 2 * once + none), top


def normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """Phi(b) - Phi(a), also where both are small."""
    root = math.sqrt(2)
    return (torch.erf(high / root) - torch.erf(low / root)) / 2


def density(z: Tensor) -> Tensor:
    """Of the standard normal."""
    return torch.exp(-z * z / 2) / _SQRT_2_PI


def _moment(x: Tensor) -> Tensor:
    """x phi(x), which is 0 at both ends."""
    return torch.where(torch.isinf(x), 0.0, x * density(x))
