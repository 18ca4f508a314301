"""Values to whole codes in one pass over them: checked, divided, clamped and rounded.

It needs numba, so nothing imports this file before a product asks for compiled kernels.
"""

from __future__ import annotations

import numpy as np
from numba import int32, int64

from ohmformer.streams.compiling import compiled, intrinsics, memory

f = np.float32
_, wide = intrinsics()
floats_at = memory()
NO_VALUE, NO_RANGE = 1, 2
"""Bits of what `to_codes` returns: a value, or a range, is NaN or infinite; or a range is negative."""


@compiled()
def clamped(x, low, high):
    """x within bounds; NaN stays NaN."""
    x = low if x < low else x
    return high if x > high else x


@compiled()
def rounded(x):
    """The nearest integer of a number below 2^22, the even one of two: the addition leaves no bits for a fraction."""
    return (x + f(12582912.0)) - f(12582912.0)


@compiled("int64(float32[::1], float32[::1], float32[::1], float32, float32, float32)")
def to_codes(out, values, ranges, top, low, high):
    """Write round(values / (range / top)) within low..high, see `encoding.quantize`.

    Args:
        out: the codes; may be `values`.
        values: as many for each range, one after the other.
        ranges: the value of code `top`, for each part of the values.
        top: the largest code.
        low: bound of the codes.
        high: bound of the codes.

    Returns:
        0, or bits that say what is wrong.
    """
    wide()
    wrong = 0
    size = values.shape[0] // max(1, ranges.shape[0])
    for k in range(ranges.shape[0]):
        unit = ranges[k] / top
        unit = unit if unit > f(0) else f(1) / top
        wrong |= 0 if ranges[k] >= f(0) and ranges[k] < f(np.inf) else NO_RANGE
        bad = int32(0)
        for i in range(size):
            value = values[k * size + i]
            bad |= int32(value - value != f(0))
            out[k * size + i] = rounded(clamped(value / unit, low, high))
        wrong |= NO_VALUE * int64(bad)
    return wrong


@compiled(
    "int64(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, float32, float32, float32, float32)"
)
def send(out, squares, values, n0, n1, n2, s0, s1, s2, size, unit, factor, low, high):
    """Write the codes of inputs times a factor, and their squares.

    Args:
        out: address of n0 n1 n2 size numbers.
        squares: address of as many; 0 for none.
        values: address of the inputs [n0, n1, n2, size], the last axis without gaps.
        n0: see above.
        n1: see above.
        n2: see above.
        s0: stride of the first axis.
        s1: stride of the second axis.
        s2: stride of the third axis.
        size: see above.
        unit: the value of one code.
        factor: of the codes.
        low: bound of the codes.
        high: bound of the codes.

    Returns:
        0, or another number if a value is NaN or infinite.
    """
    wide()
    bad = int32(0)
    for i0 in range(n0):
        for i1 in range(n1):
            for i2 in range(n2):
                value = floats_at(values + 4 * (i0 * s0 + i1 * s1 + i2 * s2), size)
                first = 4 * ((i0 * n1 + i1) * n2 + i2) * size
                code = floats_at(out + first, size)
                for j in range(size):
                    bad |= int32(value[j] - value[j] != f(0))
                    code[j] = rounded(clamped(value[j] / unit, low, high)) * factor
                if squares != 0:
                    square = floats_at(squares + first, size)
                    for j in range(size):
                        square[j] = code[j] * code[j]
    return int64(bad)
