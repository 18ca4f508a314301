"""Write-verify: what is left of write noise when a cell that missed its target is written again.

Derived from the write noise of the cell. One write gives G' = clamp(G + d(eps)), such as d = s(G) eps, which rises with
eps: so it is accepted where eps lies in an interval [a, b], and missed with probability q = Phi(a) + 1 - Phi(b).
After at most n writes of independent noise, the last of which stays,

    density of eps = phi(eps) * (1 + q + ... + q^(n - 1))  inside [a, b],    phi(eps) * q^(n - 1)  outside,

since inside it is accepted at any of the n writes before which all others missed, and outside only the last one stays.
The first factor is the expected number of writes too. That more pulses buy less noise is long known; HARP
(arXiv 2604.12420) is a recent scheme of write-verify, in the Hadamard domain, and no source of these equations.

Conductances are SI siemens in tensors of any shape; results are in double precision, but for `kept`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ohmformer.device.closed_forms import normal_mass
from ohmformer.device.spec import Cell

_INFINITY = torch.tensor(math.inf, dtype=torch.float64)


def kept(eps: Tensor, g: Tensor, cell: Cell, tolerance: float, writes: int, *, which: Tensor | None = None) -> Tensor:
    """Standard normals turned into what is kept of the noise of up to so many writes of targets g [S].

    It is the inverse of the distribution function above at Phi(eps): exact, rising with eps, and eps itself for one
    write. So one number per cell is drawn, whatever the number of writes. The dtype is kept.

    Args:
        eps: standard normals, of a shape that broadcasts with that of the targets.
        g: the targets, or those that `which` chooses from.
        cell: what is written.
        tolerance: share of the range by which an accepted write may be off.
        writes: at most so many for a cell.
        which: the place of each target in g[D], where there are few different ones: it saves most of the work.
    """
    if writes == 1:
        return eps
    low, high = _accepted(g.double(), cell, tolerance)
    inside, outside = _weights(low, high, writes)
    below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
    known = (low, high, inside, outside, below, above)
    if which is not None:
        low, high, inside, outside, below, above = (each[which] for each in known)
    eps_ = eps.double()
    tail = torch.erfc(eps_.abs() / math.sqrt(2)) / 2
    v, rest = torch.where(eps_ < 0, tail, 1 - tail), torch.where(eps_ < 0, 1 - tail, tail)
    under, over = v < outside * below, rest < outside * above
    # Whatever side it is on, the probability of the smaller tail is taken, which is exact however small it is.
    middle = below + (v - outside * below) / inside
    probability = torch.where(under, v / outside, torch.where(over, rest / outside, middle))
    found = torch.special.ndtri(probability)
    found = torch.where(over, -found, torch.minimum(torch.maximum(found, torch.where(under, found, low)), high))
    return found.to(eps.dtype)


def miss(g: Tensor, cell: Cell, tolerance: float) -> Tensor:
    """The probability q that one write of a target g [S] is not accepted."""
    low, high = _accepted(g.double(), cell, tolerance)
    found: Tensor = torch.special.ndtr(low) + torch.special.ndtr(-high)
    return found


def moments(g: Tensor, cell: Cell, tolerance: float, writes: int) -> tuple[Tensor, Tensor]:
    """Mean [S] and variance [S^2] of the error G' - G after up to so many writes of targets g, clamps included."""
    g = g.double()
    low, high = _accepted(g, cell, tolerance)
    inside, outside = _weights(low, high, writes)
    parts = [
        (outside, _part(g, cell, -_INFINITY.expand_as(g), low)),
        (inside, _part(g, cell, low, high)),
        (outside, _part(g, cell, high, _INFINITY.expand_as(g))),
    ]
    mean = sum((weight * first for weight, (first, _) in parts), torch.zeros_like(g))
    square = sum((weight * second for weight, (_, second) in parts), torch.zeros_like(g))
    return mean, (square - mean * mean).clamp(min=0.0)


def _accepted(g: Tensor, cell: Cell, tolerance: float) -> tuple[Tensor, Tensor]:
    """The interval of eps in which a write of g is accepted; without end where clamping brings it into tolerance."""
    margin, noise = tolerance * (cell.g_max - cell.g_min), cell.write_noise
    low, high = noise.normal_of(-margin, g, cell), noise.normal_of(margin, g, cell)
    still = torch.isnan(high)
    low = torch.where(still | (g <= margin), -_INFINITY, low)
    capped = torch.zeros_like(still) if cell.g_ceiling is None else g + margin >= cell.g_ceiling
    return low, torch.where(still | capped, _INFINITY, high)


def _weights(low: Tensor, high: Tensor, writes: int) -> tuple[Tensor, Tensor]:
    """Factors of the density inside and outside: (1 - q^n) / p with q = 1 - p, which is n for p = 0, and q^(n - 1)."""
    p = normal_mass(low, high)
    inside = torch.where(p > 0, -torch.expm1(writes * torch.log1p(-p)) / p, torch.full_like(p, writes))
    return inside, torch.pow(1 - p, writes - 1)


def _part(g: Tensor, cell: Cell, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Integrals of d phi(eps) and d^2 phi(eps) from a to b, where d = G' - G [S], clamps included."""
    first, second, top = cell.write_noise.parts(g, cell, a, b)
    if cell.g_ceiling is not None:
        full = normal_mass(torch.maximum(a, torch.minimum(top, b)), b)
        first, second = first + (cell.g_ceiling - g) * full, second + (cell.g_ceiling - g) ** 2 * full
    return first, second
