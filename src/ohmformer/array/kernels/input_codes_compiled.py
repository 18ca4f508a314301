"""Values to whole codes in one pass over them: checked, divided, clamped and rounded.

It needs numba, so nothing imports this file before a product asks for compiled kernels.
"""

from __future__ import annotations

import numpy as np
from numba import int32, int64

from ohmformer.streams.compiling import compiled, intrinsics

f = np.float32
_, wide = intrinsics()
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
