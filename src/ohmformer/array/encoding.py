"""Quantization of values and inputs, and the digits that cells hold. Integers are exact in floating point.

`codec.Codec` is the way from values to codes; this file has its parts.

Shapes: O outputs (columns), I inputs (rows), P polarities, Z input cycles; `...` are matrices that share one call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from ohmformer import deferred_checks
from ohmformer.array.chunking import pieces
from ohmformer.array.kernels import input_codes
from ohmformer.array.spec import Crossbar
from ohmformer.deferred_checks import require
from ohmformer.device.interpolation import linear
from ohmformer.errors import BadInput
from ohmformer.precision import widened
from ohmformer.streams.backends import Kernels


def full_range(w: Tensor, array: Crossbar) -> Tensor:
    """The value of the largest code for weights w[..., O, I], per matrix or, for `scale = "column"`, per output column.

    `head` and `token` scales have no meaning for a bare matrix; pass such a range to `program`.

    Returns:
        A percentile of the magnitudes, [..., 1, 1] or [..., O, 1].
    """
    return magnitude_range(w, (-1,) if array.scale == "column" else (-2, -1), array.percentile)


def magnitude_range(values: Tensor, dims: tuple[int, ...], percent: float) -> Tensor:
    """A percentile of the magnitudes of values over some axes, which keep size one.

    Args:
        values: of any sign. NaN in the input propagates to the result.
        dims: the axes to reduce.
        percent: in (0, 100]; 100 is the maximum. The percentile is a value that occurs: there is no interpolation.
    """
    if percent >= 100:  # from both ends, without a tensor of all magnitudes
        return torch.maximum(values.amax(dim=dims, keepdim=True), -values.amin(dim=dims, keepdim=True))
    magnitudes, dims = values.abs(), tuple(dim % values.dim() for dim in dims)
    kept = [dim for dim in range(magnitudes.dim()) if dim not in dims]
    rows = magnitudes.permute(*kept, *dims).flatten(len(kept)).float()
    rank = max(1, math.ceil(percent / 100 * rows.shape[-1]))
    percentiles = rows.kthvalue(rank, dim=-1).values.to(magnitudes.dtype)
    return percentiles.reshape([1 if dim in dims else size for dim, size in enumerate(magnitudes.shape)])


def unit_of(code_range: Tensor, top: int) -> Tensor:
    """The value of one code, where `top` codes span the range.

    A range of zero is that of a matrix of zeros; its unit is 1 / top, to avoid a division by zero.
    """
    unit = code_range / top
    if unit.dim() == 0 and not deferred_checks.waits(unit.device):  # a number costs less than two operations
        return unit if unit.item() > 0 else unit.new_full((), 1.0 / top)
    return torch.where(unit > 0, unit, 1.0 / top)


def quantize(
    values: Tensor, array: Crossbar, code_range: Tensor, *, rounded: bool = True, kernels: Kernels = "torch"
) -> Tensor:
    """Quantize values to codes of the same shape and dtype.

    Args:
        values: [..., O, I], real; values beyond the range saturate.
        array: the hardware.
        code_range: the value of the largest code; broadcasts against the values.
        rounded: round to integers; False bypasses the quantizer.
        kernels: what computes on the CPU.

    Returns:
        Codes from -array.max_code to array.max_code.

    Raises:
        BadInput: a value or a range is NaN or infinite, or a range is negative.
    """
    top, what = array.max_code, "a matrix to be programmed"
    if rounded and input_codes.fusible(values, code_range, top, kernels):
        return _in_one_pass(values, code_range, (-top, top), what)
    codes = _finite(values / unit_of(code_range, top), values, code_range, what)
    return _clamped(codes, -top, top, rounded)


def _in_one_pass(
    values: Tensor, code_range: Tensor, bounds: tuple[int, int], what: str, *, passing: bool = False
) -> Tensor:
    """Rounded codes of values that are `input_codes.fusible`; the upper bound is the code of the range."""
    low, top = bounds
    codes, usable = input_codes.to_codes(values, code_range, top, low, top, passing=passing)
    if not usable:
        raise unusable(what, code_range)
    return codes


def _finite(scaled: Tensor, values: Tensor, scale: Tensor, what: str) -> Tensor:
    """Scaled values, if they and their range are usable; where the check waits, without NaN, which may index a table.

    Args:
        scaled: values in codes; may be changed.
        values: as they were.
        scale: their range.
        what: subject of the error message.

    Raises:
        BadInput: a value or a range is NaN or infinite, or a range is negative.
    """
    if scale.dim() == 0 and not deferred_checks.waits(scale.device):
        if not (0 <= scale.item() < math.inf and math.isfinite(values.detach().sum().item())):
            raise unusable(what, scale)
        return scaled
    usable = ((scale >= 0) & (scale < math.inf)).all() & torch.isfinite(values.sum())
    return scaled.nan_to_num_() if require(usable, lambda: unusable(what, scale)) else scaled


def unusable(what: str, code_range: Tensor) -> BadInput:
    """The error for values, or a range of them, that are not finite, or for a negative range; `what` they are."""
    if bool((code_range < 0).any()):
        return BadInput(f"the range of {what} is {code_range.min():g}: must be 0 or more; give the largest magnitude")
    return BadInput(f"{what}, or its range, holds NaN or infinity; look for the layer that made it")


def checked_matrix(values: Tensor, who: str) -> Tensor:
    """A matrix [..., O, I] in float32 or float64, see `widened`.

    Args:
        values: the matrix.
        who: subject of the error message.

    Raises:
        BadInput: the values are not a real tensor, have fewer than two axes, or are empty.
    """
    values = widened(values, who)
    if values.dim() < 2 or values.numel() == 0:
        raise BadInput(f"{who} has the shape {tuple(values.shape)}; give a matrix [..., outputs, inputs] with values")
    return values


def signed_digits(codes: Tensor, array: Crossbar, slices: int) -> Iterator[Tensor]:
    """The digits [P, ..., O, I] of integer codes [..., O, I], slice by slice, the least significant first."""
    if array.encoding == "differential":
        codes = torch.stack([codes, -codes]).clamp_(min=0)
    else:
        codes = (codes + 2 ** (array.bits - 1)).unsqueeze(0)
    return slice_digits(codes, array, slices)


def slice_digits(codes: Tensor, array: Crossbar, slices: int) -> Iterator[Tensor]:
    """The digits of non-negative integers, slice by slice, the least significant first.

    Args:
        codes: integers of any shape, 0 or more.
        array: the hardware.
        slices: how many slices hold them, copies included.

    Returns:
        One tensor of the same shape per slice. Copies of a slice are the same tensor: do not change it.
    """
    without_copies = slices // array.redundancy
    if array.base == 1:
        by_slice = _even_digits(codes, without_copies)
    elif array.base <= array.max_digit:
        by_slice = _greedy_digits(codes, array, without_copies)
    else:
        by_slice = _positional_digits(codes, array.base, without_copies)
    for digits in by_slice:
        yield from repeat(digits, array.redundancy)


def _positional_digits(codes: Tensor, base: int, slices: int) -> Iterator[Tensor]:
    """The usual digits below `base`, where each number has exactly one spelling; the last slice holds what is left."""
    for _ in range(slices - 1):
        rest = (codes / base).floor_()
        yield torch.sub(codes, rest, alpha=base)
        codes = rest
    yield codes


def _greedy_digits(codes: Tensor, array: Crossbar, slices: int) -> Iterator[Tensor]:
    """As much as fits into each slice, from the most significant slice down, so that few cells are nonzero.

    This is one of several spellings where the base is below the number of levels of a cell.
    """
    descending: list[Tensor] = []
    for weight in (array.base**k for k in range(slices - 1, 0, -1)):
        digits = (codes / weight).floor_().clamp_(max=array.max_digit)
        codes = torch.sub(codes, digits, alpha=weight)
        descending.append(digits)
    yield from reversed([*descending, codes])


def _even_digits(codes: Tensor, slices: int) -> Iterator[Tensor]:
    """Digits that differ by at most one, for slices of equal weight (base 1).

    If noise grows with the digit, many small digits have at most the variance of a few large ones.
    """
    for remaining in range(slices, 1, -1):
        digits = (codes / remaining).floor_()
        yield digits
        codes = codes - digits
    yield codes


def level_conductances(array: Crossbar, device: torch.device | None = None) -> Tensor:
    """The conductance [S] to which a cell is written for each of its digits, [max_digit + 1] in float64."""
    if array.cell.uneven:
        levels = torch.tensor(array.cell.level_conductances, dtype=torch.float64, device=device)
    else:
        all_digits = torch.arange(array.max_digit + 1, dtype=torch.float64, device=device)
        levels = array.cell.g_min + array.step * all_digits
    return _within_window_(levels, array)


def target_conductances(digits: Tensor, array: Crossbar) -> Tensor:
    """The conductances [S] to be written for digits: a new tensor of the same shape.

    Args:
        digits: of any shape; values between two digits lie between their conductances.
        array: the hardware.
    """
    if array.cell.uneven:
        g = linear(digits, tuple(map(float, range(array.used_levels))), array.cell.level_conductances)
    else:
        g = (array.step * digits).add_(array.cell.g_min)
    return _within_window_(g, array)


def _within_window_(g: Tensor, array: Crossbar) -> Tensor:
    """Clamp targets [S], in place, to the window that wear has left; the writer does not know of it."""
    cell, ends = array.cell, array.cell.window(array.writes)
    if ends == (0.0, 1.0):
        return g
    low, high = (cell.g_min + end * (cell.g_max - cell.g_min) for end in ends)
    return g.clamp_(low, high)


def reference_digits(array: Crossbar, slices: int) -> list[int]:
    """Digits of the offset 2^(bits - 1), the least significant first: what every cell of a reference column holds."""
    return [2 ** (array.bits - 1) // array.slice_weight(s) % array.base for s in range(slices)]


def mean_over_copies_(total: Tensor, array: Crossbar) -> Tensor:
    """Divide a weighted sum over all slices by the number of copies, in place.

    The division comes last: sums of whole digits are integers, so the result is exact.
    """
    return total if array.redundancy == 1 else total.div_(array.redundancy)


def quantize_input(
    x: Tensor,
    array: Crossbar,
    x_range: Tensor | float | None,
    *,
    signed: bool,
    rounded: bool = True,
    kernels: Kernels = "torch",
) -> tuple[Tensor, Tensor]:
    """Quantize inputs to codes of the same shape and dtype.

    Args:
        x: real inputs [..., I]; values beyond the range saturate, as in a DAC.
        array: the hardware.
        x_range: the value of the largest code, broadcasts against x; None takes the largest magnitude, of each vector
            if the range of the hardware is `dynamic`, otherwise of the whole of x.
        signed: False if inputs are never negative and use all codes.
        rounded: round to integers; False bypasses the quantizer.
        kernels: what computes on the CPU. If compiled, the codes hold until this thread quantizes other inputs.

    Returns:
        The codes, and the value of one code.

    Raises:
        BadInput: a value or a range is NaN or infinite, or a range is negative.
    """
    if x_range is None:
        x_range = x.abs().amax(-1, keepdim=True) if array.inputs.range == "dynamic" else x.abs().amax()
    x_range = torch.as_tensor(x_range).to(x)
    top = array.max_input(signed=signed)
    unit, low, what = unit_of(x_range, top), -top if signed else 0, "an input of a crossbar"
    if rounded and input_codes.fusible(x, x_range, top, kernels):
        return _in_one_pass(x, x_range, (low, top), what, passing=True), unit
    return _clamped(_finite(x / unit, x, x_range, what), low, top, rounded), unit


def _clamped(codes: Tensor, low: int, high: int, rounded: bool) -> Tensor:
    """Round codes (if `rounded`) and clamp them to low..high, in place."""
    for (piece,) in pieces(codes):
        (piece.round_() if rounded else piece).clamp_(low, high)
    return codes


def bit_planes(x: Tensor, array: Crossbar, *, signed: bool) -> tuple[Tensor, list[int]]:
    """What each input cycle applies to the rows, and the weight of the cycle in the sum.

    Args:
        x: integer inputs [..., I].
        array: the hardware.
        signed: True if the inputs are in two's complement.

    Returns:
        What is applied, [Z, ..., I], and Z weights. Bit-serial inputs: bits 0 or 1 with weights 2^z, where the last one
        is -2^(b-1) in two's complement. Amplitudes: x itself with weight 1. Integrated inputs: the number, with the
        sign of x, that each group of bits holds.
    """
    if array.inputs.kind == "amplitude":
        return x.unsqueeze(0), [1]
    if array.inputs.kind == "integrated":
        return _bit_groups(x, array.inputs.group_sizes)
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


def cycle_weights(array: Crossbar, *, signed: bool) -> list[int]:
    """The weights of the conversions of one input vector, as in `bit_planes`."""
    return bit_planes(torch.zeros(1), array, signed=signed)[1]


def _bit_groups(x: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    """The numbers with sign [Z, ..., I] that groups of bits of the magnitudes of x hold, and their weights."""
    if len(sizes) == 1:
        return x.unsqueeze(0), [1]
    sign, rest, groups, weights = x.sign(), x.abs(), [], [1]
    for size in sizes:
        higher = (rest / 2**size).floor_()
        groups.append(torch.sub(rest, higher, alpha=2**size).mul_(sign))
        rest = higher
        weights.append(weights[-1] << size)
    return torch.stack(groups), weights[:-1]


def read_power(x: Tensor, array: Crossbar) -> Tensor:
    """The factor on a cell's read variance in the weighted sum of all input cycles, for integer inputs x[..., I].

    It is x^2 for amplitudes, and the sum of 4^z b_z over the bits b_z for bit-serial inputs.
    """
    if array.inputs.kind == "amplitude":
        return x * x
    bits = array.inputs.bits
    power = torch.zeros(1, dtype=x.dtype, device=x.device)
    for z in range(bits):
        power = torch.cat([power, power + 4.0**z])
    # A negative index counts from the end of the table, which is the two's complement of a negative input.
    return power[x.long()]
