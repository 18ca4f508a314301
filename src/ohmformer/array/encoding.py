"""Values to integer codes, codes to the digits of cells, and inputs to integers. All exact in floating point.

Shapes: O outputs (columns), I inputs (rows), P polarities; leading dimensions are free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from ohmformer.array.chunking import pieces
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput


def full_range(w: Tensor, array: Crossbar) -> Tensor:
    """The value that the largest code stands for: of |w[..., O, I]|, per matrix or per output column.

    Only `tensor` and `column` make sense for a bare matrix; finer or wider ranges are passed to `program`.
    """
    return magnitude_range(w.abs(), (-1,) if array.scale == "column" else (-2, -1), array.percentile)


def magnitude_range(magnitudes: Tensor, dims: tuple[int, ...], percent: float) -> Tensor:
    """The percentile of magnitudes over some of their axes, which stay with size one; 100 is the maximum.

    NaN counts as out of range and is not to be had here: it gives NaN.
    """
    if percent >= 100:
        return magnitudes.amax(dim=dims, keepdim=True)
    dims = tuple(dim % magnitudes.dim() for dim in dims)
    kept = [dim for dim in range(magnitudes.dim()) if dim not in dims]
    rows = magnitudes.permute(*kept, *dims).flatten(len(kept)).float()
    place = max(1, math.ceil(percent / 100 * rows.shape[-1]))
    found = rows.kthvalue(place, dim=-1).values.to(magnitudes.dtype)
    return found.reshape([1 if dim in dims else size for dim, size in enumerate(magnitudes.shape)])


def unit_of(value_range: Tensor, top: int) -> Tensor:
    """The value of one code where `top` codes span the range; a range of zero holds zeros only, so any unit does."""
    unit = value_range / top
    return torch.where(unit > 0, unit, 1.0 / top)


def quantise(w: Tensor, array: Crossbar, w_range: Tensor, *, rounded: bool = True) -> Tensor:
    """Values w[..., O, I] to integer codes of the same shape and dtype; `w_range` broadcasts against w.

    Values beyond the range saturate. Without `rounded` codes are no integers.

    Raises:
        BadInput: a value or a range is NaN or infinite, or a range is negative.
    """
    if not bool(((w_range >= 0) & (w_range < math.inf)).all() & torch.isfinite(w.sum())):
        raise _unusable("a matrix to be programmed", w_range)
    return _clamped(w / unit_of(w_range, array.max_code), -array.max_code, array.max_code, rounded)


def _unusable(what: str, value_range: Tensor) -> BadInput:
    if bool((value_range < 0).any()):
        return BadInput(f"the range of {what} is {value_range.min():g}: must be 0 or more; give the largest magnitude")
    return BadInput(f"{what}, or its range, holds NaN or infinity; look for the layer that made it")


def matrix(values: Tensor, who: str) -> Tensor:
    """Values [..., O, I] as `widened` has them.

    Raises:
        BadInput: they are no matrix, or an empty one.
    """
    values = widened(values, who)
    if values.dim() < 2 or values.numel() == 0:
        raise BadInput(f"{who} has the shape {tuple(values.shape)}; give a matrix [..., outputs, inputs] with values")
    return values


def widened(values: Tensor, who: str) -> Tensor:
    """Real values in a type whose integers and conductances are exact enough: float32 at least.

    Raises:
        BadInput: they are no tensor, or complex.
    """
    if not isinstance(values, Tensor):
        raise BadInput(f"{who} is {type(values).__name__}; give a torch.Tensor, such as torch.as_tensor(...) makes")
    if values.is_complex():
        raise BadInput(f"{who} is complex, and cells hold real values; take real and imaginary part one by one")
    return values.to(torch.promote_types(values.dtype, torch.float32))


def digits(codes: Tensor, array: Crossbar, slices: int) -> Iterator[Tensor]:
    """Integer codes [..., O, I] to the digits [P, ..., O, I] of their slices, the least significant first."""
    if array.encoding == "differential":
        stored = torch.stack([codes.clamp(min=0), (-codes).clamp(min=0)])
    else:
        stored = (codes + 2 ** (array.bits - 1)).unsqueeze(0)
    return places(stored, array, slices)


def places(stored: Tensor, array: Crossbar, slices: int) -> Iterator[Tensor]:
    """Non-negative integers to the digits of their slices, the least significant first, each as often as it has copies.

    Copies are one tensor: do not change it.
    """
    for digit in _distinct_places(stored, array, slices // array.copies):
        yield from repeat(digit, array.copies)


def _distinct_places(stored: Tensor, array: Crossbar, slices: int) -> Iterator[Tensor]:
    """The same with copies counted once."""
    if array.base == 1:
        return _even_places(stored, slices)
    if array.base <= array.max_digit:
        return _greedy_places(stored, array, slices)
    return _positional_places(stored, array.base, slices)


def _positional_places(stored: Tensor, base: int, slices: int) -> Iterator[Tensor]:
    """Digits below `base`, of which there is one choice only."""
    for _ in range(slices):
        rest = (stored / base).floor_()
        yield torch.sub(stored, rest, alpha=base)
        stored = rest


def _greedy_places(stored: Tensor, array: Crossbar, slices: int) -> Iterator[Tensor]:
    """As much as fits into each slice, from the most significant one down: few cells hold something."""
    found: list[Tensor] = []
    for place in (array.base**k for k in range(slices - 1, 0, -1)):
        digit = (stored / place).floor_().clamp_(max=array.max_digit)
        stored = torch.sub(stored, digit, alpha=place)
        found.append(digit)
    yield from reversed([*found, stored])


def _even_places(stored: Tensor, slices: int) -> Iterator[Tensor]:
    """Digits of slices that count alike, which differ by at most one.

    Under noise that grows with the digit, many small digits have at most the variance of a few large ones.
    """
    for left in range(slices, 1, -1):
        digit = (stored / left).floor_()
        yield digit
        stored = stored - digit
    yield stored


def levels(array: Crossbar, device: torch.device | None = None) -> Tensor:
    """The conductance [S] that each digit of a cell stands for, in double precision."""
    digits = torch.arange(array.max_digit + 1, dtype=torch.float64, device=device)
    return array.cell.g_min + array.step * digits


def reference_digits(array: Crossbar, slices: int) -> list[int]:
    """Digits of the shift 2^(bits - 1), the least significant first: what a reference column holds in every row."""
    return [2 ** (array.bits - 1) // array.place(s) % array.base for s in range(slices)]


def averaged_(total: Tensor, array: Crossbar) -> Tensor:
    """What all slices together hold or give, in codes: the mean over copies of their sum by places; in place.

    Sums of whole digits are divided as integers, so they stay exact.
    """
    return total if array.copies == 1 else total.div_(array.copies)


def quantise_input(
    x: Tensor, array: Crossbar, x_range: Tensor, *, signed: bool, rounded: bool = True
) -> tuple[Tensor, Tensor]:
    """Inputs x[..., I] to integers of the same shape, and the value of one unit; `x_range` broadcasts against x.

    Values beyond the range saturate, as they do in a DAC.

    Raises:
        BadInput: a value or a range is NaN or infinite, or a range is negative.
    """
    if not bool(((x_range >= 0) & (x_range < math.inf)).all() & torch.isfinite(x.sum())):
        raise _unusable("an input of a crossbar", x_range)
    top = array.max_input(signed=signed)
    unit = unit_of(x_range, top)
    return _clamped(x / unit, -top if signed else 0, top, rounded), unit


def _clamped(codes: Tensor, low: int, high: int, rounded: bool) -> Tensor:
    """Codes rounded, if they are to be, and kept within bounds; in place."""
    for (piece,) in pieces(codes):
        (piece.round_() if rounded else piece).clamp_(low, high)
    return codes


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
        half = (rest / 2).floor_()
        planes.append(torch.sub(rest, half, alpha=2))
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
    power = torch.zeros(1, dtype=x.dtype, device=x.device)
    for z in range(bits):
        power = torch.cat([power, power + 4.0**z])
    # Negative indices count from the end: just what two's complement makes of negative inputs.
    return power[x.long()]
