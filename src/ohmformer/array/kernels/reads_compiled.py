"""Read noise and conversions of results in one pass over them, with normals that are drawn on the way.

It needs numba, so nothing imports this file before a product asks for compiled kernels.
"""

from __future__ import annotations

import numpy as np
from numba import uint32

from ohmformer.array.kernels.input_codes_compiled import clamped, rounded
from ohmformer.streams.compiling import compiled, intrinsics, memory
from ohmformer.streams.philox_compiled import CHUNK, normals_of

f = np.float32
fused, wide = intrinsics()
floats_at = memory()


@compiled()
def next_normals(chunk, normals, rows, k, first, count, at, nth):
    """The normals `first` to `first + count` of row k: drawn, or where normals are given, those from `at` on."""
    if normals.shape[0] > 0:
        for i in range(count):
            chunk[i] = normals[at + i]
    else:
        normals_of(chunk, first, (count + 3) // 4 * 4, uint32(rows[k, 1]), uint32(nth + rows[k, 6]), rows[k, 0])


@compiled("void(int64, int64, float32[::1], int64[:,::1], int64)")
def add_noise(y, variance, normals, rows, nth):
    """Add to each result the root of its variance times a normal.

    Args:
        y: address of the results, which are changed.
        variance: address of the variance of each.
        normals: of each; empty to draw them.
        rows: the rows of `places.Places`, whose numbers stand one after the other and fill `y`.
        nth: how many tensors the source drew before.
    """
    wide()
    chunk = np.empty(CHUNK, np.float32)
    for k in range(rows.shape[0]):
        base, total = rows[k, 2], rows[k, 3]
        for first in range(0, total, CHUNK):
            count, at = min(CHUNK, total - first), base + first
            next_normals(chunk, normals, rows, k, first, count, at, nth)
            result, spread = floats_at(y + 4 * at, count), floats_at(variance + 4 * at, count)
            for i in range(count):
                result[i] = fused(np.sqrt(spread[i]), chunk[i], result[i])


@compiled(
    "void(int64, int64, int64, float32[::1], int64[:,::1], int64, float32, float32, float32, float32, float32, boolean)"
)
def add_converted(total, currents, variance, normals, rows, nth, zero, step, lowest, highest, weight, begins):
    """Add to each result what a converter reports of its current, times a weight.

    Args:
        total: address of the results, which are changed.
        currents: address of those of each, in digits times input units.
        variance: address of the variance of one read of each; 0 without read noise.
        normals: as in `add_noise`.
        rows: as in `add_noise`; without read noise the bounds of one row are enough.
        nth: as in `add_noise`.
        zero: of the converters, see `converters.code_scale`.
        step: likewise.
        lowest: likewise.
        highest: likewise.
        weight: of the conversions in the sum.
        begins: True if the sum begins here, whatever `total` holds.
    """
    wide()
    chunk = np.empty(CHUNK, np.float32)
    noisy = variance != 0
    for k in range(rows.shape[0]):
        base, size = rows[k, 2], rows[k, 3]
        for first in range(0, size, CHUNK):
            count, at = min(CHUNK, size - first), base + first
            current, result = floats_at(currents + 4 * at, count), floats_at(total + 4 * at, count)
            if noisy:
                next_normals(chunk, normals, rows, k, first, count, at, nth)
                spread = floats_at(variance + 4 * at, count)
                for i in range(count):
                    chunk[i] = fused(np.sqrt(spread[i]), chunk[i], current[i])
                current = chunk[:count]
            if begins:
                for i in range(count):
                    result[i] = f(0)
            for i in range(count):
                code = rounded(clamped((current[i] - zero) / step, lowest, highest))
                result[i] = result[i] + weight * (code * step + zero)
