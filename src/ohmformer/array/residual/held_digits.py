"""What a pair of cells holds after one digit was written, as far as a read-back can tell.

Symbols: d the digit that was written, h what the pair then holds (its used half less its unused half, in digits), y
what the read-back says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ohmformer.array import encoding
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import faults, noise

Numbers = npt.NDArray[np.float64]

FINEST = 1 / 256
"""Step of a noisy read-back without rounding, as a share of the largest digit."""
ATOMS = 160
"""Largest number of values that a distribution is reduced to where read-back is exact."""
_WRITE_NODES, _READ_NODES, _TAIL = 121, 61, 6.0
"""Points of a standard normal in integrals, and where they end: it lies beyond with a probability of 2e-9."""


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a read-back after one digit was written.

    Attributes:
        probability: [Y] of each outcome.
        mean: [Y] of h, given the outcome [digits].
        variance: [Y] of h, given the outcome [digits^2].
        code: [Y] code of the read-back, 0 for an exact one.
    """

    probability: Numbers
    mean: Numbers
    variance: Numbers
    code: npt.NDArray[np.int64]


def exact_read_back(array: Crossbar) -> bool:
    """True if the read-back tells exactly what a pair holds."""
    assert array.residual is not None
    return array.residual.bits == "ideal" and noise.exact_reads(array.cell)


def read_back_codes(array: Crossbar) -> tuple[float, int, int]:
    """Step [digits], lowest and highest code of the read-back. Both signs occur unless the unused half is exact."""
    assert array.residual is not None
    bits, top = array.residual.bits, array.residual.range * array.max_digit
    if bits == "ideal":
        step = FINEST * array.max_digit
        return step, -round(top / step), round(top / step)
    if one_sided(array):
        highest = (1 << bits) - 1
        return top / highest, 0, highest
    highest = max(1, (1 << (bits - 1)) - 1)
    return top / highest, -highest, highest


def outcomes(array: Crossbar, digit: int) -> Outcomes:
    """The outcomes of the read-back after a digit was written."""
    h, p, read_variance = _held(array, digit)
    if exact_read_back(array):
        return _grouped(h, p, _even_groups(h))
    step, lowest, highest = read_back_codes(array)
    y, p_y = _normal_points(_READ_NODES)
    if not read_variance.any():
        y, p_y = np.zeros(1), np.ones(1)
    seen = h[:, None] + np.sqrt(read_variance)[:, None] * y
    codes = np.clip(np.round(seen / step), lowest, highest).astype(np.int64).ravel()
    return _grouped(np.repeat(h, len(y)), np.outer(p, p_y).ravel(), codes)


def _held(array: Crossbar, digit: int) -> tuple[Numbers, Numbers, Numbers]:
    """Values of h after a write, their probabilities, and the variance of one read of each [digits^2]."""
    used, p_used, v_used = _half(array, digit, exact=noise.silent(array.aged_cell))
    unused, p_unused, v_unused = _half(array, 0, exact=one_sided(array))
    h = (used[:, None] - unused).ravel()
    return h, np.outer(p_used, p_unused).ravel(), (v_used[:, None] + v_unused).ravel()


def _half(array: Crossbar, digit: int, *, exact: bool) -> tuple[Numbers, Numbers, Numbers]:
    """Digits that one cell may hold after a write, their probabilities, and the variance of one read of each.

    Faults count as probabilities over all chips.
    """
    cell = array.aged_cell
    eps, p = (np.zeros(1), np.ones(1)) if exact else _normal_points(_WRITE_NODES)
    target = encoding.level_conductances(array)[digit].expand(len(eps)).clone()
    g = target if exact else noise.write(target, cell, torch.from_numpy(eps))
    if faults.faulty(cell):
        stuck = cell.faults.conductances(cell)
        g = torch.cat([g, torch.tensor([g_stuck for g_stuck, _ in stuck], dtype=torch.float64)])
        chances = np.array([chance for _, chance in stuck])
        p = np.concatenate([p * (1 - chances.sum()), chances])
    std = torch.zeros_like(g) if noise.exact_reads(cell) else noise.read_std(g, cell)
    held: Numbers = ((g - cell.g_min) / array.step).numpy()
    variance: Numbers = (std / array.step).square().numpy()
    return held, p, variance


def _normal_points(nodes: int) -> tuple[Numbers, Numbers]:
    """Evenly spaced points of a standard normal, and their probabilities."""
    eps = np.linspace(-_TAIL, _TAIL, nodes)
    density = np.exp(-(eps**2) / 2)
    return eps, density / density.sum()


def _even_groups(h: Numbers) -> npt.NDArray[np.int64]:
    """The number of a group for each value: groups of one value each, or of equal width if values are many."""
    if len(h) <= ATOMS:
        return np.arange(len(h))
    width = (h.max() - h.min()) / ATOMS
    return np.minimum((h - h.min()) / width, ATOMS - 1).astype(np.int64)


def _grouped(h: Numbers, p: Numbers, group: npt.NDArray[np.int64]) -> Outcomes:
    """Probability, mean and variance of each group of values."""
    codes, index = np.unique(group, return_inverse=True)
    total = np.bincount(index, p)
    kept = total > 1e-15
    mean = np.bincount(index, p * h)[kept] / total[kept]
    square = np.bincount(index, p * h * h)[kept] / total[kept]
    return Outcomes(total[kept] / total[kept].sum(), mean, np.maximum(square - mean**2, 0.0), codes[kept])
