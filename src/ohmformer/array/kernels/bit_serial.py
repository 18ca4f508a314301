"""Products with converters and bit-serial inputs by a compiled loop on the CPU.

Shapes: M input vectors, O outputs, I inputs, P sides that are converted, S slices; `...` are matrices that share one
call, such as samples and heads.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from ohmformer.array import converters, encoding
from ohmformer.array.kernels import reads
from ohmformer.array.programmed import Programmed
from ohmformer.streams import Streams
from ohmformer.streams.backends import Kernels

MOST_INPUT_BITS = 24
"""Of inputs whose codes the loop takes apart."""


def fusible(codes: Tensor, programmed: Programmed, stream: Streams | None, kernels: Kernels) -> bool:
    """True if `converted_product` supports the hardware and the inputs: bits, and `reads.fusible`, without noise."""
    inputs = programmed.array.inputs
    bits = inputs.kind == "bit_serial" and inputs.bits <= MOST_INPUT_BITS
    return bits and stream is None and reads.fusible(codes, programmed, kernels)


def converted_product(
    codes: Tensor, programmed: Programmed, *, signed: bool, span: converters.Range, tiles: bool = False
) -> Tensor:
    """`multiply.converted_product` of hardware that is `fusible`.

    Currents and sums are rounded in another way, so results differ by the rounding of floating-point numbers, and where
    it moves a code of a converter. On matrix units (`tiles`) they are rounded in yet another way.
    """
    array, digits = programmed.array, programmed.digits
    if array.subtract == "analog":
        digits = digits[:1] - digits[1:]
    sides, slices, *of_matrix, O, I = digits.shape
    lead, M = torch.broadcast_shapes(codes.shape[:-2], of_matrix), codes.shape[-2]
    if prod(of_matrix) == 1:  # one matrix for all inputs
        inputs, digits = codes.reshape(1, -1, I), digits.reshape(sides, slices, 1, O, I)
    else:
        inputs = codes.expand(*lead, M, I).reshape(-1, M, I)
        digits = digits.expand(sides, slices, *lead, O, I).reshape(sides, slices, -1, O, I)
    out = codes.new_empty(len(inputs), inputs.shape[1], O)
    weights = torch.tensor(encoding.cycle_weights(array, signed=signed), dtype=torch.float32)
    scales = [converters.code_scale(int(array.adc.bits), converters.at_slice(span, s)) for s in range(slices)]
    factors = torch.tensor([[sign * array.slice_weight(s) for s in range(slices)] for sign in (1.0, -1.0)[:sides]])
    how = (weights, torch.tensor(scales, dtype=torch.float32), factors.float())
    arrays = (t.numpy() for t in (out, inputs.contiguous(), digits, *how))
    loop: Callable[..., None]
    if tiles:
        from ohmformer.array.kernels.amx.bit_serial_amx import product as loop
    else:
        from ohmformer.array.kernels.bit_serial_compiled import product as loop
    loop(*arrays, array.rows)
    return encoding.mean_over_copies_(out.view(*lead, M, O), array)
