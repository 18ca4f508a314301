"""Programming a matrix into crossbars. Noise of the write, drift and faults are drawn here, once.

A cell's conductance is carried in digit units, (G - G_min) / step, so integers stay exact. Siemens appear only where
the device models are called.

Shapes: P polarities, S slices (copies included), O outputs, I inputs, C column blocks (reference columns); `...` are
matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from ohmformer.array import encoding, event_counter
from ohmformer.array.codec import Codec
from ohmformer.array.degradation import compensation
from ohmformer.array.spec import Crossbar, check_simulated
from ohmformer.array.writing import Columns, Held, Major, Writer, one_sided
from ohmformer.device import noise
from ohmformer.errors import BadInput, suggest
from ohmformer.streams import SampleStreams, Stream, Streams


@dataclass(frozen=True)
class Side:
    """Columns of one slice that are converted together: one half of a pair, or the difference of both halves.

    Attributes:
        sign: +1 or -1, the sign of the converted result in the sum.
        cells: [..., O or C, I] digits, or differences of digits if the subtraction is analog.
        variance: of `cells` in one read at unit input, in digits squared; None without read noise.
        shared_variance: [..., C, I] likewise of reference columns that were subtracted before the conversion.
    """

    sign: float
    cells: Tensor
    variance: Tensor | None
    shared_variance: Tensor | None = None


@dataclass(frozen=True)
class Programmed:
    """A matrix written into crossbars; immutable.

    Attributes:
        array: the hardware.
        cells: [P, S, ..., O, I] digits that the cells hold after writing, drift and faults.
        reference: [S, ..., C, I] digits that the reference columns of `offset` arrays hold; None for pairs.
        unit: [..., O or 1, 1] value of one code.
        written: `cells` before drift; None unless read noise depends on it.
        reference_written: `reference` before drift; None unless read noise depends on it.
        read_std: of one read of `cells`, in digits, if wires lose voltage and reads are noisy; otherwise None.
    """

    array: Crossbar
    cells: Tensor
    reference: Tensor | None
    unit: Tensor
    written: Tensor | None = None
    reference_written: Tensor | None = None
    read_std: Tensor | None = None

    @property
    def slices(self) -> int:
        """Slices in use, copies included."""
        return self.cells.shape[1]

    @property
    def outputs(self) -> int:
        """Columns of the matrix, over all column blocks."""
        return self.cells.shape[-2]

    @property
    def inputs(self) -> int:
        """Rows of the matrix, over all row blocks."""
        return self.cells.shape[-1]

    def by_output(self, values: Tensor, dim: int) -> Tensor:
        """Values of reference columns (C along `dim`), repeated for the outputs that share them (O along `dim`)."""
        return values.repeat_interleave(self.array.columns, dim=dim).narrow(dim, 0, self.outputs)

    @cached_property
    def sides(self) -> tuple[tuple[Side, ...], ...]:
        """What is converted, by slice.

        With digital subtraction both halves of a pair (or a column and its reference), with analog subtraction their
        difference.
        """
        return tuple(self._sides(s) for s in range(self.slices))

    def _sides(self, s: int) -> tuple[Side, ...]:
        cells = Held(self.cells[:, s], *(None if t is None else t[:, s] for t in (self.written, self.read_std)))
        halves = [cells.at(0), cells.at(1) if self.reference is None else self._reference(s)]
        (plus, *_), (minus, *_) = halves
        variance, minus_variance = (read_variance(half, self.array) for half in halves)
        if self.array.subtract != "analog":
            return (Side(1.0, plus, variance), Side(-1.0, minus, minus_variance))
        if self.reference is not None:
            return (Side(1.0, plus - self.by_output(minus, -2), variance, minus_variance),)
        both = None if variance is None or minus_variance is None else variance + minus_variance
        return (Side(1.0, plus - minus, both),)

    def _reference(self, s: int) -> Held:
        """What the reference columns of slice s hold."""
        assert self.reference is not None
        return Held(self.reference[s], None if self.reference_written is None else self.reference_written[s])


def read_variance(held: Held, array: Crossbar) -> Tensor | None:
    """Variance of one read of cells, in digits squared.

    Args:
        held: what the cells hold, of any shape.
        array: the hardware.

    Returns:
        A new tensor of the same shape; None if reads are exact.
    """
    if noise.exact_reads(array.cell):
        return None
    if held.read_std is not None:
        return held.read_std.square()
    g_written = None if held.written is None else array.cell.g_min + array.step * held.written
    std = noise.read_std(array.cell.g_min + array.step * held.digits, array.cell, age=array.age, written=g_written)
    return std.div_(array.step).square_()


class WriteOptions(TypedDict, total=False):
    """The keyword arguments of `program`, `write`, `write_folded` and `write_normal`.

    Attributes:
        stream: key of the write noise and of drift: a stream, or a seed (by default 0); `SampleStreams` if the first
            axis of the matrix is the samples of a batch.
        w_range: the value of the largest code: a number, or a tensor [..., O or 1, 1]. By default 1, and `full_range`
            of the values in `program`.
        max_code: bound on the magnitude of the codes; slices that stay empty then get no cells.
        fault_stream: key of the faults, which belong to a chip and stay when the noise changes; by default `stream`.
        major: whether random numbers run along the outputs (the default) or the inputs first: along the axis that
            grows as tokens are appended.
    """

    stream: Streams | int
    w_range: Tensor | float | None
    max_code: int | None
    fault_stream: Stream | None
    major: Major


@torch.no_grad()
def program(w: Tensor, array: Crossbar, **options: Unpack[WriteOptions]) -> Programmed:
    """Write the matrix w into crossbars, so that `mvm(x, ...)` gives about x @ w.T. No gradients pass.

    Args:
        w: real values [..., O, I].
        array: the hardware.
        options: see `WriteOptions`.

    Raises:
        BadInput: w is not a matrix, is empty, or holds NaN or infinity.
    """
    w = encoding.checked_matrix(w, "program: w")
    given_range = options.get("w_range")
    w_range = encoding.full_range(w, array) if given_range is None else torch.as_tensor(given_range).to(w)
    options["w_range"] = w_range
    return write(Codec(array).codes(w, w_range), array, **options)


@torch.no_grad()
def write(codes: Tensor, array: Crossbar, **options: Unpack[WriteOptions]) -> Programmed:
    """Write integer codes into crossbars.

    Args:
        codes: [..., O, I].
        array: the hardware.
        options: see `WriteOptions`.

    Raises:
        BadInput: a code does not fit into the slices, or the range differs along the inputs.
    """
    held = _write_cells(codes, array, **options)
    if not compensation.compensates(array):
        return held
    with event_counter.counting():  # these are the cells of `held`, whose writes count once
        new = _write_cells(codes, compensation.when_new(array), **options)
    return replace(held, unit=held.unit * compensation_factor(fold(new), fold(held), array, options.get("stream", 0)))


def _write_cells(codes: Tensor, array: Crossbar, **options: Unpack[WriteOptions]) -> Programmed:
    """`write` without a compensation of drift."""
    request = write_request(codes, array, **options)
    codes, slices, writer = request.codes, request.slices, request.writer("cell")
    if one_sided(array):
        magnitudes = encoding.slice_digits(codes.abs().unsqueeze(0), array, slices)
        by_slice = [writer.write(digits).digits[0] for digits in magnitudes]
        cells = torch.stack([torch.stack([part * (codes > 0), part * (codes < 0)]) for part in by_slice], dim=1)
        held = Held(cells)
    else:
        held = _stacked([writer.write(digits) for digits in encoding.digits(codes, array, slices)])
    reference, reference_written = None, None
    if array.encoding == "offset":
        writer = request.writer("reference")
        targets = reference_targets(codes, array, slices)
        reference, reference_written, _ = _stacked([writer.write(target) for target in targets]).at(0)
    return Programmed(array, held.digits, reference, request.unit, held.written, reference_written, held.read_std)


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


class SliceSum:
    """Sum of the slices of one group of columns (one polarity, or the references), each times its slice weight."""

    def __init__(self, array: Crossbar, read_noise: bool) -> None:
        self.array, self.read_noise = array, read_noise
        self.added_slices = 0
        self.total: Tensor | None = None
        self.variance: Tensor | None = None

    def add(self, held: Held) -> None:
        """Add the next slice, from the least significant one up.

        Args:
            held: what its cells hold, [..., O or C, I]; not changed.
        """
        weight = float(self.array.slice_weight(self.added_slices))
        self.total = held.digits.clone() if self.total is None else self.total.add_(held.digits, alpha=weight)
        variance = read_variance(held, self.array) if self.read_noise else None
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
    cells = Held(programmed.cells, programmed.written, programmed.read_std)
    groups = [cells.at(p) for p in range(len(programmed.cells))]
    if programmed.reference is not None:
        groups.append(Held(programmed.reference, programmed.reference_written))
    sums = []
    for group in groups:
        total = SliceSum(programmed.array, read_noise)
        for s in range(programmed.slices):
            total.add(group.at(s))
        sums.append(total)
    return difference(sums[0], sums[1], programmed.array, programmed.unit)


def difference(plus_sum: SliceSum, minus_sum: SliceSum, array: Crossbar, unit: Tensor) -> Folded:
    """The difference of two groups of columns, in values."""
    plus, variance = plus_sum.mean_()
    minus, minus_variance = minus_sum.mean_()
    if array.encoding == "offset":
        shift = minus.repeat_interleave(array.columns, dim=-2)[..., : plus.shape[-2], :]
        return Folded((plus - shift).mul_(unit), None if variance is None else variance * unit**2, minus_variance, unit)
    return pair((plus - minus).mul_(unit), variance, minus_variance, unit)


def pair(weight: Tensor, variance: Tensor | None, minus_variance: Tensor | None, unit: Tensor) -> Folded:
    """A folded differential pair, from its values and from the variances of its halves in codes squared."""
    if variance is None or minus_variance is None:
        return Folded(weight, None, None, unit)
    return Folded(weight, (variance + minus_variance).mul_(unit**2), None, unit)


def compensation_factor(new: Folded, now: Folded, array: Crossbar, stream: Streams | int) -> Tensor:
    """The factor [..., O or 1, 1] that compensates the drift from `new` to `now`; `stream` is the key of the write."""
    numbers = compensation.compensation_stream(stream)
    first, last = (
        compensation.reading(held.weight, held.variance, held.reference_variance, held.unit, array, numbers.child(when))
        for held, when in ((new, "new"), (now, "now"))
    )
    return compensation.factor(first, last)


@dataclass(frozen=True)
class WriteRequest:
    """A checked matrix of codes with all that is needed to write it.

    Attributes:
        array: the hardware.
        codes: [..., O, I] integers, in float32 or float64.
        slices: the number of slices that hold them, copies included.
        unit: [..., O or 1, 1] value of one code.
        stream: key of write noise and drift.
        fault_stream: key of faults.
        major: the axis along which random numbers run first.
    """

    array: Crossbar
    codes: Tensor
    slices: int
    unit: Tensor
    stream: Streams
    fault_stream: Streams
    major: Major

    def writer(self, columns: Columns) -> Writer:
        """A new writer of the cells or of the reference columns, at its first slice."""
        return Writer(self.array, columns, self.stream, self.fault_stream, self.major, self.codes.device)


def write_request(codes: Tensor, array: Crossbar, **options: Unpack[WriteOptions]) -> WriteRequest:
    """Check and complete the arguments of a write, and count its cell writes.

    Raises:
        BadInput: an option is unknown; or as `write`.
    """
    if unknown := next((name for name in options if name not in WriteOptions.__annotations__), None):
        raise BadInput(f"write: {unknown}: is not an argument; {suggest(unknown, list(WriteOptions.__annotations__))}")
    check_simulated(array, "array")
    stream, w_range, major = options.get("stream", 0), options.get("w_range"), options.get("major", "outputs")
    codes = encoding.checked_matrix(codes, "write: codes")
    slices = array.slices(options.get("max_code"))
    largest = array.capacity(slices) if array.encoding == "differential" else array.max_code
    low, high = codes.aminmax()
    if not bool((low >= -largest) & (high <= largest)):
        raise BadInput(
            f"write: codes must be integers within {largest} of zero, the most that {slices} slices hold; clip them, "
            "or correct max_code"
        )
    w_range = torch.as_tensor(1.0 if w_range is None else w_range).to(codes)
    while w_range.dim() < 2:
        w_range = w_range.unsqueeze(0)
    if w_range.shape[-1] != 1:
        raise BadInput("w_range differs along the inputs, whose currents are summed unscaled; scale the inputs instead")
    unit = encoding.unit_of(w_range, array.max_code)
    stream = Stream(stream) if isinstance(stream, int) else stream
    _count_writes(codes, array, slices, stream, major)
    return WriteRequest(array, codes, slices, unit, stream, options.get("fault_stream") or stream, major)


def _stacked(by_slice: list[Held]) -> Held:
    """Stack what cells hold, slice by slice: tensors [P, S, ..., O, I]."""
    written = [held.written for held in by_slice if held.written is not None]
    stds = [held.read_std for held in by_slice if held.read_std is not None]
    return Held(
        torch.stack([held.digits for held in by_slice], dim=1),
        torch.stack(written, dim=1) if written else None,
        torch.stack(stds, dim=1) if stds else None,
    )


def reference_targets(codes: Tensor, array: Crossbar, slices: int) -> list[Tensor]:
    """The digits [1, ..., C, I] to write into the reference columns of an `offset` array, by slice."""
    shape = (1, *codes.shape[:-2], -(-codes.shape[-2] // array.columns), codes.shape[-1])
    return [codes.new_full(shape, float(digit)) for digit in encoding.reference_digits(array, slices)]


def _count_writes(codes: Tensor, array: Crossbar, slices: int, stream: Streams, major: Major) -> None:
    """Report the cells that are written to the event counter in use, if any. Padding is not written."""
    counter = event_counter.current()
    if counter is None:
        return
    cells = codes.numel()
    if isinstance(stream, SampleStreams) and stream.present is not None:
        cells = cells // (len(codes) * codes.shape[-2 if major == "outputs" else -1]) * stream.present
    counter.cell_writes += cells * slices * array.polarities
    if array.encoding == "offset":
        counter.cell_writes += sum(target.numel() for target in reference_targets(codes, array, slices))
