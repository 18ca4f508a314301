"""Closed forms of Gaussian and lognormal write noise: mean, variance, and their integrals over an interval of eps.

One write of a target g gives G' = clamp(g + d(eps)) for a standard normal eps with density phi. The clamp is at 0 and,
if the cell has one, at a ceiling. Conductances are in siemens, in tensors of any shape. These functions draw nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SQRT_2_PI = math.sqrt(2 * math.pi)
_FAR = 40.0
"""Standard deviations beyond which the tail of a normal underflows in double precision."""

Parts = tuple[Tensor, Tensor, Tensor]
"""Integrals of d(eps) phi(eps) [S] and of d(eps)^2 phi(eps) [S^2] over the part of an interval in which the ceiling is
not reached, and the eps at which it is reached."""


def censored_normal(g: Tensor, std: Tensor, ceiling: float | None) -> tuple[Tensor, Tensor]:
    """Mean [S] and variance [S^2] of clamp(std eps, -g, ceiling - g), a censored normal (Tobin 1958).

    Args:
        g: targets [S].
        std: standard deviations [S] before the clamp, of the same shape.
        ceiling: upper bound of the conductance [S]; None for none.
    """
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
    """Mean [S] and variance [S^2] of min(g exp(sigma eps), ceiling) - g. A target of 0 is written exactly.

    Args:
        g: targets [S].
        sigma: standard deviation of ln G; above 0.
        ceiling: upper bound of the conductance [S]; None for none.
    """
    power = [math.exp(n * n * sigma**2 / 2) for n in (1, 2)]
    if ceiling is None:
        return g * math.expm1(sigma**2 / 2), g * g * power[1] * -math.expm1(-(sigma**2))
    z = torch.where(g > 0, ceiling / torch.where(g > 0, g, 1.0), math.inf).log() / sigma
    # The ceiling is reached at eps = z; in the n-th moment the normal is shifted by n sigma.
    above = torch.special.ndtr(-z)
    mean, square = (g**n * power[n - 1] * torch.special.ndtr(z - n * sigma) + ceiling**n * above for n in (1, 2))
    return mean - g, (square - mean * mean).clamp(min=0.0)


def normal_parts(
    g: Tensor, std: Tensor, ceiling: float, a: Tensor, b: Tensor, *, offset: Tensor | None = None
) -> Parts:
    """Integrals (see `Parts`) for the clamped Gaussian error d = offset + std eps.

    Args:
        g: targets [S].
        std: standard deviations [S].
        ceiling: upper bound of the conductance [S]; infinity for none.
        a: lower ends of the intervals of eps.
        b: upper ends.
        offset: mean error before the clamp [S]; None for 0.
    """
    mean = g if offset is None else g + offset
    floor = torch.nan_to_num(-mean / std, nan=-math.inf, neginf=-math.inf)
    top = torch.nan_to_num((ceiling - mean) / std, nan=math.inf, posinf=math.inf)
    l, h = (torch.minimum(torch.maximum(end, floor), top) for end in (a, b))
    zero = normal_mass(a, torch.minimum(b, torch.maximum(floor, a)))
    first = std * (density(l) - density(h)) - g * zero
    second = std * std * (normal_mass(l, h) + _moment(l) - _moment(h)) + g * g * zero
    if offset is not None:
        mass = normal_mass(l, h)
        second = second + offset * (2 * std * (density(l) - density(h)) + offset * mass)
        first = first + offset * mass
    return first, second, top


def lognormal_parts(g: Tensor, sigma: float, ceiling: float, a: Tensor, b: Tensor) -> Parts:
    """Integrals (see `Parts`) for the lognormal error d = g exp(sigma eps) - g; arguments as in `normal_parts`."""
    top = torch.nan_to_num(torch.log(ceiling / g) / sigma, nan=math.inf, posinf=math.inf)
    h = torch.minimum(b, torch.maximum(top, a))
    # The integral of exp(k sigma eps) phi(eps) is that of phi, shifted by k sigma, times exp((k sigma)^2 / 2).
    zeroth, first, second = (
        math.exp(shift * shift / 2) * normal_mass(a - shift, h - shift) for shift in (0.0, sigma, 2 * sigma)
    )
    return g * (first - zeroth), g * g * (second - 2 * first + zeroth), top


def normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """Phi(high) - Phi(low): the probability that a standard normal lies between them."""
    root = math.sqrt(2)
    return (torch.erf(high / root) - torch.erf(low / root)) / 2


def density(z: Tensor) -> Tensor:
    """phi(z): density of the standard normal."""
    return torch.exp(-z * z / 2) / _SQRT_2_PI


def _moment(x: Tensor) -> Tensor:
    """x phi(x), with the limit 0 at both infinities."""
    return torch.where(torch.isinf(x), 0.0, x * density(x))
