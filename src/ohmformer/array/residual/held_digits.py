"""What a pair of cells holds after one digit was written, as far as a read-back can tell.

Symbols: d the digit that was written, h what the pair then holds (its used half less its unused half, in digits), y
what the read-back says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.special import ndtr

from ohmformer.array import encoding
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import faults, noise

Numbers = npt.NDArray[np.float64]

FINEST = 1 / 256
"""Step of a read-back without rounding, as a share of the largest digit, if it is noisy; a quarter of it if not."""
TAIL = 6.0
"""Where integrals over a standard normal end; it lies beyond with a probability of 2e-9."""
ONE_NOISY, BOTH_NOISY = 961, (127, 113)
"""Points of these integrals where one half of a pair is noisy, and where both are: of one half and of the other. They
have no common divisor, so that differences of both lie close together."""
MANY_CODES = 512
"""Codes of a read-back from which on values that lie close together count as one."""


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
    step, lowest, highest = read_back_codes(array)
    exact, codes = exact_read_back(array), np.arange(lowest, highest + 1)
    h, p, read_variance, variance = _held(array, digit, merged=exact or len(codes) > MANY_CODES)
    if exact:
        return Outcomes(p, h, variance, np.zeros(len(h), dtype=np.int64))
    if read_variance.any():
        # the probability of each code for each h, where all that lies beyond the last codes saturates
        limits = (codes[:-1] + 0.5) * step
        std = np.sqrt(np.maximum(read_variance, (1e-6 * step) ** 2))
        below = ndtr(torch.from_numpy((limits - h[:, None]) / std[:, None])).numpy()
        by_code = np.diff(below, prepend=0.0, append=1.0)
        total, first, second = (values @ by_code for values in (p, p * h, p * (h * h + variance)))
    else:
        code = np.clip(np.round(h / step), lowest, highest).astype(np.int64) - lowest
        total, first, second = (np.bincount(code, x, len(codes)) for x in (p, p * h, p * (h * h + variance)))
    seen = total > 1e-12
    mean, square = first[seen] / total[seen], second[seen] / total[seen]
    return Outcomes(total[seen] / total[seen].sum(), mean, np.maximum(square - mean**2, 0.0), codes[seen])


def _held(array: Crossbar, digit: int, *, merged: bool) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Values of h after a write, their probabilities, the variance of one read of each, and that of h around each.

    If they are `merged`, those that lie close together count as one.
    """
    if noise.silent(array.aged_cell):
        orders: tuple[tuple[int, int], ...] = ((0, 0),)
    else:
        orders = ((ONE_NOISY, 0),) if one_sided(array) else (BOTH_NOISY, BOTH_NOISY[::-1])
    parts = []
    for nodes, nodes_unused in orders:
        used, p_used, v_used = _half(array, digit, nodes)
        unused, p_unused, v_unused = _half(array, 0, nodes_unused)
        chance = np.outer(p_used, p_unused) / len(orders)
        parts.append([x.ravel() for x in (used[:, None] - unused, chance, v_used[:, None] + v_unused)])
    h, p, v = (np.concatenate(each) for each in zip(*parts, strict=True))
    if len(h) <= 2 or not merged:
        return h, p, v, np.zeros(len(h))
    finest = FINEST / 4 if exact_read_back(array) else FINEST
    _, index = np.unique(np.round(h / (finest * array.max_digit)), return_inverse=True)
    total = np.bincount(index, p)
    kept = total > 1e-10
    mean, square, read = (np.bincount(index, p * values)[kept] / total[kept] for values in (h, h * h, v))
    return mean, total[kept] / total[kept].sum(), read, np.maximum(square - mean**2, 0.0)


def _half(array: Crossbar, digit: int, nodes: int) -> tuple[Numbers, Numbers, Numbers]:
    """Digits that one cell may hold after a write, their probabilities, and the variance of one read of each.

    Faults count as probabilities over all chips. With 0 nodes, the write is exact.
    """
    cell = array.aged_cell
    eps = np.linspace(-TAIL, TAIL, nodes) if nodes else np.zeros(1)
    p = np.exp(-(eps**2) / 2) / np.exp(-(eps**2) / 2).sum()
    target = encoding.level_conductances(array)[digit].expand(len(eps)).clone()
    g = noise.write(target, cell, torch.from_numpy(eps)) if nodes else target
    if faults.faulty(cell):
        stuck = cell.faults.conductances(cell)
        g = torch.cat([g, torch.tensor([g_stuck for g_stuck, _ in stuck], dtype=torch.float64)])
        chances = np.array([chance for _, chance in stuck])
        p = np.concatenate([p * (1 - chances.sum()), chances])
    std = torch.zeros_like(g) if noise.exact_reads(cell) else noise.read_std(g, cell)
    held: Numbers = ((g - cell.g_min) / array.step).numpy()
    variance: Numbers = (std / array.step).square().numpy()
    return held, p, variance
