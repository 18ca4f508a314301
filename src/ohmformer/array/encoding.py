"""Values to integer codes, codes to the digits of cells, and inputs to integers. All exact in floating point.

Shapes: O outputs (columns), I inputs (rows), S slices, P polarities; leading dimensions are free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput


def full_range(w: Tensor, array: Crossbar) -> Tensor:
    """The value that the largest code stands for: max |w[..., O, I]| per matrix, or per output column.

    Only `tensor` and `column` make sense for a bare matrix; finer or wider ranges are passed to `program`.
    """
    dims = (-1,) if array.scale == "column" else (-2, -1)
    return w.abs().amax(dim=dims, keepdim=True)


def quantise(w: Tensor, array: Crossbar, w_range: Tensor) -> Tensor:
    """Values w[..., O, I] to integer codes of the same shape and dtype; `w_range` broadcasts against w.

    Raises:
        BadInput: a value or a range is NaN or infinite.
    """
    if not bool(torch.isfinite(w_range).all()):
        raise BadInput("a matrix to be programmed holds NaN or infinity; look for the layer that made it")
    unit = torch.where(w_range > 0, w_range, 1.0) / array.max_code
    return (w / unit).round().clamp(-array.max_code, array.max_code)


def digits(codes: Tensor, array: Crossbar, slices: int) -> Tensor:
    """Integer codes [..., O, I] to digits [P, S, ..., O, I], the least significant slice first."""
    base = 2**array.bits_per_cell
    if array.encoding == "differential":
        stored = torch.stack([codes.clamp(min=0), (-codes).clamp(min=0)])
    else:
        stored = (codes + 2 ** (array.bits - 1)).unsqueeze(0)
    parts = []
    for _ in range(slices):
        rest = (stored / base).floor()
        parts.append(stored - base * rest)
        stored = rest
    return torch.stack(parts, dim=1)


def reference_digits(array: Crossbar, slices: int) -> list[int]:
    """Digits of the shift 2^(bits - 1), the least significant first: what a reference column holds in every row."""
    base = 2**array.bits_per_cell
    return [(2 ** (array.bits - 1)) // base**k % base for k in range(slices)]


def quantise_input(x: Tensor, array: Crossbar, x_range: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Inputs x[..., I] to integers of the same shape, and the value of one unit; `x_range` broadcasts against x.

    Values beyond the range saturate, as they do in a DAC.
    """
    top = array.max_input(signed=signed)
    unit = torch.where(x_range > 0, x_range, 1.0) / top
    return (x / unit).round().clamp(-top if signed else 0, top), unit


def bit_planes(x: Tensor, array: Crossbar, *, signed: bool) -> tuple[Tensor, list[int]]:
    """Integer inputs x[..., I] to what each read applies [Z, ..., I], and the weight of each read.

    Bit-serial: bits 0 or 1 with weights 2^z, the last being -2^(b-1) in two's complement. Amplitude: x itself.
    """
    if array.inputs.kind == "amplitude":
        return x.unsqueeze(0), [1]
    bits = array.inputs.bits
    rest = torch.where(x < 0, x + 2**bits, x)
    planes = []
    for _ in range(bits):
        half = (rest / 2).floor()
        planes.append(rest - 2 * half)
        rest = half
    weights = [2**z for z in range(bits)]
    if signed:
        weights[-1] = -weights[-1]
    return torch.stack(planes), weights


def read_power(x: Tensor, array: Crossbar) -> Tensor:
    """What multiplies a cell's read variance over all reads of integer inputs x[..., I], weighted as they are summed.

    Amplitude: x^2. Bit-serial: the sum of 4^z b_z, which is larger.
    """
    if array.inputs.kind == "amplitude":
        return x * x
    bits = array.inputs.bits
    rest = torch.where(x < 0, x + 2**bits, x)
    power = torch.zeros_like(x)
    for z in range(bits):
        half = (rest / 2).floor()
        power += 4.0**z * (rest - 2 * half)
        rest = half
    return power
