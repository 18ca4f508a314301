"""Write-verify: the write noise that remains if a cell that missed its target is written again.

The equations are derived here from the write noise of the cell. One write gives G' = clamp(G + d(eps)), where d, such
as s(G) eps, rises with eps. So the write is accepted if eps lies in an interval [a, b], and misses with probability
q = Phi(a) + 1 - Phi(b). After at most n writes with independent noise, the last of which stays,

    density of eps = phi(eps) * (1 + q + ... + q^(n - 1))  inside [a, b],    phi(eps) * q^(n - 1)  outside.

Inside [a, b] a result may come from any of the n writes, if all writes before it missed; outside, only from the last
write. The first factor is also the expected number of writes. It is long known that more pulses reduce the noise; HARP
(arXiv 2604.12420) is a recent write-verify scheme, in the Hadamard domain, but not the source of these equations.

Conductances are in siemens, in tensors of any shape. Results are in double precision, except those of `verified_eps`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ohmformer.device.closed_forms import normal_mass
from ohmformer.device.spec import Cell

_INFINITY = torch.tensor(math.inf, dtype=torch.float64)


def verified_eps(
    eps: Tensor, g: Tensor, cell: Cell, tolerance: float, writes: int, *, index: Tensor | None = None
) -> Tensor:
    """Transform standard normals of single writes into those of the writes that stay after write-verify.

    This is the inverse of the distribution function of the density above, at Phi(eps): exact, rising with eps, and eps
    itself for one write. So one random number per cell is drawn, whatever the number of writes.

    Args:
        eps: standard normals, whose shape broadcasts with that of the targets.
        g: targets [S]; with `index`, the distinct targets [K].
        cell: the cell.
        tolerance: largest accepted error, as a share of G_max - G_min.
        writes: largest number of writes of a cell.
        index: index into g for each cell, if there are few distinct targets; this saves most of the work.

    Returns:
        A tensor in the dtype of eps.
    """
    if writes == 1:
        return eps
    low, high = _acceptance_interval(g.double(), cell, tolerance)
    inside, outside = _density_factors(low, high, writes)
    below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
    by_target = (low, high, inside, outside, below, above)
    if index is not None:
        low, high, inside, outside, below, above = (values[index] for values in by_target)
    eps_ = eps.double()
    tail = torch.erfc(eps_.abs() / math.sqrt(2)) / 2
    v, rest = torch.where(eps_ < 0, tail, 1 - tail), torch.where(eps_ < 0, 1 - tail, tail)
    under, over = v < outside * below, rest < outside * above
    # On either side the probability of the smaller tail is used, which is exact however small it is.
    middle = below + (v - outside * below) / inside
    probability = torch.where(under, v / outside, torch.where(over, rest / outside, middle))
    verified = torch.special.ndtri(probability)
    clamped = torch.minimum(torch.maximum(verified, torch.where(under, verified, low)), high)
    return torch.where(over, -verified, clamped).to(eps.dtype)


def miss_probability(g: Tensor, cell: Cell, tolerance: float) -> Tensor:
    """The probability q that one write is not accepted.

    Args:
        g: targets [S].
        cell: the cell.
        tolerance: largest accepted error, as a share of G_max - G_min.
    """
    low, high = _acceptance_interval(g.double(), cell, tolerance)
    probability: Tensor = torch.special.ndtr(low) + torch.special.ndtr(-high)
    return probability


def moments(g: Tensor, cell: Cell, tolerance: float, writes: int) -> tuple[Tensor, Tensor]:
    """Mean [S] and variance [S^2] of the error G' - G after write-verify, with the clamp.

    Args:
        g: targets [S].
        cell: the cell.
        tolerance: largest accepted error, as a share of G_max - G_min.
        writes: largest number of writes of a cell.
    """
    g = g.double()
    low, high = _acceptance_interval(g, cell, tolerance)
    inside, outside = _density_factors(low, high, writes)
    parts = [
        (outside, _clamped_integrals(g, cell, -_INFINITY.expand_as(g), low)),
        (inside, _clamped_integrals(g, cell, low, high)),
        (outside, _clamped_integrals(g, cell, high, _INFINITY.expand_as(g))),
    ]
    mean = sum((weight * first for weight, (first, _) in parts), torch.zeros_like(g))
    square = sum((weight * second for weight, (_, second) in parts), torch.zeros_like(g))
    return mean, (square - mean * mean).clamp(min=0.0)


def _acceptance_interval(g: Tensor, cell: Cell, tolerance: float) -> tuple[Tensor, Tensor]:
    """The interval of eps in which a write of g is accepted; an end is infinite where the clamp is within tolerance."""
    margin, noise = tolerance * (cell.g_max - cell.g_min), cell.write_noise
    low, high = noise.eps_of_error(-margin, g, cell), noise.eps_of_error(margin, g, cell)
    exact = torch.isnan(high)
    low = torch.where(exact | (g <= margin), -_INFINITY, low)
    capped = torch.zeros_like(exact) if cell.g_ceiling is None else g + margin >= cell.g_ceiling
    return low, torch.where(exact | capped, _INFINITY, high)


def _density_factors(low: Tensor, high: Tensor, writes: int) -> tuple[Tensor, Tensor]:
    """Factors of the density inside, (1 - q^n) / p with p = 1 - q (n for p = 0), and outside, q^(n - 1)."""
    p = normal_mass(low, high)
    inside = torch.where(p > 0, -torch.expm1(writes * torch.log1p(-p)) / p, torch.full_like(p, writes))
    return inside, torch.pow(1 - p, writes - 1)


def _clamped_integrals(g: Tensor, cell: Cell, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Integrals of d phi(eps) [S] and d^2 phi(eps) [S^2] from a to b, where d = G' - G with the clamp at both ends."""
    first, second, top = cell.write_noise.parts(g, cell, a, b)
    if cell.g_ceiling is not None:
        full = normal_mass(torch.maximum(a, torch.minimum(top, b)), b)
        first, second = first + (cell.g_ceiling - g) * full, second + (cell.g_ceiling - g) ** 2 * full
    return first, second
