"""A written matrix as one tensor of values: slices and polarities summed.

This is enough if no converter stands between slices and polarities, as with ideal converters.

Shapes: P polarities, S slices, M input vectors, O outputs, I inputs, C column blocks (reference columns); `...` are
matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.kernels import reads
from ohmformer.array.peripherals import drivers, reported
from ohmformer.array.peripherals.mismatch import Mismatch
from ohmformer.array.peripherals.read_keys import of_references
from ohmformer.array.programmed import Keeps, Programmed, read_variance
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import Held
from ohmformer.errors import BadInput
from ohmformer.streams import Streams


@dataclass(frozen=True)
class Folded(Keeps):
    """A written matrix with slices and polarities summed.

    Attributes:
        values: [..., O, I] that the cells hold.
        variance: [..., O, I] variance of one read of them at unit input, in values squared; None without read noise.
        reference_variance: [..., C, I] likewise of the reference columns of `offset` arrays, in codes squared.
        unit: [..., O or 1, 1] value of one code.
        slices: number of slices that were summed, copies included; 0 if unknown.
        mismatch: errors of the converters, whose gains the values and the variances contain; None if they are alike.
    """

    values: Tensor
    variance: Tensor | None
    reference_variance: Tensor | None
    unit: Tensor
    slices: int = 0
    mismatch: Mismatch | None = None

    @property
    def matrix(self) -> Tensor:
        """[..., O, I] the values that the cells hold."""
        return self.values

    def times(self, x: Tensor) -> Tensor:
        """x[..., M, I] @ matrix.T: a new tensor."""
        return x @ self.values.transpose(-2, -1)


class SliceSum:
    """Sum of the slices of one group of columns (one polarity, or the references), each times its slice weight.

    Slices are added in the order of `slice_order`.
    """

    def __init__(self, array: Crossbar, read_noise: bool) -> None:
        self.array, self.read_noise = array, read_noise
        self.added_slices = 0
        self.total: Tensor | None = None
        self.variance: Tensor | None = None

    def add(self, held: Held, gains: Tensor | None = None, s: int | None = None) -> None:
        """Add a slice.

        Args:
            held: what its cells hold, [..., O or C, I]; not changed.
            gains: [..., O or C, I] of the converters; None for 1.
            s: its number; None for the number of slices that were added before.
        """
        weight = float(self.array.slice_weight(self.added_slices if s is None else s))
        variance = read_variance(held, self.array) if self.read_noise else None
        digits = held.digits
        if gains is not None:
            digits = digits * gains
            variance = None if variance is None else variance * gains.square()
        self.total = digits * weight if self.total is None else self.total.add_(digits, alpha=weight)
        if variance is not None:
            of_slice, total = weight**2, self.variance
            self.variance = variance.mul_(of_slice) if total is None else total.add_(variance, alpha=of_slice)
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


def slice_order(array: Crossbar, slices: int) -> range:
    """The order in which slices are written, and summed: the least significant first, or last if each corrects others.

    Sums in one order are the same to the bit, whether cells are kept or not.
    """
    return range(slices) if array.residual is None else range(slices - 1, -1, -1)


def fold(programmed: Programmed, *, read_noise: bool = True) -> Folded:
    """Sum slices and polarities of a programmed matrix.

    Args:
        programmed: the matrix; not changed.
        read_noise: compute the variances of reads, too.
    """
    array, mismatch = programmed.array, programmed.mismatch
    held = Held(programmed.digits, programmed.written, programmed.read_std, programmed.ages)
    groups = [held.at(p) for p in range(len(programmed.digits))]
    if programmed.reference is not None:
        groups.append(Held(programmed.reference, programmed.reference_written, None, programmed.reference_ages))
    differ, sums = array.peripherals.gain_mismatch > 0, []
    for side, group in enumerate(groups):
        total = SliceSum(array, read_noise)
        for s in slice_order(array, programmed.slices):
            gains = mismatch.gains(side, s, array.rows, programmed.inputs) if mismatch and differ else None
            total.add(group.at(s), gains, s)
        sums.append(total)
    cells = difference(sums[0], sums[1], array, programmed.unit)
    return replace(cells, slices=programmed.slices, mismatch=mismatch)


def difference(plus_sum: SliceSum, minus_sum: SliceSum, array: Crossbar, unit: Tensor) -> Folded:
    """The difference of two groups of columns, in values."""
    plus, variance = plus_sum.mean_()
    minus, minus_variance = minus_sum.mean_()
    if array.encoding == "offset":
        shift = minus.repeat_interleave(array.columns, dim=-2)[..., : plus.shape[-2], :]
        return Folded((plus - shift).mul_(unit), None if variance is None else variance * unit**2, minus_variance, unit)
    return pair((plus - minus).mul_(unit), variance, minus_variance, unit)


def pair(values: Tensor, variance: Tensor | None, minus_variance: Tensor | None, unit: Tensor) -> Folded:
    """A folded differential pair, from its values and from the variances of its halves in codes squared."""
    if variance is None or minus_variance is None:
        return Folded(values, None, None, unit)
    return Folded(values, (variance + minus_variance).mul_(unit**2), None, unit)


def folded_product(
    codes: Tensor,
    cells: Folded,
    array: Crossbar,
    stream: Streams | None,
    *,
    signed: bool = True,
    converters: Conversions | None = None,
) -> Tensor:
    """Multiply integer inputs by a folded matrix; the read noise of all cells of an output is one Gaussian.

    Args:
        codes: inputs [..., M, I].
        cells: what the cells hold of the matrix [..., O, I].
        array: the hardware.
        stream: key of the noise of reads; None if there is none.
        signed: True if inputs have both signs.
        converters: what converters add beside their gain; None for nothing.

    Returns:
        Results [..., M, O], in values of the matrix times input units.

    Raises:
        BadInput: the cells have read noise and no stream is given.
    """
    sent, power = codes, None
    if not drivers.plain(array):
        sent, power = drivers.folded_inputs(codes, array, signed=signed, stream=stream)
    y = cells.times(sent)
    if cells.variance is not None:
        if stream is None:
            raise BadInput(
                "the cells have read noise but no stream was given; pass stream=Stream(seed, ...) or an integer"
            )
        y = with_read_noise(y, encoding.read_power(codes, array) if power is None else power, cells, array, stream)
    return y if converters is None else y + converters.added(codes, cells, stream)


def with_read_noise(y: Tensor, power: Tensor, cells: Folded, array: Crossbar, stream: Streams) -> Tensor:
    """Add read noise to results.

    Args:
        y: results [..., M, O]; may be changed.
        power: factors [..., M, I] on the variances of the cells.
        cells: what the cells hold of the matrix, with variances.
        array: the hardware.
        stream: key of the noise of reads.

    Returns:
        The results with noise.
    """
    assert cells.variance is not None
    numbers = stream.child("read")
    if not reads.add_noise_(y, power, cells.variance, numbers):
        std = (power @ cells.variance.transpose(-2, -1)).sqrt_()
        y = y.addcmul_(std, numbers.normal(*std.shape, like=std))
    if cells.reference_variance is not None:
        std = (power @ cells.reference_variance.transpose(-2, -1)).sqrt_()
        numbers = of_references(stream.child("read reference"), array.columns)
        shared = std.mul_(numbers.normal(*std.shape, like=std))
        shared = shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
        y = y.addcmul_(shared, cells.unit.transpose(-2, -1), value=-1)
    return y


@dataclass(frozen=True)
class Conversions:
    """All conversions behind a folded product, whose results are summed without rounding.

    Attributes:
        array: the hardware that converts; the matrix may be that of `analog(array)`.
        span: range of the converters, in digits times input units of the hardware.
        signed: True if inputs have both signs.
        written: the hardware that the matrix was written for: `array`, or `analog` of it.
    """

    array: Crossbar
    span: reported.Span
    signed: bool
    written: Crossbar

    def added(self, codes: Tensor, cells: Folded, stream: Streams | None) -> Tensor:
        """Return noise and offsets of all conversions of a product, [..., M, O] in values times input units.

        Args:
            codes: inputs [..., M, I].
            cells: what the cells hold of the matrix [..., O, I].
            stream: key of the noise of reads; None for converters without noise.
        """
        array, parts, like = self.array, self.array.peripherals, cells.unit
        slices = cells.slices if self.written is array else array.slices()
        width, weights = reported.widths(self.span, slices, like), encoding.cycle_weights(array, signed=self.signed)
        read = reported.read_blocks(codes, array.rows)
        total = like.new_zeros(())
        if parts.output_noise and stream is not None:
            std = reported.folded_std(array, width, weights) * read.sum(-1, keepdim=True).sqrt()
            total = total + self._noise(std, cells, stream)
        if parts.offset_mismatch and cells.mismatch is not None:
            if self.written is not array:  # one converter in place of those of all slices
                width = reported.total_width(array, width).expand(cells.slices)
            total = total + sum(weights) * reported.folded_offset(cells.mismatch, self.written, width, read)
        return total * (cells.unit.transpose(-2, -1) * (self.written.max_code / array.max_code))

    def _noise(self, std: Tensor, cells: Folded, stream: Streams) -> Tensor:
        """Noise [..., M, O] in codes; `std` [..., M, 1] is that of one side of all slices and row blocks."""
        array, outputs = self.array, cells.values.shape[-2]
        lead = torch.broadcast_shapes(std.shape[:-2], cells.values.shape[:-2])
        shape, numbers = (*lead, std.shape[-2], outputs), stream.child("output")
        pair = array.encoding == "differential" and array.subtract == "digital"
        noise = std * numbers.normal(*shape, like=std) * (2**0.5 if pair else 1.0)
        if array.encoding == "offset" and array.subtract == "digital":
            blocks = -(-outputs // array.columns)
            numbers = of_references(stream.child("output reference"), array.columns)
            shared = std * numbers.normal(*shape[:-1], blocks, like=std)
            noise = noise - shared.repeat_interleave(array.columns, dim=-1)[..., :outputs]
        return noise
