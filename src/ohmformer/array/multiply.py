"""Matrix-vector products on programmed crossbars, at the three levels of fidelity.

`cell` (in `array/cell_level.py`) simulates every device, cycle, slice and conversion. `array` gives the same
distribution from one Gaussian per conversion, and folds cycles and slices where no converter stands between. `noise`
leaves converters and read noise out.

Shapes: M input vectors, O outputs, I inputs, R rows of one block, C column blocks, S slices, Z reads per vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ohmformer.array import cell_level, converters, encoding
from ohmformer.array.crossbar import Programmed, Side
from ohmformer.array.folded import Folded, fold, folded_product
from ohmformer.array.spec import Crossbar
from ohmformer.device import noise
from ohmformer.errors import BadInput
from ohmformer.streams import Stream, Streams

__all__ = ["LEVELS", "Folded", "Level", "fold", "folded_product", "mvm", "quantised_input"]

Level = Literal["cell", "array", "noise"]
LEVELS: tuple[Level, ...] = ("cell", "array", "noise")


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
    """Multiply inputs x[..., M, I] with a programmed matrix [..., O, I]: about x @ w.T, [..., M, O]. No gradients pass.

    Args:
        x: real inputs; leading dimensions broadcast against those of the matrix. One vector [I] gives [O].
        programmed: what `program` gave.
        level: how faithfully.
        x_range: the value that the largest input code stands for; by default the largest magnitude, of each vector if
            the hardware's input range is `dynamic`, of the whole of x otherwise.
        signed: False for inputs that are never negative, which then use all codes (softmax outputs).
        stream: what the read noise belongs to, needed where there is any; an integer is the stream of that seed.
        adc_range: calibrated converter range, in digits times input units (see `observe.column_percentiles`).

    Raises:
        BadInput: an unknown level, a missing stream or calibration, inputs of another length, NaN or infinity.
    """
    array = programmed.array
    x = encoding.widened(x, "mvm: x")
    if x.dim() == 0 or x.shape[-1] != programmed.inputs:
        raise BadInput(f"inputs of shape {tuple(x.shape)} meet a matrix with {programmed.inputs} rows; they must agree")
    if x.dim() == 1:
        return mvm(
            x[None], programmed, level=level, x_range=x_range, signed=signed, stream=stream, adc_range=adc_range
        ).squeeze(-2)
    codes, unit = quantised_input(x.to(programmed.cells), array, x_range, signed=signed)
    found = _stream(stream, array, level)
    y = product(codes, programmed, array, level=level, signed=signed, stream=found, adc_range=adc_range)
    return y.mul_(unit)


def needs_cells(level: Level, array: Crossbar) -> bool:
    """True if converters or single devices are simulated, so that slices cannot be folded.

    Raises:
        BadInput: there is no such level.
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
    """Integer inputs [..., M, I] times what crossbars hold, at a level: [..., M, O], in the matrix's own unit.

    This is the one place where the level decides what is computed. What was folded is multiplied as it is.

    Args:
        codes: inputs.
        held: the matrix [..., O, I]; folded where no converter and no single device is simulated.
        array: the hardware, as it is used.
        level: how faithfully.
        signed: as in `mvm`.
        stream: what the read noise belongs to; None without.
        adc_range: calibrated converter range.
    """
    if isinstance(held, Folded):
        return folded_product(codes, held, array, stream)
    if not needs_cells(level, array):
        return folded_product(codes, fold(held, read_noise=level != "noise"), array, stream)
    span = converters.adc_range(array, signed=signed, calibrated=adc_range)
    computed = cell_level.product if level == "cell" else converted_product
    return computed(codes, held, signed=signed, stream=stream, span=span).mul_(held.unit.transpose(-2, -1))


def quantised_input(
    x: Tensor, array: Crossbar, x_range: Tensor | float | None, *, signed: bool, rounded: bool = True
) -> tuple[Tensor, Tensor]:
    """Input codes of x[..., M, I] and the value of one code; see `mvm` for the range.

    Without `rounded` they are no integers: the quantiser is bypassed.

    Raises:
        BadInput: x holds NaN or infinity.
    """
    if x_range is None:
        x_range = x.abs().amax(-1, keepdim=True) if array.inputs.range == "dynamic" else x.abs().amax()
    return encoding.quantise_input(x, array, torch.as_tensor(x_range).to(x), signed=signed, rounded=rounded)


def _stream(stream: Streams | int | None, array: Crossbar, level: Level) -> Streams | None:
    if level == "noise" or noise.exact_reads(array.cell):
        return None
    if stream is None:
        raise BadInput("the cells have read noise but no stream was given; pass stream=Stream(seed, ...) or an integer")
    return Stream(stream) if isinstance(stream, int) else stream


def converted_product(
    codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: converters.Range
) -> Tensor:
    """Integer inputs [..., M, I] times a programmed matrix, every conversion done on its own; in code units.

    The noise of the cells behind a conversion is one Gaussian of the same variance.
    """
    array = programmed.array
    total = codes.new_zeros(())
    for s, z, block, weight, volts in reads(codes, programmed, signed=signed):
        ends = converters.at_slice(span, s)
        for k, side in enumerate(programmed.sides[s]):
            y = currents(volts, side, block, array, stream and stream.child("read", z, s, block.start, k))
            y, step, zero = converters.to_codes_(y, array.adc, ends)
            y = programmed.by_output(y, -1) if y.shape[-1] != programmed.outputs else y
            part = side.sign * weight
            total = total.add_(y, alpha=part * step) if total.dim() else y.mul_(part * step)
            if zero:
                total += part * zero
    return encoding.averaged_(total, array)


def reads(codes: Tensor, programmed: Programmed, *, signed: bool) -> Iterator[tuple[int, int, slice, float, Tensor]]:
    """Every read of every row block: slice, cycle, rows, weight of its result, and what is applied [..., M, R]."""
    array = programmed.array
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    for first in range(0, programmed.inputs, array.rows):
        block = slice(first, first + array.rows)
        for s in range(programmed.slices):
            for z, weight in enumerate(weights):
                yield s, z, block, float(weight * array.place(s)), planes[z][..., block]


def currents(volts: Tensor, side: Side, block: slice, array: Crossbar, stream: Streams | None) -> Tensor:
    """Currents [..., M, O or C] of one read of a row block: inputs [..., M, R], columns [..., O or C, I]."""
    y = volts @ side.cells[..., block].transpose(-2, -1)
    if stream is None or side.variance is None:
        return y
    power = volts if array.inputs.kind == "bit_serial" else volts.square()
    spread = (power @ side.variance[..., block].transpose(-2, -1)).sqrt_()
    y = y.addcmul_(spread, stream.normal(*spread.shape, like=spread))
    if side.shared_variance is not None:
        spread = (power @ side.shared_variance[..., block].transpose(-2, -1)).sqrt_()
        shared = spread.mul_(stream.child("reference").normal(*spread.shape, like=spread))
        y -= shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
    return y
