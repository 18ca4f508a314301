"""Programming a matrix into crossbars. Noise of the write, drift and faults are drawn here, once.

Shapes: P polarities, S slices (copies included), O outputs, I inputs, C column blocks (reference columns); `...` are
matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from ohmformer.array import encoding, event_counter
from ohmformer.array.codes.codec import Codec
from ohmformer.array.degradation import compensation
from ohmformer.array.folded import fold
from ohmformer.array.kernels.writes import cell_writes, residual_writes
from ohmformer.array.peripherals.mismatch import Mismatch, draw_mismatch
from ohmformer.array.peripherals.read_keys import in_blocks
from ohmformer.array.peripherals.spec import mismatched
from ohmformer.array.programmed import Programmed
from ohmformer.array.residual.feedback import ErrorFeedback, corrected
from ohmformer.array.residual.writing import Kept, WriteSlice, write_residually
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import Columns, Held, Major, Writer, one_sided
from ohmformer.deferred_checks import require
from ohmformer.errors import BadInput, suggest
from ohmformer.streams import SampleStreams, Stream, Streams, TokenStreams


class WriteOptions(TypedDict, total=False):
    """The keyword arguments of `program`, `write`, `write_folded`, `write_normal` and `write_unaged`.

    Attributes:
        codec: turns the values into codes; without it, they are codes already. In `program` it is by default
            `Codec(array)`, which quantizes.
        code_range: the value of the largest code, as the codec takes it; broadcasts against the values. By default
            `w_range`.
        stream: key of the write noise and of drift: a stream, or a seed (by default 0); `SampleStreams` if the first
            axis of the matrix is the samples of a batch.
        w_range: the value of the largest code, as results are scaled by it: a number, or a tensor [..., O or 1, 1]. By
            default 1, and `full_range` of the values in `program`.
        max_code: bound on the magnitude of the codes; slices that stay empty then get no cells. By default that of the
            codec, if there is one.
        fault_stream: key of the faults, which belong to a chip and stay when the noise changes; by default `stream`.
        major: whether random numbers run along the outputs (the default) or the inputs first: along the axis that
            grows as tokens are appended.
        feedback: corrections of errors in weights that are written later, for one matrix [O, I] and an array with
            `residual.feedback`; None for none.
    """

    codec: Codec | None
    code_range: Tensor | None
    stream: Streams | int
    w_range: Tensor | float | None
    max_code: int | None
    fault_stream: Stream | None
    major: Major
    feedback: ErrorFeedback | None


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
    options.setdefault("codec", Codec(array))
    if options.get("w_range") is None:
        options["w_range"] = encoding.full_range(w, array)
    return write(w, array, **options)


@torch.no_grad()
def write(values: Tensor, array: Crossbar, **options: Unpack[WriteOptions]) -> Programmed:
    """Write values or codes into crossbars.

    Args:
        values: [..., O, I] real values, which the option `codec` turns into codes. Without a codec they are codes:
            integers; any numbers if the array has `residual`.
        array: the hardware.
        options: see `WriteOptions`.

    Raises:
        BadInput: a code does not fit into the slices, the range differs along the inputs, or as `Codec.codes`.
    """
    request = write_request(values, array, **options)
    cells = write_uncompensated(request)
    if not compensation.compensates(array):
        return cells
    new = write_uncompensated(replace(request, array=compensation.when_new(array)))
    return replace(cells, unit=cells.unit * compensation.factor(fold(new), fold(cells), array, request.stream))


def write_uncompensated(request: WriteRequest) -> Programmed:
    """`write` without a compensation of drift."""
    array, codes, slices, writer = request.array, request.codes, request.slices, request.writer("cell")
    if cell_writes.fusible(request, read_noise=False):
        held = Held(cell_writes.digits_written(request))
    elif residual_writes.fusible(request):
        held = Held(residual_writes.digits_written(request))
    elif array.residual is not None:
        held = _stacked([held for _, held in request.residual_slices(writer, writer.write_and_read_back)][::-1])
    elif one_sided(array):
        held = Held(codes.new_empty(2, slices, *codes.shape))
        for s, digits in enumerate(encoding.slice_digits(codes.abs().unsqueeze(0), array, slices)):
            (magnitudes,) = writer.write(digits).digits
            torch.mul(magnitudes, codes > 0, out=held.digits[0, s])
            torch.mul(magnitudes, codes < 0, out=held.digits[1, s])
    else:
        held = _stacked([writer.write(digits) for digits in encoding.signed_digits(codes, array, slices)])
    reference, reference_written = None, None
    if array.encoding == "offset":
        writer = request.writer("reference")
        by_slice = reference_targets(codes, array, slices)
        reference, reference_written, *_ = _stacked([writer.write(digits) for digits in by_slice]).at(0)
    return Programmed(
        array,
        held.digits,
        reference,
        request.unit,
        held.written,
        reference_written,
        held.read_std,
        request.mismatch(),
    )


@dataclass(frozen=True)
class WriteRequest:
    """A checked matrix of codes with all that is needed to write it.

    Attributes:
        array: the hardware.
        codes: [..., O, I] in float32 or float64; integers unless the array has `residual`.
        slices: the number of slices that hold them, copies included.
        largest: the largest magnitude that these slices hold.
        max_code: bound on their magnitude; None for that of the array.
        unit: [..., O or 1, 1] value of one code.
        stream: key of write noise and drift.
        fault_stream: key of faults.
        major: the axis along which random numbers run first.
        whole: True if the codes are known to be integers.
    """

    array: Crossbar
    codes: Tensor
    slices: int
    largest: float
    max_code: int | None
    unit: Tensor
    stream: Streams
    fault_stream: Streams
    major: Major
    whole: bool

    def writer(self, columns: Columns) -> Writer:
        """A new writer of the cells or of the reference columns, at its first slice."""
        stream = self.stream
        if columns == "reference" and self.major == "outputs" and isinstance(stream, SampleStreams):
            stream = _of_references(stream, self.array.columns)
        return Writer(self.array, columns, stream, self.fault_stream, self.major, self.codes.device)

    def residual_slices(self, writer: Writer, write: WriteSlice[Kept]) -> Iterator[tuple[int, Kept]]:
        """Write the codes by `write_residually`, and return what it returns."""
        return write_residually(self.codes, self.max_code, writer, write)

    def mismatch(self) -> Mismatch | None:
        """The errors of the converters that read the matrix; None if they are alike."""
        if not mismatched(self.array):
            return None
        codes, by_sample = self.codes, isinstance(self.stream, SampleStreams)
        return draw_mismatch(self.array, codes.shape, self.slices, self.fault_stream, by_sample=by_sample, like=codes)


def write_request(values: Tensor, array: Crossbar, **options: Unpack[WriteOptions]) -> WriteRequest:
    """Check and complete the arguments of a write, turn values into codes, and count the cell writes.

    Args:
        values: as in `write`.
        array: the hardware.
        options: see `WriteOptions`.

    Raises:
        BadInput: an option is unknown; or as `write`.
    """
    if unknown := next((name for name in options if name not in WriteOptions.__annotations__), None):
        raise BadInput(f"write: {unknown}: is not an argument; {suggest(unknown, list(WriteOptions.__annotations__))}")
    codec, code_range, max_code = options.get("codec"), options.get("code_range"), options.get("max_code")
    codes = encoding.checked_matrix(values, "write: codes" if codec is None else "write: values")
    stream, major = options.get("stream", 0), options.get("major", "outputs")
    stream = Stream(stream) if isinstance(stream, int) else stream
    w_range = _range_of_columns(options.get("w_range"), codes)
    if codec is not None:
        codes = codec.codes(codes, w_range if code_range is None else code_range, array, kernels=stream.kernels)
        max_code = codec.max_code if max_code is None else max_code
    elif code_range is not None:
        raise BadInput("write: code_range: is what a codec scales by, and there is none; give codec, or leave it out")
    slices = array.slices(max_code)
    largest = array.capacity(slices) if array.encoding == "differential" else array.max_code
    low, high = codes.aminmax()
    kind = "integers" if array.residual is None else "numbers"
    too_large = BadInput(
        f"write: codes must be {kind} within {largest} of zero, the most that {slices} slices hold; clip them, "
        "or correct max_code"
    )
    if require((low >= -largest) & (high <= largest), lambda: too_large):
        codes = codes.nan_to_num().clamp_(-largest, largest)
    unit = encoding.unit_of(w_range, array.max_code)
    _count_writes(codes, array, slices, stream, major)
    fault_stream, feedback = options.get("fault_stream") or stream, options.get("feedback")
    whole = array.residual is None and (codec is None or codec.rounded)
    request = WriteRequest(array, codes, slices, largest, max_code, unit, stream, fault_stream, major, whole)
    return request if feedback is None else _with_feedback(request, feedback)


def _range_of_columns(w_range: Tensor | float | None, like: Tensor) -> Tensor:
    """`WriteOptions.w_range` as a tensor [..., O or 1, 1] in the type of `like`."""
    w_range = like.new_ones(()) if w_range is None else torch.as_tensor(w_range).to(like)
    while w_range.dim() < 2:
        w_range = w_range.unsqueeze(0)
    if w_range.shape[-1] != 1:
        raise BadInput("w_range differs along the inputs, whose currents are summed unscaled; scale the inputs instead")
    return w_range


def _with_feedback(request: WriteRequest, feedback: ErrorFeedback) -> WriteRequest:
    """A request whose codes correct errors of earlier weights; refuse feedback that does not fit."""
    array, codes, inputs = request.array, request.codes, feedback.order.shape
    if array.residual is None or not array.residual.feedback or codes.shape[1:] != inputs:
        raise BadInput(
            f"write: feedback: corrects errors in one matrix [outputs, {inputs.numel()}] of an array with residual = "
            f"{{ feedback = true }}; the codes have the shape {list(codes.shape)}, and the array has residual = "
            f"{array.residual}; leave feedback out, or fit it to the inputs of this matrix"
        )
    return replace(request, codes=corrected(request, feedback))


def _of_references(stream: SampleStreams, columns: int) -> SampleStreams:
    """The streams of reference columns, from those of a matrix whose outputs grow as tokens are appended."""
    if isinstance(stream, TokenStreams):  # a reference column that serves many tokens belongs to its place
        return stream if columns == 1 else replace(stream, numbers=((),) * len(stream.streams))
    return replace(stream, lengths=in_blocks(stream.lengths, columns))


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
    if array.residual is not None:
        read = array.residual.read_backs(slices)
        counter.cell_reads += cells * read * array.polarities
        counter.adc_conversions += cells * read * (1 if array.subtract == "analog" else array.polarities)
    if array.encoding == "offset":
        counter.cell_writes += sum(digits.numel() for digits in reference_targets(codes, array, slices))
