"""A written matrix as one tensor of values: slices and polarities summed.

This is enough if no converter stands between slices and polarities, as with ideal converters.

Shapes: P polarities, S slices, M input vectors, O outputs, I inputs, C column blocks (reference columns); `...` are
matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from ohmformer.array import crossbar, encoding
from ohmformer.array.crossbar import Programmed, WriteOptions, WriteRequest
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.errors import BadInput
from ohmformer.streams import Streams


@dataclass(frozen=True)
class Folded:
    """A written matrix with slices and polarities summed.

    Attributes:
        weight: [..., O, I] values that the cells hold.
        variance: [..., O, I] variance of one read of them at unit input, in values squared; None without read noise.
        reference_variance: [..., C, I] likewise of the reference columns of `offset` arrays, in codes squared.
        unit: [..., O or 1, 1] value of one code.
    """

    weight: Tensor
    variance: Tensor | None
    reference_variance: Tensor | None
    unit: Tensor


class _SliceSum:
    """Sum of the slices of one group of columns (one polarity, or the references), each times its slice weight."""

    def __init__(self, array: Crossbar, read_noise: bool) -> None:
        self.array, self.read_noise = array, read_noise
        self.added_slices = 0
        self.total: Tensor | None = None
        self.variance: Tensor | None = None

    def add(self, cells: Tensor, written: Tensor | None, ages: Tensor | None = None) -> None:
        """Add the next slice, from the least significant one up.

        Args:
            cells: digits [..., O or C, I] that the cells hold; not changed.
            written: digits before drift, if read noise depends on them.
            ages: see `Programmed`.
        """
        weight = float(self.array.slice_weight(self.added_slices))
        self.total = cells.clone() if self.total is None else self.total.add_(cells, alpha=weight)
        variance = crossbar.read_variance(cells, self.array, written, ages) if self.read_noise else None
        if variance is not None:
            self.variance = variance if self.variance is None else self.variance.add_(variance, alpha=weight**2)
        self.added_slices += 1

    def mean_(self) -> tuple[Tensor, Tensor | None]:
        """Divide the sums by the number of copies, in place: call it once, after the last slice.

        Returns:
            What the slices hold together, in codes, and the variance of one read of it, in codes squared.
        """
        assert self.total is not None
        if self.variance is not None:  # the variance of a mean: divided by the number of copies twice
            encoding.mean_over_copies_(encoding.mean_over_copies_(self.variance, self.array), self.array)
        return encoding.mean_over_copies_(self.total, self.array), self.variance


def fold(programmed: Programmed, *, read_noise: bool = True) -> Folded:
    """Sum slices and polarities of a programmed matrix.

    Args:
        programmed: the matrix; not changed.
        read_noise: compute the variances of reads, too.
    """
    before = programmed.written
    groups = [(cells, None if before is None else before[p]) for p, cells in enumerate(programmed.cells.unbind(0))]
    if programmed.reference is not None:
        groups.append((programmed.reference, programmed.reference_written))
    sums = []
    for (cells, written), ages in zip(groups, (programmed.ages, programmed.minus_ages), strict=True):
        group = _SliceSum(programmed.array, read_noise)
        for s, part in enumerate(cells.unbind(0)):
            group.add(part, None if written is None else written[s], ages)
        sums.append(group)
    return _difference(sums[0], sums[1], programmed.array, programmed.unit)


def _difference(plus_sum: _SliceSum, minus_sum: _SliceSum, array: Crossbar, unit: Tensor) -> Folded:
    """The difference of two groups of columns, in values."""
    plus, variance = plus_sum.mean_()
    minus, minus_variance = minus_sum.mean_()
    if array.encoding == "offset":
        shift = minus.repeat_interleave(array.columns, dim=-2)[..., : plus.shape[-2], :]
        return Folded((plus - shift).mul_(unit), None if variance is None else variance * unit**2, minus_variance, unit)
    return _pair((plus - minus).mul_(unit), variance, minus_variance, unit)


def _pair(weight: Tensor, variance: Tensor | None, minus_variance: Tensor | None, unit: Tensor) -> Folded:
    """A folded differential pair, from its values and from the variances of its halves in codes squared."""
    if variance is None or minus_variance is None:
        return Folded(weight, None, None, unit)
    return Folded(weight, (variance + minus_variance).mul_(unit**2), None, unit)


@torch.no_grad()
def write_folded(codes: Tensor, array: Crossbar, *, read_noise: bool = True, **options: Unpack[WriteOptions]) -> Folded:
    """The same numbers as `fold(write(codes, array, ...))`, without the memory for the cells of all slices.

    Args:
        codes: integer codes [..., O, I].
        array: the hardware.
        read_noise: compute the variances of reads, too.
        options: see `WriteOptions`.

    Raises:
        BadInput: as in `write`.
    """
    request = crossbar.write_request(codes, array, **options)
    if one_sided(array):
        return _write_magnitudes(request, read_noise)
    codes, slices, writer = request.codes, request.slices, request.writer("cell")
    sums = [_SliceSum(array, read_noise) for _ in range(2)]
    for digits in encoding.digits(codes, array, slices):
        cells, written = writer.write(digits)
        for p, part in enumerate(cells.unbind(0)):
            sums[p].add(part, None if written is None else written[p])
    if array.encoding == "offset":
        writer = request.writer("reference")
        for target in crossbar.reference_targets(codes, array, slices):
            cells, written = writer.write(target)
            sums[1].add(cells[0], None if written is None else written[0])
    return _difference(sums[0], sums[1], array, request.unit)


def _write_magnitudes(request: WriteRequest, read_noise: bool) -> Folded:
    """`write_folded` for pairs whose unused half stays at G_min exactly: that half contributes only read noise."""
    codes, unit, writer = request.codes, request.unit, request.writer("cell")
    used, unused = _SliceSum(request.array, read_noise), _SliceSum(request.array, read_noise)
    for digits in encoding.slice_digits(codes.abs().unsqueeze(0), request.array, request.slices):
        used.add(writer.write(digits)[0][0], None)
        unused.add(codes.new_zeros(()), None)
    magnitude, variance = used.mean_()
    _, unused_variance = unused.mean_()
    return _pair(magnitude.mul_(codes.sign()).mul_(unit), variance, unused_variance, unit)


def folded_product(codes: Tensor, folded: Folded, array: Crossbar, stream: Streams | None) -> Tensor:
    """Multiply integer inputs by a folded matrix; the read noise of all cells of an output is one Gaussian.

    Args:
        codes: inputs [..., M, I].
        folded: the matrix [..., O, I].
        array: the hardware.
        stream: key of the read noise; None if the matrix has none.

    Returns:
        Results [..., M, O], in values of the matrix times input units.

    Raises:
        BadInput: the cells have read noise and no stream is given.
    """
    y = codes @ folded.weight.transpose(-2, -1)
    if folded.variance is None:
        return y
    if stream is None:
        raise BadInput("the cells have read noise but no stream was given; pass stream=Stream(seed, ...) or an integer")
    power = encoding.read_power(codes, array)
    std = (power @ folded.variance.transpose(-2, -1)).sqrt_()
    y = y.addcmul_(std, stream.child("read").normal(*std.shape, like=std))
    if folded.reference_variance is not None:
        std = (power @ folded.reference_variance.transpose(-2, -1)).sqrt_()
        shared = std.mul_(stream.child("read reference").normal(*std.shape, like=std))
        shared = shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
        y = y.addcmul_(shared, folded.unit.transpose(-2, -1), value=-1)
    return y
