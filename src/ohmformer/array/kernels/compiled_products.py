"""Which compiled loop multiplies inputs by cells whose currents are converted, if there is one."""

from __future__ import annotations

from torch import Tensor

from ohmformer.array import converters
from ohmformer.array.kernels import bit_serial, reads
from ohmformer.array.kernels.amx import factors
from ohmformer.array.kernels.amx import reads as amx_reads
from ohmformer.array.programmed import Programmed
from ohmformer.streams import Streams
from ohmformer.streams.backends import Kernels, has_tiles


def converted_product(
    codes: Tensor,
    programmed: Programmed,
    *,
    signed: bool,
    stream: Streams | None,
    span: converters.Range,
    kernels: Kernels,
    whole: bool,
) -> Tensor | None:
    """`multiply.converted_product` by a compiled loop, on the matrix units of the CPU where the kernels are those.

    Args:
        codes, programmed, signed, stream, span: as there.
        kernels: what computes.
        whole: True if codes are whole numbers.

    Returns:
        A new tensor; None if there is no loop for the hardware, inputs and kernels.
    """
    tiles = has_tiles(codes.device, kernels)
    if bit_serial.fusible(codes, programmed, stream, kernels):
        return bit_serial.converted_product(codes, programmed, signed=signed, span=span, tiles=tiles)
    if not reads.fusible(codes, programmed, kernels):
        return None
    exact = tiles and whole and factors.exact(programmed.array, signed=signed, converted=True)
    computed = amx_reads.converted_product if exact else reads.converted_product
    return computed(codes, programmed, signed=signed, stream=stream, span=span)
