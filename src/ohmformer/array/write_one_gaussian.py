"""Writing a matrix for one step of training: the distribution of `write_folded`, from fewer random numbers.

Where no cell of a value comes near a bound of its conductance, all their noise is one normal number; elsewhere each
cell has its own. The numbers are others than those of `write_folded`, so nothing that is evaluated uses it.
Shapes: O outputs, I inputs, S slices, N magnitudes of codes; `...` are matrices (samples, heads) that share one call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Unpack

import torch
from torch import Tensor

from ohmformer.array import crossbar, encoding
from ohmformer.array.chunking import pieces
from ohmformer.array.crossbar import Job, Writing
from ohmformer.array.folded import Folded
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import drift, faults, noise

FAR = 4.0
"""Standard deviations from a level to a bound of the conductance at which the bound is as good as absent: the clamp
moves the mean of such a cell by less than phi(4) - 4 Q(4) = 7e-6 of its standard deviation."""


def writable(array: Crossbar) -> bool:
    """Whether `write_normal` knows the array: pairs written once with Gaussian noise, and nothing else that happens.

    Where the clamp matters, the unused half of a pair must be free of noise.
    """
    cell = array.cell
    if array.encoding != "differential" or array.verify or not noise.gaussian(cell):
        return False
    still = not drift.drifts(cell, array.age) and not faults.faulty(cell)
    return still and (one_sided(array) or far(array))


def far(array: Crossbar) -> bool:
    """Whether all levels are far from the bounds of the conductance, as the write noise goes."""
    g = encoding.levels(array)
    ceiling = math.inf if array.cell.g_ceiling is None else array.cell.g_ceiling
    std = noise.write_std(g, array.cell)
    return bool((std == 0).logical_or_(torch.minimum(g, ceiling - g) >= FAR * std).all())


def _tables(array: Crossbar, slices: int) -> tuple[Tensor, Tensor]:
    """[S, N] by slice and magnitude of a code: the digit that its cell is to hold, and the standard deviation."""
    codes = torch.arange(array.capacity(slices) + 1, dtype=torch.float64)
    digits = torch.stack(list(encoding.places(codes, array, slices)))
    by_digit = noise.write_std(encoding.levels(array), array.cell) / array.step
    return digits, by_digit[digits.long()]


@torch.no_grad()
def write_normal(codes: Tensor, array: Crossbar, **how: Unpack[Writing]) -> Folded:
    """`write_folded(codes, array, read_noise=False, ...)` with other random numbers; only where `writable(array)`.

    See `Writing`.
    """
    job = crossbar.prepare(codes, array, **how)
    if noise.silent(array.cell):
        return Folded(job.codes * job.unit, None, None, job.unit)
    weight = _one_number(job) if far(array) else _cell_by_cell(job)
    return Folded(weight.mul_(job.unit), None, None, job.unit)


def _one_number(job: Job) -> Tensor:
    """What the cells of each code hold together, in codes."""
    _, stds = _tables(job.array, job.slices)
    places = torch.tensor([job.array.place(s) for s in range(job.slices)], dtype=torch.float64)
    variance = (places[:, None] * stds / job.array.copies).square().sum(dim=0)
    table = (variance + variance[0]).sqrt().to(job.codes)  # the unused half holds a zero
    drawn = job.writer("cell").normal(job.codes.unsqueeze(0))[0]
    for code, number in _pieces(job, [drawn]):
        number.mul_(_looked_up(table, _magnitude(code))).add_(code)
    return drawn


def _cell_by_cell(job: Job) -> Tensor:
    """The same where cells are clamped, each by itself."""
    array = job.array
    digits, stds = (table.to(job.codes) for table in _tables(array, job.slices))
    low = -array.cell.g_min / array.step
    high = None if array.cell.g_ceiling is None else (array.cell.g_ceiling - array.cell.g_min) / array.step
    writer = job.writer("cell")
    drawn = [writer.normal(job.codes.unsqueeze(0))[0] for _ in range(job.slices)]
    for code, *numbers in _pieces(job, drawn):
        magnitude = _magnitude(code)
        for s, number in enumerate(numbers):
            number.mul_(_looked_up(stds[s], magnitude)).add_(_looked_up(digits[s], magnitude)).clamp_(low, high)
            if s:
                numbers[0].add_(number, alpha=array.place(s))
        encoding.averaged_(numbers[0], array).mul_(code.sign())
    return drawn[0]


def _pieces(job: Job, drawn: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Codes [..., O, I] and numbers drawn for them, piece by piece, in the order in which numbers are drawn."""
    codes, *drawn = (t.transpose(-2, -1) if job.major == "inputs" else t for t in (job.codes, *drawn))
    return pieces(codes.contiguous(), *drawn)


def _magnitude(codes: Tensor) -> Tensor:
    return codes.abs().to(torch.int32)


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.view(-1)).view(index.shape) if index.is_contiguous() else table[index]
