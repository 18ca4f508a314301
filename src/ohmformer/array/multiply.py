"""Matrix-vector products on programmed crossbars, at three levels of fidelity. `product` chooses by the level.

`cell` (in `array/cell_level.py`) simulates every device, input cycle, slice and conversion. `array` has the same
distribution with one Gaussian per conversion, and sums input cycles and slices if converters are ideal. `noise` leaves
out converters and read noise.

Shapes: M input vectors, O outputs, I inputs, R rows of one block, C column blocks (reference columns), S slices,
Z input cycles; `...` are matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import torch
from torch import Tensor

from ohmformer.array import cell_level, converters, encoding
from ohmformer.array.crossbar import Programmed, Side
from ohmformer.array.folded import Folded, fold, folded_product
from ohmformer.array.spec import Crossbar, Level
from ohmformer.device import noise
from ohmformer.errors import BadInput
from ohmformer.streams import Stream, Streams

LEVELS: tuple[Level, ...] = get_args(Level)


@torch.no_grad()
def mvm(
    x: Tensor,
    programmed: Programmed,
    *,
    level: Level = "array",
    x_range: Tensor | float | None = None,
    signed: bool = True,
    stream: Streams | int | None = None,
    adc_range: converters.Range | None = None,
) -> Tensor:
    """Multiply real inputs by a programmed matrix: about x @ w.T. No gradients pass.

    Args:
        x: inputs [..., M, I], or one vector [I]; leading dimensions broadcast against those of the matrix.
        programmed: the matrix [..., O, I], as `program` returns it.
        level: fidelity level.
        x_range: the value of the largest input code; by default the largest magnitude, of each vector if the hardware's
            input range is `dynamic`, otherwise of the whole of x.
        signed: False for inputs that are never negative (softmax outputs), which then use all codes.
        stream: key of the read noise: a stream, or a seed. Required if reads are noisy.
        adc_range: calibrated converter range, in digits times input units (see `calibrate_adc.column_percentiles`).

    Returns:
        Results [..., M, O], or [O] for one vector.

    Raises:
        BadInput: the level is unknown, a stream or a calibrated range is missing, the inputs have another length than
            the matrix has rows, or they hold NaN or infinity.
    """
    array = programmed.array
    x = encoding.widened(x, "mvm: x")
    if x.dim() == 0 or x.shape[-1] != programmed.inputs:
        raise BadInput(f"inputs of shape {tuple(x.shape)} meet a matrix with {programmed.inputs} rows; they must agree")
    if x.dim() == 1:
        return mvm(
            x[None], programmed, level=level, x_range=x_range, signed=signed, stream=stream, adc_range=adc_range
        ).squeeze(-2)
    codes, unit = quantized_input(x.to(programmed.cells), array, x_range, signed=signed)
    read_stream = _read_stream(stream, array, level)
    y = product(codes, programmed, array, level=level, signed=signed, stream=read_stream, adc_range=adc_range)
    return y.mul_(unit)


def needs_cells(level: Level, array: Crossbar) -> bool:
    """True if the level simulates converters or single devices, so that slices must not be summed beforehand.

    Raises:
        BadInput: the level is unknown.
    """
    if level not in LEVELS:
        raise BadInput(f"level = {level!r} is unknown; use one of {', '.join(LEVELS)}")
    return level == "cell" or (level == "array" and array.adc.bits != "ideal")


def product(
    codes: Tensor,
    held: Programmed | Folded,
    array: Crossbar,
    *,
    level: Level,
    signed: bool,
    stream: Streams | None,
    adc_range: converters.Range | None,
) -> Tensor:
    """Multiply integer inputs by a written matrix, at a fidelity level.

    This is the only place where the level decides what is computed. A matrix that is folded already is multiplied as it
    is; `needs_cells` says whether it may be folded.

    Args:
        codes: inputs [..., M, I].
        held: the matrix [..., O, I].
        array: the hardware.
        level: fidelity level.
        signed: as in `mvm`.
        stream: key of the read noise; None for reads without noise.
        adc_range: calibrated converter range, in digits times input units.

    Returns:
        Results [..., M, O], in values of the matrix times input units.
    """
    if isinstance(held, Folded):
        return folded_product(codes, held, array, stream)
    if not needs_cells(level, array):
        return folded_product(codes, fold(held, read_noise=level != "noise"), array, stream)
    span = converters.adc_range(array, signed=signed, calibrated=adc_range)
    computed = cell_level.product if level == "cell" else converted_product
    return computed(codes, held, signed=signed, stream=stream, span=span).mul_(held.unit.transpose(-2, -1))


def quantized_input(
    x: Tensor, array: Crossbar, x_range: Tensor | float | None, *, signed: bool, rounded: bool = True
) -> tuple[Tensor, Tensor]:
    """Quantize inputs.

    Args:
        x: real inputs [..., M, I].
        array: the hardware.
        x_range: the value of the largest code; None as in `mvm`.
        signed: as in `mvm`.
        rounded: round codes to integers; False bypasses the quantizer.

    Returns:
        Codes [..., M, I], and the value of one code.

    Raises:
        BadInput: x holds NaN or infinity.
    """
    if x_range is None:
        x_range = x.abs().amax(-1, keepdim=True) if array.inputs.range == "dynamic" else x.abs().amax()
    return encoding.quantize_input(x, array, torch.as_tensor(x_range).to(x), signed=signed, rounded=rounded)


def _read_stream(stream: Streams | int | None, array: Crossbar, level: Level) -> Streams | None:
    """The stream of the read noise; None if the level or the cells have none."""
    if level == "noise" or noise.exact_reads(array.cell):
        return None
    if stream is None:
        raise BadInput("the cells have read noise but no stream was given; pass stream=Stream(seed, ...) or an integer")
    return Stream(stream) if isinstance(stream, int) else stream


def converted_product(
    codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: converters.Range
) -> Tensor:
    """Multiply integer inputs by a programmed matrix with one conversion per column, slice, row block and cycle.

    The read noise of the cells behind a conversion is one Gaussian of the same variance.

    Args:
        codes: inputs [..., M, I].
        programmed: the matrix [..., O, I].
        signed: as in `mvm`.
        stream: key of the read noise; None for reads without noise.
        span: range of the converters, in digits times input units.

    Returns:
        Results [..., M, O] in code units.
    """
    array = programmed.array
    total = codes.new_zeros(())
    for s, z, rows, weight, applied in read_cycles(codes, programmed, signed=signed):
        slice_span = converters.at_slice(span, s)
        for k, side in enumerate(programmed.sides[s]):
            y = column_currents(applied, side, rows, array, stream and stream.child("read", z, s, rows.start, k))
            y, step, zero = converters.to_codes_(y, array.adc, slice_span)
            y = programmed.by_output(y, -1) if y.shape[-1] != programmed.outputs else y
            factor = side.sign * weight
            total = total.add_(y, alpha=factor * step) if total.dim() else y.mul_(factor * step)
            if zero:
                total += factor * zero
    return encoding.mean_over_copies_(total, array)


def read_cycles(
    codes: Tensor, programmed: Programmed, *, signed: bool
) -> Iterator[tuple[int, int, slice, float, Tensor]]:
    """Every read of every row block.

    Args:
        codes: integer inputs [..., M, I].
        programmed: the matrix [..., O, I].
        signed: as in `mvm`.

    Returns:
        For each read: slice s, input cycle z, rows of the block, weight of its result in the sum, and what is applied
        to the rows [..., M, R].
    """
    array = programmed.array
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    for first in range(0, programmed.inputs, array.rows):
        rows = slice(first, first + array.rows)
        for s in range(programmed.slices):
            for z, weight in enumerate(weights):
                yield s, z, rows, float(weight * array.slice_weight(s)), planes[z][..., rows]


def column_currents(applied: Tensor, side: Side, rows: slice, array: Crossbar, stream: Streams | None) -> Tensor:
    """Column currents of one read of a row block.

    Args:
        applied: what is applied to the rows [..., M, R].
        side: the columns [..., O or C, I].
        rows: the row block.
        array: the hardware.
        stream: key of the read noise; None for reads without noise.

    Returns:
        Currents [..., M, O or C], in digits times input units: a new tensor.
    """
    y = applied @ side.cells[..., rows].transpose(-2, -1)
    if stream is None or side.variance is None:
        return y
    power = applied if array.inputs.kind == "bit_serial" else applied.square()
    std = (power @ side.variance[..., rows].transpose(-2, -1)).sqrt_()
    y = y.addcmul_(std, stream.normal(*std.shape, like=std))
    if side.shared_variance is not None:
        std = (power @ side.shared_variance[..., rows].transpose(-2, -1)).sqrt_()
        shared = std.mul_(stream.child("reference").normal(*std.shape, like=std))
        y -= shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
    return y
