"""Which compiled loop multiplies inputs by cells whose currents are converted, if there is one."""

from __future__ import annotations

from torch import Tensor

from ohmformer.array import converters
from ohmformer.array.kernels import bit_serial, reads
from ohmformer.array.programmed import Programmed
from ohmformer.streams import Streams
from ohmformer.streams.backends import Kernels


def converted_product(
    codes: Tensor,
    programmed: Programmed,
    *,
    signed: bool,
    stream: Streams | None,
    span: converters.Range,
    kernels: Kernels,
) -> Tensor | None:
    """`multiply.converted_product` by a compiled loop; None if there is none for the hardware, inputs and kernels."""
    if bit_serial.fusible(codes, programmed, stream, kernels):
        return bit_serial.converted_product(codes, programmed, signed=signed, span=span)
    if reads.fusible(codes, programmed, kernels):
        return reads.converted_product(codes, programmed, signed=signed, stream=stream, span=span)
    return None
