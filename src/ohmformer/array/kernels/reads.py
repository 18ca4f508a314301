"""Read noise and conversions of results by compiled loops on the CPU.

Shapes: M input vectors, O outputs, I inputs, R rows of a block; `...` are matrices that share one call, such as samples
and heads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohmformer.array import converters, encoding
from ohmformer.array.kernels import converted_sum
from ohmformer.array.kernels.scratch import scratch
from ohmformer.array.programmed import Programmed, Side
from ohmformer.streams import SampleStreams, Stream, Streams
from ohmformer.streams.backends import Kernels, compiles
from ohmformer.streams.counted_source import CountedSource

MOST_BITS = 20
"""Of a converter whose codes the loop rounds."""
Numbers = tuple[Any, Any, int]
_NONE = np.empty(0, np.float32)


def add_noise_(y: Tensor, power: Tensor, variance: Tensor, stream: Streams) -> bool:
    """Add read noise to results, in place.

    Args:
        y: results [..., M, O]; changed.
        power: factors [..., M, I] on the variances of cells.
        variance: of one read of each cell [..., O, I].
        stream: key of the noise.

    Returns:
        True; or False, with y unchanged, if there is no compiled loop for it: for streams that did not choose one, for
        other types than float32, and for results with gaps.
    """
    single = {y.dtype, power.dtype, variance.dtype} == {torch.float32} and not torch.is_autocast_enabled("cpu")
    if not (single and compiles(y.device, stream.kernels) and y.is_contiguous()):
        return False
    from ohmformer.array.kernels import reads_compiled

    variance = torch.matmul(power, variance.transpose(-2, -1), out=scratch("variance", y.shape))
    reads_compiled.add_noise(y.data_ptr(), variance.data_ptr(), *numbers_of(stream, y.shape))
    return True


def fusible(codes: Tensor, programmed: Programmed, kernels: Kernels) -> bool:
    """True if `converted_product` supports the hardware and the inputs (`converted_sum.supported`): converters of up to
    `MOST_BITS` bits, on a CPU with compiled kernels."""
    if not (compiles(codes.device, kernels) and converted_sum.supported(codes, programmed)):
        return False
    return int(programmed.array.adc.bits) <= MOST_BITS


def converted_product(
    codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: converters.Range
) -> Tensor:
    """`multiply.converted_product` of hardware that is `fusible`, with the same random numbers.

    Sums over blocks are rounded in another way, so results differ by the rounding of floating-point numbers.
    """
    array = programmed.array
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    powers = planes if stream is None or array.inputs.kind == "bit_serial" else planes.square()
    lead, own = codes.shape[:-2], programmed.digits.shape[2:-2]
    lead = lead if lead == own or not own else torch.broadcast_shapes(lead, own)
    shape = (*lead, codes.shape[-2], programmed.outputs)
    total, begins = codes.new_empty(shape), True
    currents, variance = (scratch(name, total.shape) for name in ("currents", "variance"))
    for first in range(0, programmed.inputs, array.rows):
        rows = slice(first, first + array.rows)
        for s in range(programmed.slices):
            scale = converters.code_scale(int(array.adc.bits), converters.at_slice(span, s))
            for z, weight in enumerate(weights):
                for k, side in enumerate(programmed.sides[s]):
                    torch.matmul(planes[z][..., rows], side.digits[..., rows].transpose(-2, -1), out=currents)
                    noise = None if stream is None else stream.child("read", z, s, first, k)
                    spread = _variance(powers[z][..., rows], side, rows, variance) if noise is not None else None
                    signed_weight = float(side.sign * weight * array.slice_weight(s))
                    _add_converted(total, currents, spread, noise, scale, signed_weight, begins=begins)
                    begins = False
    return encoding.mean_over_copies_(total, array)


def _variance(power: Tensor, side: Side, rows: slice, out: Tensor) -> Tensor | None:
    """Variance of the reads of one row block, in `out`; None for reads without noise."""
    if side.variance is None:
        return None
    return torch.matmul(power, side.variance[..., rows].transpose(-2, -1), out=out)


def _add_converted(
    total: Tensor,
    currents: Tensor,
    variance: Tensor | None,
    stream: Streams | None,
    scale: tuple[float, float, int, int],
    weight: float,
    *,
    begins: bool,
) -> None:
    """Add what converters of a `converters.code_scale` report of currents to a sum, which begins here or goes on."""
    from ohmformer.array.kernels import reads_compiled

    noisy = variance is not None and stream is not None
    numbers = numbers_of(stream, total.shape) if noisy and stream is not None else _no_numbers(total.numel())
    at = total.data_ptr(), currents.data_ptr(), variance.data_ptr() if noisy and variance is not None else 0
    reads_compiled.add_converted(*at, *numbers, *map(float, scale), weight, begins)


@lru_cache(maxsize=64)
def _no_numbers(size: int) -> Numbers:
    """What loops take in place of numbers for results without noise: one row of them all."""
    return _NONE, np.array([(0, 0, 0, size, 1, 1, 0)], np.int64), 0


def numbers_of(stream: Streams, shape: torch.Size) -> Numbers:
    """The first standard normals of a stream, as loops take them: normals, rows and nth of `Undrawn`."""
    seeds: tuple[int, ...] = ()
    if type(stream) is Stream:
        seeds = (stream.seed,)
    elif type(stream) is SampleStreams and stream.lengths is None and len(stream.streams) == shape[0]:
        seeds = stream.seeds
    if seeds:  # the usual case, as `places.whole_rows` has it
        each = shape.numel() // len(seeds)
        rows = [(seed, 0, b * each, each, max(1, each), 1, 0) for b, seed in enumerate(seeds)]
        return _NONE, np.array(rows, np.int64), 0
    source = stream.open("cpu")
    assert isinstance(source, CountedSource)
    normals, places, nth = source.undrawn_normals(1, *shape)
    return normals.numpy(), places.numpy(), nth
