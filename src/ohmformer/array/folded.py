"""A programmed matrix as one matrix of values: all that is needed where no converter stands between slices.

Shapes: M input vectors, O outputs, I inputs, C column blocks; `...` are matrices that share one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from ohmformer.array import crossbar, encoding
from ohmformer.array.crossbar import Job, Programmed, Writing
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.errors import BadInput
from ohmformer.streams import Streams


@dataclass(frozen=True)
class Folded:
    """A programmed matrix with slices and polarities summed.

    Attributes:
        weight: [..., O, I] the values that the cells hold.
        variance: [..., O, I] variance of one read of them at unit input, or None without read noise.
        reference_variance: [..., C, I] the same of the reference columns of `offset` arrays, in codes squared.
        unit: [..., O or 1, 1] value of one code.
    """

    weight: Tensor
    variance: Tensor | None
    reference_variance: Tensor | None
    unit: Tensor


class _Sum:
    """Slices of one group of columns, summed by their places as they come."""

    def __init__(self, array: Crossbar, read_noise: bool) -> None:
        self.array, self.read_noise, self.slice = array, read_noise, 0
        self.total: Tensor | None = None
        self.variance: Tensor | None = None

    def add(self, cells: Tensor, written: Tensor | None) -> None:
        """Take in the next slice [..., O, I], the least significant first."""
        place = float(self.array.place(self.slice))
        self.total = cells.clone() if self.total is None else self.total.add_(cells, alpha=place)
        variance = crossbar.read_variance(cells, self.array, written) if self.read_noise else None
        if variance is not None:
            self.variance = variance if self.variance is None else self.variance.add_(variance, alpha=place**2)
        self.slice += 1

    def take_(self) -> tuple[Tensor, Tensor | None]:
        """What all slices hold, in codes, and the variance of one read of them; the sums are used up."""
        assert self.total is not None
        variance = self.variance
        if variance is not None:
            variance = encoding.averaged_(encoding.averaged_(variance, self.array), self.array)
        return encoding.averaged_(self.total, self.array), variance


def fold(programmed: Programmed, *, read_noise: bool = True) -> Folded:
    """Sum slices and polarities of a programmed matrix; without `read_noise` its variances are left out."""
    sums = []
    for cells, written in _groups(programmed):
        group = _Sum(programmed.array, read_noise)
        for s, part in enumerate(cells.unbind(0)):
            group.add(part, None if written is None else written[s])
        sums.append(group)
    return _joined(sums, programmed.array, programmed.unit)


def _groups(programmed: Programmed) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Slices [S, ..., O or C, I] of the columns that count positively, then of those that count negatively."""
    for p, cells in enumerate(programmed.cells.unbind(0)):
        yield cells, None if programmed.written is None else programmed.written[p]
    if programmed.reference is not None:
        yield programmed.reference, programmed.reference_written


def _joined(sums: list[_Sum], array: Crossbar, unit: Tensor) -> Folded:
    """The difference of two groups of columns, as values."""
    (plus, variance), (minus, minus_variance) = (group.take_() for group in sums)
    if array.encoding == "offset":
        shift = minus.repeat_interleave(array.columns, dim=-2)[..., : plus.shape[-2], :]
        return Folded((plus - shift).mul_(unit), None if variance is None else variance * unit**2, minus_variance, unit)
    weight = (plus - minus).mul_(unit)
    if variance is None or minus_variance is None:
        return Folded(weight, None, None, unit)
    return Folded(weight, (variance + minus_variance).mul_(unit**2), None, unit)


@torch.no_grad()
def write_folded(codes: Tensor, array: Crossbar, *, read_noise: bool = True, **how: Unpack[Writing]) -> Folded:
    """`fold(write(codes, ...))`, the same numbers, without ever holding the cells of all slices.

    See `Writing` and `fold`.
    """
    job = crossbar.prepare(codes, array, **how)
    if one_sided(array):
        return _write_magnitudes(job, read_noise)
    codes, slices, writer = job.codes, job.slices, job.writer("cell")
    sums = [_Sum(array, read_noise) for _ in range(2)]
    for digit in encoding.digits(codes, array, slices):
        cells, written = writer.found(digit)
        for p, part in enumerate(cells.unbind(0)):
            sums[p].add(part, None if written is None else written[p])
    if array.encoding == "offset":
        writer = job.writer("reference")
        for target in crossbar.reference_targets(codes, array, slices):
            cells, written = writer.found(target)
            sums[1].add(cells[0], None if written is None else written[0])
    return _joined(sums, array, job.unit)


def _write_magnitudes(job: Job, read_noise: bool) -> Folded:
    """`write_folded` for pairs whose unused half stays at G_min: it adds read noise, and nothing else."""
    codes, unit, writer = job.codes, job.unit, job.writer("cell")
    used, unused = _Sum(job.array, read_noise), _Sum(job.array, read_noise)
    for digit in encoding.places(codes.abs().unsqueeze(0), job.array, job.slices):
        used.add(writer.found(digit)[0][0], None)
        unused.add(codes.new_zeros(()), None)
    (magnitude, variance), (_, unused_variance) = used.take_(), unused.take_()
    weight = magnitude.mul_(codes.sign()).mul_(unit)
    if variance is None or unused_variance is None:
        return Folded(weight, None, None, unit)
    return Folded(weight, (variance + unused_variance).mul_(unit**2), None, unit)


def folded_product(codes: Tensor, folded: Folded, array: Crossbar, stream: Streams | None) -> Tensor:
    """Integer inputs [..., M, I] times a folded matrix, the read noise of all its cells as one Gaussian: [..., M, O].

    Raises:
        BadInput: the cells have read noise and there is no stream.
    """
    y = codes @ folded.weight.transpose(-2, -1)
    if folded.variance is None:
        return y
    if stream is None:
        raise BadInput("the cells have read noise but no stream was given; pass stream=Stream(seed, ...) or an integer")
    power = encoding.read_power(codes, array)
    spread = (power @ folded.variance.transpose(-2, -1)).sqrt_()
    y = y.addcmul_(spread, stream.child("read").normal(*spread.shape, like=spread))
    if folded.reference_variance is not None:
        spread = (power @ folded.reference_variance.transpose(-2, -1)).sqrt_()
        shared = spread.mul_(stream.child("read reference").normal(*spread.shape, like=spread))
        shared = shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
        y = y.addcmul_(shared, folded.unit.transpose(-2, -1), value=-1)
    return y
