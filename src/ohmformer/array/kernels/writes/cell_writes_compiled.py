"""What cells hold after a write, in one pass over the codes, with normals that are drawn on the way.

It needs numba, so nothing imports this file before a write asks for compiled kernels.
"""

from __future__ import annotations

import numpy as np
from numba import int32, uint32

from ohmformer.array.kernels.input_codes_compiled import clamped
from ohmformer.array.kernels.reads_compiled import next_normals
from ohmformer.streams.compiling import compiled, intrinsics
from ohmformer.streams.philox_compiled import CHUNK

f = np.float32
fused, wide = intrinsics()


@compiled()
def half(chunk, normals, rows, k, first, count, at, nth):
    """`next_normals` from any number on, which need not be the first of four."""
    ahead = 0 if normals.shape[0] > 0 else first % 4
    next_normals(chunk, normals, rows, k, first - ahead, count + ahead, at, nth)
    return chunk[ahead : ahead + count]


@compiled()
def digit_of(code, table, deviation, number, low, high):
    """What one cell holds, of the half that a code uses."""
    m = uint32(abs(code))
    return clamped(fused(deviation[m], number, table[m]), low, high)


@compiled()
def swap(x, y, code):
    """Exchange the numbers of both halves where a code is negative: x then are those of the half that it uses."""
    for i in range(code.shape[0]):
        a, b = x[i], y[i]
        x[i] = a if code[i] >= f(0) else b
        y[i] = b if code[i] >= f(0) else a


@compiled()
def look_up(found, table, places):
    """The entries of a table at places: a loop of its own, since look-ups keep compilers from vectors."""
    for i in range(places.shape[0]):
        found[i] = table[uint32(places[i])]


@compiled()
def add_slice(total, spread, places, x, y, held, scale, mean, deviation, weight, low, high, v0, v1, v2, pairs, noisy):
    """Add what the cells of one slice hold, and the variance of their reads; see `fold`."""
    square, mean0, deviation0 = weight * weight, mean[0], deviation[0]
    look_up(held, mean, places)
    look_up(scale, deviation, places)
    for i in range(places.shape[0]):
        x[i] = clamped(fused(scale[i], x[i], held[i]), low, high)
    if noisy:
        for i in range(places.shape[0]):
            spread[i] = fused(square, f(2) * v0 + x[i] * (v1 + v2 * x[i]), spread[i])
    if pairs:
        for i in range(places.shape[0]):
            unused = clamped(fused(deviation0, y[i], mean0), low, high)
            x[i] = x[i] - unused
            y[i] = unused
        if noisy:
            for i in range(places.shape[0]):
                spread[i] = fused(square, y[i] * (v1 + v2 * y[i]), spread[i])
    for i in range(places.shape[0]):
        total[i] = fused(weight, x[i], total[i])


@compiled(
    "void(float32[::1], float32[::1], float32[::1], float32[::1], int64[:,::1], int64, float32[:,:,::1], "
    "float32, float32, float32, float32, float32, float32, boolean, int64, int64, int64)"
)
def fold(
    out, variance, codes, normals, rows, nth, tables, low, high, copies, v0, v1, v2, pairs, row, slice_step, row_step
):
    """Write what the cells of each value hold together, in codes.

    Number i of the values has its normals at (i // row) * row_step + i % row, those of the next slice `slice_step`
    further, and those of the other half of the pair `row` further; or they are drawn in this order.

    Args:
        out: the values; the sums of all slices, the used half less the other.
        variance: of one read of them; empty without read noise.
        codes: whole numbers, in rows of one key each.
        normals: given; empty to draw them.
        rows: [K, .] of `places.Places`, one for each row of codes.
        nth: how many tensors the source drew before.
        tables: [3, S, M] means and standard deviations of the digits of each slice by the magnitude of a code, and the
            weight of the slice.
        low: lowest digit that a cell can hold.
        high: highest digit.
        copies: how many copies of each digit there are.
        v0: variance of one read of a cell, v0 + v1 digit + v2 digit^2.
        v1: likewise.
        v2: likewise.
        pairs: True if both halves of a pair have noise.
        row: codes of one key.
        slice_step: see above.
        row_step: see above.
    """
    wide()
    mine, other = np.empty(CHUNK + 8, np.float32), np.empty(CHUNK + 8, np.float32)
    work, places = np.empty((4, CHUNK), np.float32), np.empty(CHUNK, np.int32)
    noisy = variance.shape[0] > 0
    for k in range(codes.shape[0] // max(1, row)):
        for first in range(0, row, CHUNK):
            count, begin = min(CHUNK, row - first), k * row + first
            code, value, place = codes[begin : begin + count], out[begin : begin + count], places[:count]
            total, spread, held, scale = work[0, :count], work[1, :count], work[2, :count], work[3, :count]
            for i in range(count):
                total[i], spread[i], place[i] = f(0), f(0), int32(abs(code[i]))
            for s in range(tables.shape[1]):
                at = k * row_step + s * slice_step + first
                mean, deviation = tables[0, s], tables[1, s]
                x = half(mine, normals, rows, k, first, count, at, nth + s)
                y = x
                if pairs:
                    y = half(other, normals, rows, k, row + first, count, at + row, nth + s)
                    swap(x, y, code)
                how = tables[2, s, 0], low, high, v0, v1, v2, pairs, noisy
                add_slice(total, spread, place, x, y, held, scale, mean, deviation, *how)
            for i in range(count):
                mean_held = total[i] / copies
                value[i] = mean_held if code[i] >= f(0) else -mean_held
            if noisy:
                read = variance[begin : begin + count]
                for i in range(count):
                    read[i] = spread[i] / (copies * copies)


@compiled(
    "void(float32[::1], float32[::1], float32[::1], int64[:,::1], int64, float32[:,:,::1], "
    "float32, float32, boolean, int64, int64, int64)"
)
def write(out, codes, normals, rows, nth, tables, low, high, pairs, row, slice_step, row_step):
    """Write the digits [2, S, ...] that both halves of a pair hold; arguments as in `fold`."""
    wide()
    mine, other = np.empty(CHUNK + 8, np.float32), np.empty(CHUNK + 8, np.float32)
    slices, size = tables.shape[1], codes.shape[0]
    for k in range(size // max(1, row)):
        for first in range(0, row, CHUNK):
            count, begin = min(CHUNK, row - first), k * row + first
            code = codes[begin : begin + count]
            for s in range(slices):
                at = k * row_step + s * slice_step + first
                mean, deviation = tables[0, s], tables[1, s]
                plus, minus = s * size + begin, (slices + s) * size + begin
                upper, lower = out[plus : plus + count], out[minus : minus + count]
                x = half(mine, normals, rows, k, first, count, at, nth + s)
                y = half(other, normals, rows, k, row + first, count, at + row, nth + s) if pairs else x
                for i in range(count):
                    upper[i] = digit_of(max(code[i], f(0)), mean, deviation, x[i], low, high)
                for i in range(count):
                    lower[i] = digit_of(max(-code[i], f(0)), mean, deviation, y[i], low, high)


@compiled("void(float32[::1], float32[::1], float32[::1], int64[:,::1], int64, float32[:,::1], int64)")
def one_normal(out, codes, normals, rows, nth, tables, row):
    """Write what all cells of each value hold together, from one normal each.

    Args:
        out: the values, in codes.
        codes: whole numbers, in rows of one key each.
        normals: given, one after the other; empty to draw them.
        rows: as in `fold`.
        nth: as in `fold`.
        tables: [2, M] mean and standard deviation by the magnitude of a code.
        row: codes of one key.
    """
    wide()
    numbers, work, places = np.empty(CHUNK + 8, f), np.empty((2, CHUNK), f), np.empty(CHUNK, np.int32)
    for k in range(codes.shape[0] // max(1, row)):
        for first in range(0, row, CHUNK):
            count, begin = min(CHUNK, row - first), k * row + first
            code, value, place = codes[begin : begin + count], out[begin : begin + count], places[:count]
            mean, deviation = work[0, :count], work[1, :count]
            x = half(numbers, normals, rows, k, first, count, begin, nth)
            for i in range(count):
                place[i] = int32(abs(code[i]))
            look_up(mean, tables[0], place)
            look_up(deviation, tables[1], place)
            for i in range(count):
                value[i] = fused(deviation[i], x[i], mean[i] if code[i] >= f(0) else -mean[i])
