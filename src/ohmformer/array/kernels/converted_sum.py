"""Products with converters where the conversions of all row blocks are one kernel: read noise, rounding, and the sum.

The plain code (`array/multiply.py`) takes about ten launches for each row block; this takes four for all of them.

Shapes: M input vectors, O outputs, I inputs, K row blocks of R rows, Z input cycles; `...` are matrices that share one
call, such as samples and heads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ohmformer.array import converters, encoding
from ohmformer.array.peripherals import drivers
from ohmformer.array.programmed import Programmed, Side
from ohmformer.streams import Streams, stacked_normal
from ohmformer.streams.backends import has_kernels


def fusible(codes: Tensor, programmed: Programmed) -> bool:
    """True if `converted_product` supports the hardware (`supported`), and the device has kernels."""
    return supported(codes, programmed) and has_kernels(codes.device)


def supported(codes: Tensor, programmed: Programmed) -> bool:
    """True if conversions are plain enough for one pass, by a kernel or by a compiled loop.

    They are for pairs in float32, outside of autocast, behind row drivers without noise, mismatch and distortion, and
    converters that round, without noise and mismatch of their own.
    """
    array = programmed.array
    plain = drivers.plain(array) and not array.peripherals.output_noise and programmed.mismatch is None
    pairs = programmed.reference is None and array.adc.bits != "ideal"
    return plain and pairs and codes.dtype is torch.float32 and not torch.is_autocast_enabled(codes.device.type)


def converted_product(
    codes: Tensor, programmed: Programmed, *, signed: bool, stream: Streams | None, span: converters.Range
) -> Tensor:
    """`multiply.converted_product` of hardware that is `fusible`, with the same random numbers.

    Sums run over row blocks first, so results differ by the rounding of floating-point numbers.
    """
    from ohmformer.array.kernels import converted_sum_kernel

    array = programmed.array
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    rows = array.rows
    total: Tensor | None = None
    for s, sides in enumerate(programmed.sides):
        scale = converters.code_scale(int(array.adc.bits), converters.at_slice(span, s))
        for k, side in enumerate(sides):
            digits = blocks_of(side.digits, rows)
            for z, weight in enumerate(weights):
                applied = blocks_of(planes[z], rows)
                currents = applied @ digits.transpose(-2, -1)  # [K, ..., M, O]
                variance, normals = _read_noise(applied, side, (z, s, k), array.inputs.kind, rows, currents, stream)
                total = torch.zeros_like(currents[0]) if total is None else total
                signed_weight = float(side.sign * weight * array.slice_weight(s))
                converted_sum_kernel.add_converted(total, currents, variance, normals, scale, signed_weight)
    assert total is not None
    return encoding.mean_over_copies_(total, array)


def _read_noise(
    applied: Tensor, side: Side, read: tuple[int, int, int], kind: str, rows: int, like: Tensor, stream: Streams | None
) -> tuple[Tensor | None, Tensor | None]:
    """Variance and standard normals [K, ..., M, O] of the reads of all row blocks; None for reads without noise.

    `read` is the input cycle, the slice and the side, as in the keys of `multiply.column_currents`.
    """
    if stream is None or side.variance is None:
        return None, None
    z, s, k = read
    power = applied if kind == "bit_serial" else applied.square()
    variance = power @ blocks_of(side.variance, rows).transpose(-2, -1)
    streams = [stream.child("read", z, s, block * rows, k) for block in range(len(variance))]
    return variance, stacked_normal(streams, *variance.shape[1:], like=like)


def blocks_of(values: Tensor, rows: int) -> Tensor:
    """Values [..., I] by row block, [K, ..., R]; rows that the last block lacks are zero."""
    count = -(-values.shape[-1] // rows)
    missing = count * rows - values.shape[-1]
    padded: Tensor = pad(values, (0, missing)) if missing else values
    blocks: Tensor = padded.unflatten(-1, (count, rows)).movedim(-2, 0)
    return blocks
