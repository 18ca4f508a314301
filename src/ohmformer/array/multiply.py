"""Matrix-vector products on programmed crossbars, at three levels of fidelity. `product` chooses by the level.

`cell` (in `array/cell_level.py`) simulates every device, input cycle, slice and conversion. `array` has the same
distribution with one Gaussian per conversion, and sums input cycles and slices if converters are ideal. `noise` leaves
out the rounding of converters and the read noise of cells. Noise, mismatch and distortion of row drivers and converters
(`array/peripherals`) act at every level; where converters do not round, those of all conversions are one sum.

Shapes: M input vectors, O outputs, I inputs, R rows of one block, C column blocks (reference columns), S slices,
Z input cycles; `...` are matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import get_args

import torch
from torch import Tensor

from ohmformer.array import cell_level, converters, encoding
from ohmformer.array.folded import Conversions, Folded, fold, folded_product
from ohmformer.array.kernels import compiled_products, converted_sum
from ohmformer.array.peripherals import drivers, reported
from ohmformer.array.peripherals.read_keys import of_references
from ohmformer.array.peripherals.spec import draws_for_reads, mismatched
from ohmformer.array.programmed import Programmed
from ohmformer.array.spec import Crossbar, Level, analog
from ohmformer.device import noise
from ohmformer.errors import BadInput
from ohmformer.precision import widened
from ohmformer.streams import Stream, Streams
from ohmformer.streams.backends import Kernels

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
        stream: key of the read noise: a stream, or a seed. Required if reads are noisy. It says which
            kernels compute.
        adc_range: calibrated converter range, in digits times input units (see `calibrate_adc.column_percentiles`).

    Returns:
        Results [..., M, O], or [O] for one vector.

    Raises:
        BadInput: the level is unknown, a stream or a calibrated range is missing, the inputs have another length than
            the matrix has rows, or they hold NaN or infinity.
    """
    array = programmed.array
    x = widened(x, "mvm: x")
    if x.dim() == 0 or x.shape[-1] != programmed.inputs:
        raise BadInput(f"inputs of shape {tuple(x.shape)} meet a matrix with {programmed.inputs} rows; they must agree")
    if x.dim() == 1:
        return mvm(
            x[None], programmed, level=level, x_range=x_range, signed=signed, stream=stream, adc_range=adc_range
        ).squeeze(-2)
    kernels = stream.kernels if isinstance(stream, Streams) else "torch"
    if not has_noisy_reads(level, array):
        stream = None
    elif stream is None:
        noisy = "the drivers or converters have noise" if noise.exact_reads(array.cell) else "the cells have read noise"
        raise BadInput(f"{noisy} but no stream was given; pass stream=Stream(seed, ...) or an integer")
    stream = Stream(stream) if isinstance(stream, int) else stream
    return product(
        x, programmed, array, level=level, x_range=x_range, signed=signed, stream=stream, adc_range=adc_range,
        kernels=kernels,
    )  # fmt: skip


def needs_cells(level: Level, array: Crossbar) -> bool:
    """True if the level simulates converters or single devices, so that slices must not be summed beforehand.

    Raises:
        BadInput: the level is unknown.
    """
    if level not in LEVELS:
        raise BadInput(f"level = {level!r} is unknown; use one of {', '.join(LEVELS)}")
    return level == "cell" or (level == "array" and array.adc.bits != "ideal")


def has_read_noise(level: Level) -> bool:
    """True if the level simulates the read noise of cells."""
    return level != "noise"


def has_noisy_reads(level: Level, array: Crossbar) -> bool:
    """True if reads draw noise: of cells, if the level simulates it, or of row drivers and converters."""
    return (has_read_noise(level) and not noise.exact_reads(array.cell)) or draws_for_reads(array)


def reads_may_follow_tokens(level: Level) -> bool:
    """True if read noise may be keyed by token; level `cell` draws it for all tokens of a sample together."""
    return level != "cell"


def product(
    x: Tensor,
    cells: Programmed | Folded,
    array: Crossbar,
    *,
    level: Level,
    x_range: Tensor | float | None,
    signed: bool,
    stream: Streams | None,
    adc_range: converters.Range | None,
    rounded: bool = True,
    shares: Tensor | None = None,
    kernels: Kernels = "torch",
) -> Tensor:
    """Multiply real inputs by a written matrix, at a fidelity level.

    The level decides here what is computed. A matrix that is folded already is multiplied as it is. What others must
    know of the level, the functions above say: `needs_cells` whether a matrix may be folded, for example.

    Args:
        x: inputs [..., M, I].
        cells: what the cells hold of the matrix [..., O, I].
        array: the hardware.
        level: fidelity level.
        x_range: as in `mvm`.
        signed: as in `mvm`.
        stream: key of the read noise; None for reads without noise.
        adc_range: calibrated converter range, in digits times input units.
        rounded: round inputs to codes; False bypasses the quantizer, and the matrix was written for `analog(array)`.
        shares: factors of the codes of inputs, which broadcast against x; None for none.
        kernels: what computes on the CPU.

    Returns:
        Results [..., M, O].
    """
    x = x.to(cells.digits) if isinstance(cells, Programmed) else x
    codes, unit = encoding.quantize_input(x, array, x_range, signed=signed, rounded=rounded, kernels=kernels)
    codes, written = codes if shares is None else codes * shares, array if rounded else analog(array)
    if isinstance(cells, Folded) or not needs_cells(level, written):
        added = _conversions(array, written, signed=signed, adc_range=adc_range)
        cells = cells if isinstance(cells, Folded) else fold(cells, read_noise=has_read_noise(level))
        return folded_product(codes, cells, written, stream, signed=signed, converters=added).mul_(unit)
    span = converters.adc_range(array, signed=signed, calibrated=adc_range)
    if level == "array":
        quick = compiled_products.converted_product(
            codes, cells, signed=signed, stream=stream, span=span, kernels=kernels, whole=rounded and shares is None
        )
        if quick is not None:
            return quick.mul_(cells.unit.transpose(-2, -1) * unit)
    computed = cell_level.product if level == "cell" else converted_product
    y = computed(codes, cells, signed=signed, stream=stream, span=span)
    return y.mul_(cells.unit.transpose(-2, -1)).mul_(unit)


def _conversions(
    array: Crossbar, written: Crossbar, *, signed: bool, adc_range: converters.Range | None
) -> Conversions | None:
    """What converters of an array add to a product that they do not round; None for nothing.

    `written` is the array that holds the matrix: `array`, or `analog` of it.
    """
    parts = array.peripherals
    if not (parts.output_noise or (parts.offset_mismatch and mismatched(array))):
        return None
    span = converters.adc_range(array, signed=signed, calibrated=adc_range)
    return Conversions(array, span, signed, written)


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
    if converted_sum.fusible(codes, programmed):
        return converted_sum.converted_product(codes, programmed, signed=signed, stream=stream, span=span)
    array = programmed.array
    total = codes.new_zeros(())
    reads = column_currents(codes, programmed, signed=signed, stream=stream, noise=stream, span=span)
    for s, weight, currents in reads:
        y, step, zero = converters.to_codes_(currents, array.adc, converters.at_slice(span, s))
        y = programmed.by_output(y, -1) if y.shape[-1] != programmed.outputs else y
        total = total.add_(y, alpha=weight * step) if total.dim() else y.mul_(weight * step)
        if zero:
            total += weight * zero
    return encoding.mean_over_copies_(total, array)


def column_currents(
    codes: Tensor,
    programmed: Programmed,
    *,
    signed: bool,
    stream: Streams | None,
    noise: Streams | None = None,
    span: converters.Range | None = None,
) -> Iterator[tuple[int, float, Tensor]]:
    """The currents of every read: of each row block, slice, input cycle and side (see `Programmed.sides`).

    Args:
        codes: integer inputs [..., M, I].
        programmed: the matrix [..., O, I].
        signed: as in `mvm`.
        stream: key of the read noise of cells; None for reads without noise.
        noise: key of the noise of row drivers and converters; None for none.
        span: range of the converters; None leaves out their offset and noise, which are shares of it.

    Returns:
        For each read: the slice, the weight of its result in the sum, and currents [..., M, O or C] in digits times
        input units, a new tensor.
    """
    array = programmed.array
    if drivers.plain(array):
        planes, weights = encoding.bit_planes(codes, array, signed=signed)
        powers = planes if stream is None or array.inputs.kind == "bit_serial" else planes.square()
    else:
        planes, powers, weights = drivers.driven(codes, array, signed=signed, stream=noise)
    ideal = not array.peripherals.output_noise and programmed.mismatch is None
    converted = None if ideal else _Converters(programmed, codes, noise, span)
    reads = itertools.product(range(0, programmed.inputs, array.rows), range(programmed.slices), range(len(weights)))
    for first, s, z in reads:
        rows, weight = slice(first, first + array.rows), float(weights[z] * array.slice_weight(s))
        applied = planes[z][..., rows]
        for k, side in enumerate(programmed.sides[s]):
            y = applied @ side.digits[..., rows].transpose(-2, -1)
            if stream is not None and side.variance is not None:
                numbers = stream.child("read", z, s, first, k)
                numbers = of_references(numbers, array.columns) if k and programmed.reference is not None else numbers
                power = powers[z][..., rows]
                std = (power @ side.variance[..., rows].transpose(-2, -1)).sqrt_()
                y = y.addcmul_(std, numbers.normal(*std.shape, like=std))
                if side.shared_variance is not None:
                    std = (power @ side.shared_variance[..., rows].transpose(-2, -1)).sqrt_()
                    references = of_references(numbers.child("reference"), array.columns)
                    shared = std.mul_(references.normal(*std.shape, like=std))
                    y -= shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
            yield s, side.sign * weight, y if converted is None else converted.reported(y, k, s, z, first)


class _Converters:
    """The converters of a matrix whose gain, offset or noise is simulated.

    Args:
        programmed: the matrix.
        codes: integer inputs [..., M, I].
        noise: key of their noise; None for none.
        span: their range; None leaves out offset and noise.
    """

    def __init__(
        self, programmed: Programmed, codes: Tensor, noise: Streams | None, span: converters.Range | None
    ) -> None:
        self.programmed, self.noise, self.span = programmed, noise, span
        self.read = reported.read_blocks(codes, programmed.array.rows)

    def reported(self, current: Tensor, side: int, s: int, z: int, first: int) -> Tensor:
        """What they get in place of a current [..., M, O or C] of one read; see `column_currents`."""
        array, mismatch, block = self.programmed.array, self.programmed.mismatch, first // self.programmed.array.rows
        low, high = (0.0, 0.0) if self.span is None else converters.at_slice(self.span, s)
        stream = None if self.noise is None else self.noise.child("convert", z, s, first, side)
        if stream is not None and side and self.programmed.reference is not None:
            stream = of_references(stream, array.columns)
        return reported.reported(
            current,
            array,
            errors=None if mismatch is None else mismatch.of_side(side, s)[..., block],
            width=None if self.span is None else high - low,
            read=self.read[..., block : block + 1],
            stream=stream,
        )
