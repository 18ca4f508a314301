"""What cells hold that correct one another, in one pass over the values, with normals that are drawn on the way.

It needs numba, so nothing imports this file before a write asks for compiled kernels.
"""

from __future__ import annotations

import numpy as np
from numba import int32, uint32

from ohmformer.array.kernels.input_codes_compiled import clamped, rounded
from ohmformer.array.kernels.writes.cell_writes_compiled import half
from ohmformer.streams.compiling import compiled, intrinsics

f = np.float32
fused, wide = intrinsics()
PART = 512
"""Values whose cells are written one after the other before the next values: so many stay in the core's cache."""


@compiled()
def choose(digit, mean, deviation, rest, bounds, chosen):
    """The signed digit that is best for what is missing, with mean and standard deviation of what then is held.

    Args:
        digit: written.
        mean: written.
        deviation: written.
        rest: what is missing, in codes.
        bounds: [N] magnitudes from which on another digit is better; +0 is where signs begin.
        chosen: [3, N + 1] digits, means and standard deviations between them. There are few, and comparing them all
            lets the compiler use vectors, which tables do not.
    """
    digit0, mean0, deviation0 = chosen[0, 0], chosen[1, 0], chosen[2, 0]
    for i in range(rest.shape[0]):
        digit[i], mean[i], deviation[i] = digit0, mean0, deviation0
    for n in range(bounds.shape[0]):
        bound, digit1, mean1, deviation1 = bounds[n], chosen[0, n + 1], chosen[1, n + 1], chosen[2, n + 1]
        for i in range(rest.shape[0]):
            beyond = abs(rest[i]) >= bound
            digit[i] = digit1 if beyond else digit[i]
            mean[i] = mean1 if beyond else mean[i]
            deviation[i] = deviation1 if beyond else deviation[i]


@compiled()
def write_pairs(used, unused, x, y, digit, rest, mean, deviation, zero, low, high, nearest, pairs):
    """What both halves of each pair hold, and the sign of its digit; see `fold`.

    Args:
        used: written: the half that holds the digit.
        unused: written: the other half; unchanged if it has no noise.
        x: normals of the halves for positive digits.
        y: likewise, for negative digits; or the same.
        digit: of a missing amount of either sign; changed into that of this one.
        rest: what is missing.
        mean: of what is held.
        deviation: likewise.
        zero: mean and standard deviation of digit 0.
        low: lowest digit that a cell can hold.
        high: highest digit.
        nearest: magnitude from which on what is missing has a sign.
        pairs: True if both halves have noise.
    """
    for i in range(rest.shape[0]):
        digit[i] = -digit[i] if rest[i] <= -nearest else digit[i]
    if pairs:
        for i in range(rest.shape[0]):
            unused[i] = clamped(fused(zero[1], y[i] if digit[i] >= f(0) else x[i], zero[0]), low, high)
        for i in range(rest.shape[0]):
            mine = x[i] if digit[i] >= f(0) else y[i]
            used[i] = clamped(fused(deviation[i], mine, mean[i]), low, high)
    else:
        for i in range(rest.shape[0]):
            used[i] = clamped(fused(deviation[i], x[i], mean[i]), low, high)


@compiled()
def add_variance(spread, used, unused, factor, reads):
    """Add a factor times the variance of one read of both halves, v0 + v1 digit + v2 digit^2 each."""
    v0, v1, v2 = reads[0], reads[1], reads[2]
    for i in range(spread.shape[0]):
        both = f(2) * v0 + used[i] * (v1 + v2 * used[i]) + unused[i] * (v1 + v2 * unused[i])
        spread[i] = fused(factor, both, spread[i])


@compiled()
def read_back(pair, used, unused, digit, normals, spread, places, table, reads, limits):
    """Change what pairs hold into what they hold on average, given the codes that read-backs report; see `fold`."""
    codes, flat, step, lowest = table.shape[1], table.reshape(-1), limits[4], limits[5]
    last = f(codes - 1)
    if limits[6] > f(0):
        for i in range(pair.shape[0]):
            spread[i] = f(0)
        add_variance(spread, used, unused, f(1), reads)
        for i in range(pair.shape[0]):
            spread[i] = fused(np.sqrt(spread[i]), normals[i], pair[i])
    else:
        for i in range(pair.shape[0]):
            spread[i] = pair[i]
    for i in range(pair.shape[0]):
        seen = spread[i] if digit[i] >= f(0) else -spread[i]
        code = clamped(rounded(seen / step) - lowest, f(0), last)
        places[i] = int32(abs(digit[i])) * int32(codes) + int32(code)
    for i in range(pair.shape[0]):  # alone, since look-ups take no vectors
        spread[i] = flat[uint32(places[i])]
    for i in range(pair.shape[0]):
        pair[i] = spread[i] if digit[i] >= f(0) else -spread[i]


@compiled()
def keep(cells, used, unused, digit, plus, minus):
    """Keep the digits of both halves of some pairs, which begin at `plus` and at `minus`."""
    count = digit.shape[0]
    upper, lower = cells[plus : plus + count], cells[minus : minus + count]
    for i in range(count):
        upper[i] = used[i] if digit[i] >= f(0) else unused[i]
        lower[i] = unused[i] if digit[i] >= f(0) else used[i]


@compiled()
def add_pairs(total, pair, used, unused, digit, weight):
    """The signed difference of both halves of each pair; its product with a weight is added to a sum."""
    for i in range(total.shape[0]):
        held = used[i] - unused[i]
        pair[i] = held if digit[i] >= f(0) else -held
        total[i] = fused(weight, pair[i], total[i])


@compiled()
def store(out, begin, values, divisor):
    """Divide values by a number, and store them from a place on."""
    stored = out[begin : begin + values.shape[0]]
    for i in range(values.shape[0]):
        stored[i] = values[i] / divisor


@compiled(
    "void(float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], int64[:,::1], int64, float32[::1], "
    "int64[:,::1], int64, float32[:,::1], float32[:,:,::1], float32[:,::1], float32[:,::1], float32[::1], "
    "float32[::1], float32[::1], boolean, int64)"
)
def fold(
    out, variance, cells, values, normals, rows, nth, read_normals, read_rows, read_nth, bounds, chosen, weights, table,
    zero, reads, limits, pairs, row
):  # fmt: skip
    """Write each value into its cells, the most significant first, each for what read-backs say is missing.

    Normals stand, or are drawn, as in `cell_writes_compiled.fold`, those of the most significant cell first.

    Args:
        out: what the cells of each value hold together, in codes.
        variance: of one read of it; empty without read noise.
        cells: [2, S, ...] digits that both halves of each pair hold; empty if nobody asks.
        values: to be written, in codes, in rows of one key each.
        normals: given; empty to draw them.
        rows: [K, .] of `places.Places`, one for each row of values.
        nth: how many tensors the source drew before.
        read_normals: likewise, of read-backs; so are `read_rows` and `read_nth`.
        bounds: [S, N] of each cell, see `choose`.
        chosen: [S, 3, N + 1] likewise.
        weights: [2, S] of each cell: in the sum of slices, and in the value.
        table: [L, codes] what a pair holds on average, see `policy.Policy`; [0, 0] for exact read-backs.
        zero: mean and standard deviation of digit 0.
        reads: v0, v1 and v2 of the variance v0 + v1 digit + v2 digit^2 of one read.
        limits: lowest and highest digit that a cell can hold; magnitude from which on what is missing has a sign;
            copies; step and lowest code of a read-back, and whether it has noise.
        pairs: True if both halves of a pair have noise.
        row: values of one key.
    """
    wide()
    work, drawn, places = np.zeros((9, PART), f), np.empty((2, PART + 8), f), np.empty(PART, np.int32)
    low, high, nearest, copies = limits[0], limits[1], limits[2], limits[3]
    slices, halves, size, noisy = bounds.shape[0], 2 if pairs else 1, values.shape[0], limits[6] > f(0)
    for part in range(size // max(1, row) * (-(-row // PART))):
        k, first = part // (-(-row // PART)), part % (-(-row // PART)) * PART
        count, begin = min(PART, row - first), k * row + first
        value, total, spread, rest = values[begin : begin + count], work[0, :count], work[1, :count], work[2, :count]
        digit, mean, deviation, pair = work[3, :count], work[4, :count], work[5, :count], work[6, :count]
        used, unused = work[7, :count], work[8, :count]
        for i in range(count):
            rest[i], total[i], spread[i] = value[i], f(0), f(0)
        for c in range(slices):
            s, at = slices - 1 - c, (c * size + k * row) * halves + first
            x = half(drawn[0], normals, rows, k, first, count, at, nth + c)
            y = half(drawn[1], normals, rows, k, row + first, count, at + row, nth + c) if pairs else x
            choose(digit, mean, deviation, rest, bounds[c], chosen[c])
            write_pairs(used, unused, x, y, digit, rest, mean, deviation, zero, low, high, nearest, pairs)
            if variance.shape[0] > 0:
                add_variance(spread, used, unused, weights[0, c] * weights[0, c], reads)
            if cells.shape[0] > 0:
                keep(cells, used, unused, digit, s * size + begin, (slices + s) * size + begin)
            add_pairs(total, pair, used, unused, digit, weights[0, c])
            if s and table.shape[0] > 0:
                if noisy:
                    x = half(drawn[0], read_normals, read_rows, k, first, count, c * size + begin, read_nth + c)
                read_back(pair, used, unused, digit, x, mean, places[:count], table, reads, limits)
            for i in range(count):
                rest[i] = fused(-weights[1, c], pair[i], rest[i])
        store(out, begin, total, copies)
        if variance.shape[0] > 0:
            store(variance, begin, spread, copies * copies)
