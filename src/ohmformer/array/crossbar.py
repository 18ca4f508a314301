"""Programming a matrix into crossbars: noise of the write, drift and faults are drawn here, once.

Conductances are carried in digit units, (G - G_min) / step, so that integers stay exact; siemens appear only where the
device models are called. Shapes: O outputs, I inputs, S slices, P polarities, C column blocks; `...` are matrices
(samples, heads) that share one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from ohmformer.array import encoding, event_counter
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import Major, What, Writer, one_sided
from ohmformer.device import noise
from ohmformer.errors import BadInput, suggest
from ohmformer.streams import SampleStreams, Stream, Streams


@dataclass(frozen=True)
class Side:
    """Columns that are converted on their own; of a pair with analog subtraction, their difference.

    Attributes:
        sign: of the conversion's result in the sum.
        cells: [..., O or C, I] digits, or differences of digits.
        variance: of one read of them at unit input, in digits squared; None without read noise.
        shared_variance: [..., C, I] the same of reference columns that were subtracted before conversion.
    """

    sign: float
    cells: Tensor
    variance: Tensor | None
    shared_variance: Tensor | None = None


@dataclass(frozen=True)
class Programmed:
    """A matrix in crossbars of any number; immutable.

    Attributes:
        array: the hardware.
        cells: [P, S, ..., O, I] digits found in the cells, with all that writing, drift and faults did to them.
        reference: [S, ..., C, I] digits found in the reference columns of `offset` arrays; None in pairs.
        unit: [..., O or 1, 1] value of one code.
        written: the cells before drift, where read noise asks for them.
        reference_written: the reference columns before drift, likewise.
    """

    array: Crossbar
    cells: Tensor
    reference: Tensor | None
    unit: Tensor
    written: Tensor | None = None
    reference_written: Tensor | None = None

    @property
    def slices(self) -> int:
        """Slices in use, with all copies."""
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
        """Values of reference columns (C along `dim`), repeated for the outputs that share them."""
        return values.repeat_interleave(self.array.columns, dim=dim).narrow(dim, 0, self.outputs)

    @cached_property
    def sides(self) -> tuple[tuple[Side, ...], ...]:
        """By slice: what is converted. A pair or a column and its reference each, or their difference."""
        return tuple(self._sides(s) for s in range(self.slices))

    def _sides(self, s: int) -> tuple[Side, ...]:
        plus, variance = self.cells[0, s], self.variance(0, s)
        if self.reference is None:
            minus, minus_variance = self.cells[1, s], self.variance(1, s)
            if self.array.subtract == "analog":
                both = None if variance is None or minus_variance is None else variance + minus_variance
                return (Side(1.0, plus - minus, both),)
        else:
            minus, minus_variance = self.reference[s], self.reference_variance(s)
            if self.array.subtract == "analog":
                return (Side(1.0, plus - self.by_output(minus, -2), variance, minus_variance),)
        return (Side(1.0, plus, variance), Side(-1.0, minus, minus_variance))

    def variance(self, p: int, s: int) -> Tensor | None:
        """Variance [..., O, I] of one read of a slice of one polarity, in digits squared; None without read noise."""
        return read_variance(self.cells[p, s], self.array, None if self.written is None else self.written[p, s])

    def reference_variance(self, s: int) -> Tensor | None:
        """The same of a slice of the reference columns: [..., C, I]."""
        if self.reference is None:
            return None
        written = None if self.reference_written is None else self.reference_written[s]
        return read_variance(self.reference[s], self.array, written)


def read_variance(cells: Tensor, array: Crossbar, written: Tensor | None = None) -> Tensor | None:
    """Variance of one read, in digits squared, of cells that hold these digits; None where reads are exact.

    `written` are their digits before drift, where read noise asks for them.
    """
    if noise.exact_reads(array.cell):
        return None
    then = None if written is None else array.cell.g_min + array.step * written
    std = noise.read_std(array.cell.g_min + array.step * cells, array.cell, age=array.age, written=then)
    return std.div_(array.step).square_()


class Writing(TypedDict, total=False):
    """How a matrix is written: what `program`, `write`, `write_folded` and `write_normal` take by name.

    Attributes:
        stream: what the write noise belongs to (an integer is the stream of that seed, by default 0); `SampleStreams`
            where the first axis of the matrix is the samples of a batch.
        w_range: the value that the largest code stands for: a number, or a tensor [..., O or 1, 1]; by default 1, and
            `full_range` where values are programmed.
        max_code: bounds the magnitude of codes, so that empty slices need no cells.
        fault_stream: what the faults belong to (a chip); by default `stream`. They stay when noise changes.
        major: whether the stream runs along outputs (the default) or inputs first: the axis that is written piece by
            piece.
    """

    stream: Streams | int
    w_range: Tensor | float | None
    max_code: int | None
    fault_stream: Stream | None
    major: Major


@torch.no_grad()
def program(w: Tensor, array: Crossbar, **how: Unpack[Writing]) -> Programmed:
    """Write the matrix w[..., O, I] into crossbars, so that `mvm(x, ...)` gives about x @ w.T. No gradients pass.

    Args:
        w: real values; leading dimensions are matrices that are written side by side.
        array: the hardware.
        how: see `Writing`.

    Raises:
        BadInput: w is no matrix, is empty, or holds NaN or infinity.
    """
    w = encoding.matrix(w, "program: w")
    given = how.get("w_range")
    w_range = encoding.full_range(w, array) if given is None else torch.as_tensor(given).to(w)
    codes = encoding.quantise(w, array, w_range)
    how["w_range"] = w_range
    return write(codes, array, **how)


@torch.no_grad()
def write(codes: Tensor, array: Crossbar, **how: Unpack[Writing]) -> Programmed:
    """Write integer codes [..., O, I]; see `Writing`.

    Raises:
        BadInput: a code does not fit into the slices, or the range differs along the inputs.
    """
    job = prepare(codes, array, **how)
    codes, slices, writer = job.codes, job.slices, job.writer("cell")
    if one_sided(array):
        found = [writer.found(digit)[0][0] for digit in encoding.places(codes.abs().unsqueeze(0), array, slices)]
        cells = torch.stack([torch.stack([part * (codes > 0), part * (codes < 0)]) for part in found], dim=1)
        written = None
    else:
        cells, written = _stacked([writer.found(digit) for digit in encoding.digits(codes, array, slices)])
    reference, reference_written = None, None
    if array.encoding == "offset":
        writer = job.writer("reference")
        targets = reference_targets(codes, array, slices)
        reference, reference_written = _stacked([writer.found(target) for target in targets])
        reference = reference[0]
        reference_written = None if reference_written is None else reference_written[0]
    return Programmed(array, cells, reference, job.unit, written, reference_written)


@dataclass(frozen=True)
class Job:
    """A checked matrix of codes that is about to be written.

    Attributes:
        array: the hardware.
        codes: [..., O, I] integers, in float32 or float64.
        slices: how many hold them.
        unit: [..., O or 1, 1] value of one code.
        stream: what write noise and drift belong to.
        fault_stream: what faults belong to.
        major: which axis random numbers run along first.
    """

    array: Crossbar
    codes: Tensor
    slices: int
    unit: Tensor
    stream: Streams
    fault_stream: Streams
    major: Major

    def writer(self, what: What) -> Writer:
        """What writes its cells, or its reference columns, slice by slice."""
        return Writer(self.array, what, self.stream, self.fault_stream, self.major, self.codes.device)


def prepare(codes: Tensor, array: Crossbar, **how: Unpack[Writing]) -> Job:
    """The arguments of `write`, checked and completed; the writes are counted.

    Raises:
        BadInput: an argument of another name; or as `write`.
    """
    if unknown := next((name for name in how if name not in Writing.__annotations__), None):
        raise BadInput(f"write: {unknown}: is no argument; {suggest(unknown, list(Writing.__annotations__))}")
    given, w_range, major = how.get("stream", 0), how.get("w_range"), how.get("major", "outputs")
    max_code, fault_stream = how.get("max_code"), how.get("fault_stream")
    codes = encoding.matrix(codes, "write: codes")
    slices, unit = _check(codes, array, max_code), _code_unit(1.0 if w_range is None else w_range, codes, array)
    stream = Stream(given) if isinstance(given, int) else given
    _count_writes(codes, array, slices, stream, major)
    return Job(array, codes, slices, unit, stream, fault_stream or stream, major)


def _stacked(found: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """Slices [P, ..., O, I] to one tensor [P, S, ..., O, I] each."""
    written = [then for _, then in found if then is not None]
    return torch.stack([now for now, _ in found], dim=1), torch.stack(written, dim=1) if written else None


def reference_targets(codes: Tensor, array: Crossbar, slices: int) -> list[Tensor]:
    """By slice: what the reference columns [1, ..., C, I] of `offset` arrays are to hold."""
    shape = (1, *codes.shape[:-2], -(-codes.shape[-2] // array.columns), codes.shape[-1])
    return [codes.new_full(shape, float(digit)) for digit in encoding.reference_digits(array, slices)]


def _check(codes: Tensor, array: Crossbar, max_code: int | None) -> int:
    """Slices that hold the codes.

    Raises:
        BadInput: a code does not fit into them.
    """
    slices = array.slices(max_code)
    largest = array.capacity(slices) if array.encoding == "differential" else array.max_code
    low, high = codes.aminmax()
    if not bool((low >= -largest) & (high <= largest)):
        raise BadInput(
            f"write: codes must be integers within {largest} of zero, the most that {slices} slices hold; clip them, "
            "or correct max_code"
        )
    return slices


def _code_unit(w_range: Tensor | float, codes: Tensor, array: Crossbar) -> Tensor:
    """The value of one code [..., O or 1, 1], from the range of the codes.

    Raises:
        BadInput: the range differs along the inputs, whose currents are summed before anything can be scaled.
    """
    w_range = torch.as_tensor(w_range).to(codes)
    while w_range.dim() < 2:
        w_range = w_range.unsqueeze(0)
    if w_range.shape[-1] != 1:
        raise BadInput("w_range differs along the inputs, whose currents are summed unscaled; scale the inputs instead")
    return encoding.unit_of(w_range, array.max_code)


def _count_writes(codes: Tensor, array: Crossbar, slices: int, stream: Streams, major: Major) -> None:
    """Tell the counter in use, if any, which cells were written."""
    counter = event_counter.current()
    if counter is None:
        return
    cells = codes.numel()
    if isinstance(stream, SampleStreams) and stream.present is not None:
        cells = cells // (len(codes) * codes.shape[-2 if major == "outputs" else -1]) * stream.present
    counter.cell_writes += cells * slices * array.polarities
    if array.encoding == "offset":
        counter.cell_writes += sum(target.numel() for target in reference_targets(codes, array, slices))
