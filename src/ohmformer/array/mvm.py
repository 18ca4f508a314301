"""Matrix-vector products on programmed crossbars, at the three levels of fidelity.

`cell` (in `array/oracle.py`) simulates every device, cycle, slice and conversion. `array` gives the same distribution
from one Gaussian per conversion, and folds cycles and slices where no converter stands between. `noise` leaves
converters and read noise out.

Shapes: M input vectors, O outputs, I inputs, N row blocks of R rows, S slices, P polarities, Z reads per vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.array import converters, encoding, oracle
from ohmformer.array.crossbar import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.device import noise
from ohmformer.device.spec import NoNoise
from ohmformer.errors import BadInput
from ohmformer.streams import Stream, Streams

Level = Literal["cell", "array", "noise"]
LEVELS: tuple[Level, ...] = ("cell", "array", "noise")


@dataclass(frozen=True)
class Folded:
    """A programmed matrix with slices and polarities summed: all that is needed where no converter stands between.

    Attributes:
        weight: [..., O, I] the values that the cells hold.
        variance: [..., O, I] variance of one read of them at unit input, or None without read noise.
        reference_variance: [..., C, I] the same for the reference columns of `offset` arrays.
    """

    weight: Tensor
    variance: Tensor | None
    reference_variance: Tensor | None


def fold(programmed: Programmed, *, read_noise: bool = True) -> Folded:
    """Sum slices and polarities of a programmed matrix."""
    array, base = programmed.array, 2**programmed.array.bits_per_cell
    places = [float(base**k) for k in range(programmed.slices)]
    cells, reference = programmed.cells, programmed.reference
    halves = list(cells.unbind(0))
    if reference is not None:
        halves.append(programmed.reference_by_output(reference))
    weight = _weighted(halves[0], places) - _weighted(halves[1], places)
    weight = weight * programmed.unit
    if not read_noise or isinstance(array.cell.read_noise, NoNoise):
        return Folded(weight, None, None)
    squares = [place**2 for place in places]
    variance = sum((_weighted(read_variance(half, array), squares) for half in cells.unbind(0)), torch.zeros(()))
    variance = variance * programmed.unit**2
    if reference is None:
        return Folded(weight, variance, None)
    return Folded(weight, variance, _weighted(read_variance(reference, array), squares) * programmed.unit**2)


def _weighted(slices: Tensor, places: list[float]) -> Tensor:
    """Sum of [S, ...] slices with their places."""
    total = slices[0] * places[0]
    for part, place in zip(slices[1:], places[1:], strict=True):
        total = total.add(part, alpha=place)
    return total


def read_variance(cells: Tensor, array: Crossbar) -> Tensor:
    """Variance of one read, in digits squared, of cells that hold these digits."""
    g = array.cell.g_min + array.step * cells
    return (noise.read_std(g, array.cell, age=array.age) / array.step).square()


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
    """Multiply inputs x[..., M, I] with a programmed matrix [..., O, I]: about x @ w.T, [..., M, O].

    Args:
        x: real inputs; leading dimensions broadcast against those of the matrix.
        programmed: what `program` gave.
        level: how faithfully.
        x_range: the value that the largest input code stands for; by default the largest magnitude, of each vector if
            the hardware's input range is `dynamic`, of the whole of x otherwise.
        signed: False for inputs that are never negative, which then use all codes (softmax outputs).
        stream: what the read noise belongs to; an integer is the stream of that seed. Needed where cells have read noise.
        adc_range: calibrated converter range, in digits times input units (see `observe`).

    Raises:
        BadInput: an unknown level, a missing stream or calibration, inputs of another length, NaN or infinity.
    """
    array = programmed.array
    if x.shape[-1] != programmed.inputs:
        raise BadInput(f"inputs have {x.shape[-1]} features but the matrix has {programmed.inputs} rows; they must agree")
    codes, unit = quantised_input(x, array, x_range, signed=signed)
    y = _product(codes, programmed, level, signed, _stream(stream, array, level), adc_range)
    return y * unit


def _product(
    codes: Tensor, programmed: Programmed, level: Level, signed: bool, stream: Streams | None, adc: converters.Range | None
) -> Tensor:
    """Integer inputs times the programmed matrix, in the matrix's own unit."""
    array = programmed.array
    match level:
        case "noise":
            return codes @ fold(programmed, read_noise=False).weight.transpose(-2, -1)
        case "array" if array.adc.bits == "ideal":
            return folded_product(codes, fold(programmed), array, stream)
        case "array":
            span = converters.adc_range(array, signed=signed, calibrated=adc)
            total = converted_product(codes, programmed, signed=signed, stream=stream, span=span)
        case "cell":
            span = converters.adc_range(array, signed=signed, calibrated=adc)
            total = oracle.product(codes, programmed, signed=signed, stream=stream, span=span)
        case _:
            raise BadInput(f"level = {level!r} is unknown; use one of {', '.join(LEVELS)}")
    return total * programmed.unit.transpose(-2, -1)


def quantised_input(x: Tensor, array: Crossbar, x_range: Tensor | float | None, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Input codes of x[..., M, I] and the value of one code; see `mvm` for the range.

    Raises:
        BadInput: x holds NaN or infinity.
    """
    if array.inputs.range == "dynamic":
        x_range = x.abs().amax(-1, keepdim=True)
    elif x_range is None:
        x_range = x.abs().amax()
    if x.device.type == "cpu" and not bool(torch.isfinite(x.sum())):
        raise BadInput("the inputs of a crossbar hold NaN or infinity; look for the layer that made them")
    return encoding.quantise_input(x, array, torch.as_tensor(x_range).to(x), signed=signed)


def _stream(stream: Streams | int | None, array: Crossbar, level: Level) -> Streams | None:
    if isinstance(stream, int):
        return Stream(stream)
    if stream is None and level != "noise" and not isinstance(array.cell.read_noise, NoNoise):
        raise BadInput("the cells have read noise but mvm was given no stream; pass stream=Stream(seed, ...) or an integer")
    return stream


def folded_product(codes: Tensor, folded: Folded, array: Crossbar, stream: Streams | None) -> Tensor:
    """Integer inputs [..., M, I] times a folded matrix, with the read noise of all its cells as one Gaussian."""
    y = codes @ folded.weight.transpose(-2, -1)
    if folded.variance is None or stream is None:
        return y
    power = encoding.read_power(codes, array)
    spread = (power @ folded.variance.transpose(-2, -1)).sqrt_()
    y = y.addcmul_(spread, _normal(stream.child("read"), spread))
    if folded.reference_variance is not None:
        spread = (power @ folded.reference_variance.transpose(-2, -1)).sqrt_()
        shared = spread * _normal(stream.child("read reference"), spread)
        y -= shared.repeat_interleave(array.columns, dim=-1)[..., : y.shape[-1]]
    return y


def _normal(stream: Streams, like: Tensor) -> Tensor:
    return stream.normal(*like.shape, like=like)


def converted_product(
    codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: converters.Range
) -> Tensor:
    """Integer inputs [..., M, I] times a programmed matrix, every conversion done on its own; in code units.

    The noise of the cells behind a conversion is one Gaussian of the same variance.
    """
    array = programmed.array
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    planes = blocks(planes, array.rows)
    total = codes.new_zeros(())
    for s in range(programmed.slices):
        place = 2 ** (array.bits_per_cell * s)
        for z, weight in enumerate(weights):
            currents = [current(planes[z], side, array, stream and stream.child(z, s, p)) for p, side in sides(programmed, s)]
            plus, minus = currents
            if array.encoding == "offset":
                minus = minus.repeat_interleave(array.columns, dim=-1)[..., : plus.shape[-1]]
            if array.subtract == "analog":
                result = converters.convert(plus - minus, array.adc, at_slice(span, s))
            else:
                ends = at_slice(span, s)
                result = converters.convert(plus, array.adc, ends) - converters.convert(minus, array.adc, ends)
            total = total + result.sum(dim=-3) * float(weight * place)
    return total


def sides(programmed: Programmed, s: int) -> list[tuple[int, Tensor]]:
    """The two groups of columns that are subtracted: the halves of a pair, or columns and their reference."""
    if programmed.reference is not None:
        return [(0, programmed.cells[0, s]), (1, programmed.reference[s])]
    return [(0, programmed.cells[0, s]), (1, programmed.cells[1, s])]


def blocks(x: Tensor, rows: int) -> Tensor:
    """Split the last axis into row blocks, padding the last with zeros: [..., M, I] -> [..., N, M, R]."""
    padded = F.pad(x, (0, -x.shape[-1] % rows))
    return padded.unflatten(-1, (-1, rows)).movedim(-2, -3)


def current(plane: Tensor, cells: Tensor, array: Crossbar, stream: Streams | None) -> Tensor:
    """Column currents [..., N, M, O] of one read: inputs [..., N, M, R], cells [..., O, I]."""
    blocked = blocks(cells, array.rows)
    y = plane @ blocked.transpose(-2, -1)
    if stream is None or isinstance(array.cell.read_noise, NoNoise):
        return y
    # A padded row has input 0, so whatever the cells there would add is multiplied by zero.
    spread = (plane.square() @ read_variance(blocked, array).transpose(-2, -1)).sqrt_()
    return y.addcmul_(spread, _normal(stream.child("read"), spread))


def at_slice(span: converters.Range, s: int) -> converters.Range:
    """The range of one slice's converters: ranges may differ by slice."""
    low, high = (end[s] if isinstance(end, Tensor) and end.dim() else end for end in span)
    return low, high
