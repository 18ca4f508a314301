"""What cells hold after tokens of K or V are written: ranges, codes and noise of all heads in one call.

It needs numba, so nothing imports this file before a write asks for compiled kernels.
"""

from __future__ import annotations

import numpy as np
from numba import int32, uint32

from ohmformer.array.kernels.input_codes_compiled import NO_RANGE, NO_VALUE, clamped, rounded
from ohmformer.array.kernels.writes.cell_writes_compiled import add_slice, digit_of, swap
from ohmformer.streams.compiling import compiled, intrinsics, memory
from ohmformer.streams.philox_compiled import CHUNK, normals_of

f = np.float32
_, wide = intrinsics()
floats_at = memory()
MAGNITUDE, INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
"""Of the bits of a float32 number: those of its magnitude, and those of infinity, above which NaN lies."""


@compiled()
def largest(values, count):
    """Bits of the largest magnitude among `count` numbers at an address; those of NaN are larger than all others."""
    value, most = floats_at(values, count), int32(0)
    for i in range(count):
        bits = f(value[i]).view(np.int32) & MAGNITUDE
        most = bits if bits > most else most
    return most


@compiled()
def drawn(chunk, first, count, token, nth, seed):
    """The normals `first` to `first + count` of a token of a stream; zeros where there is no token."""
    if token < 0:
        for i in range(count):
            chunk[i] = f(0)
        return chunk[:count]
    ahead = first % 4
    normals_of(chunk, first - ahead, (count + ahead + 3) // 4 * 4, uint32(token), uint32(nth), seed)
    return chunk[ahead : ahead + count]


@compiled()
def measure(ranges, values, steps, R, N, d, by_head):
    """Write the largest magnitude of tokens [B, R, N, d] of each sample, or of each of its heads, to ranges [B, R]."""
    for b in range(ranges.shape[0]):
        most = int32(0)
        for h in range(R):
            most = int32(0) if by_head else most
            for n in range(N):
                most = max(most, largest(values + 4 * (b * steps[0] + h * steps[1] + n * steps[2]), d))
            ranges[b, h] = np.int32(most).view(np.float32)
        if not by_head:
            for h in range(R):
                ranges[b, h] = np.int32(most).view(np.float32)


@compiled()
def units_of(ranges, top):
    """Replace ranges by the values of one code, see `encoding.unit_of`; return 0, or `NO_RANGE`."""
    wrong = 0
    for b in range(ranges.shape[0]):
        for h in range(ranges.shape[1]):
            wrong |= 0 if ranges[b, h] >= f(0) and ranges[b, h] < f(np.inf) else NO_RANGE
            unit = ranges[b, h] / top
            ranges[b, h] = unit if unit > f(0) else f(1) / top
    return wrong


@compiled()
def round_tokens(code, values, steps, first, tokens, begin, d, units, top):
    """Write the codes of numbers `first` on of a key, see `write`; return 0 if all values are finite."""
    done, bad = 0, int32(0)
    while done < code.shape[0]:
        r, j = (first + done) // d, (first + done) % d
        h, n, take = r // tokens, begin + r % tokens, min(d - j, code.shape[0] - done)
        value, unit = floats_at(values + 4 * (h * steps[1] + n * steps[2] + j), take), units[h]
        some = code[done : done + take]
        for i in range(take):
            bad |= int32(value[i] - value[i] != f(0))
            rest = value[i] if value[i] == value[i] else f(0)
            some[i] = rounded(clamped(rest / unit, -top, top))
        done += take
    return bad


@compiled()
def place_tokens(out, variance, code, total, spread, first, tokens, begin, N, d, units, copies):
    """Write what cells hold of numbers `first` on of a key to the places of its tokens, see `write`."""
    done = 0
    while done < code.shape[0]:
        r, j = (first + done) // d, (first + done) % d
        h, n, take = r // tokens, begin + r % tokens, min(d - j, code.shape[0] - done)
        place, unit = 4 * ((h * N + n) * d + j), units[h]
        held, some, part = floats_at(out + place, take), code[done : done + take], total[done : done + take]
        for i in range(take):
            value = part[i] / copies
            held[i] = (value if some[i] >= f(0) else -value) * unit
        if variance != 0:
            read, part = floats_at(variance + place, take), spread[done : done + take]
            for i in range(take):
                read[i] = part[i] / (copies * copies) * (unit * unit)
        done += take


@compiled(
    "int64(int64, int64, int64, UniTuple(int64, 3), UniTuple(int64, 3), float32[:,::1], boolean, boolean, "
    "int64[:,::1], float32, float32[:,:,::1], float32, float32, float32, float32, float32, float32, boolean)"
)
def write(
    out, variance, values, steps, sizes, ranges, given, by_head,
    keys, top, tables, low, high, copies, v0, v1, v2, pairs,
):  # fmt: skip
    """Write what the cells of tokens [B, R, N, d] hold together, in values.

    A key belongs to a sample, whose numbers then run along [R, N, d], or to one of its tokens, along [R, d].

    Args:
        out: address of the result, without gaps.
        variance: likewise of the variance of one read of it; 0 without read noise.
        values: address of the tokens, whose last axis has no gaps.
        steps: strides of their other axes.
        sizes: R, N and d.
        ranges: [B, R] the values of code `top`; replaced by the values of one code.
        given: True if the ranges are given; False to find the largest magnitudes.
        by_head: True if each head then has a range of its own; False for one of each sample.
        keys: [K, 2] seed and number of the token of each key, 0 for samples; negative if no token stands there.
        top: the largest code.
        tables: as in `cell_writes_compiled.fold`, like all arguments behind it.

    Returns:
        0, or bits that say what is wrong, see `input_codes_compiled`.
    """
    wide()
    R, N, d = sizes
    work, places = np.empty((5, CHUNK), np.float32), np.empty(CHUNK, np.int32)
    mine, other = np.empty(CHUNK + 8, np.float32), np.empty(CHUNK + 8, np.float32)
    if not given:
        measure(ranges, values, steps, R, N, d, by_head)
    wrong, bad, noisy = units_of(ranges, top), int32(0), variance != 0
    if wrong != 0:  # such units make codes that no table has
        return wrong
    each = keys.shape[0] // max(1, ranges.shape[0])  # keys of a sample
    tokens = N // max(1, each)  # of a key
    row, sample = R * tokens * d, 4 * R * N * d
    for k in range(keys.shape[0]):
        b, begin = k // each, k % each * tokens
        of_reads, seed, token = variance + b * sample if noisy else 0, keys[k, 0], keys[k, 1]
        for first in range(0, row, CHUNK):
            count = min(CHUNK, row - first)
            codes, place = work[0, :count], places[:count]
            total, spread, held, scale = work[1, :count], work[2, :count], work[3, :count], work[4, :count]
            bad |= round_tokens(codes, values + 4 * b * steps[0], steps, first, tokens, begin, d, ranges[b], top)
            for i in range(count):
                total[i], spread[i], place[i] = f(0), f(0), int32(abs(codes[i]))
            for s in range(tables.shape[1]):
                x = drawn(mine, first, count, token, s, seed)
                y = x
                if pairs:
                    y = drawn(other, row + first, count, token, s, seed)
                    swap(x, y, codes)
                how = tables[2, s, 0], low, high, v0, v1, v2, pairs, noisy
                add_slice(total, spread, place, x, y, held, scale, tables[0, s], tables[1, s], *how)
            place_tokens(
                out + b * sample, of_reads, codes, total, spread, first, tokens, begin, N, d, ranges[b], copies
            )
    return NO_VALUE if bad else 0


@compiled()
def place_digits(out, digits, first, tokens, begin, N, d):
    """Write digits of numbers `first` on of a key to the places of its tokens, see `write_digits`."""
    done = 0
    while done < digits.shape[0]:
        r, j = (first + done) // d, (first + done) % d
        h, n, take = r // tokens, begin + r % tokens, min(d - j, digits.shape[0] - done)
        held, some = floats_at(out + 4 * ((h * N + n) * d + j), take), digits[done : done + take]
        for i in range(take):
            held[i] = some[i]
        done += take


@compiled(
    "int64(int64, int64, UniTuple(int64, 3), UniTuple(int64, 3), float32[:,::1], boolean, boolean, "
    "int64[:,::1], float32, float32[:,:,::1], float32, float32, boolean)"
)
def write_digits(out, values, steps, sizes, ranges, given, by_head, keys, top, tables, low, high, pairs):
    """Write the digits [2, S, B, R, N, d] that both halves of pairs hold; arguments as in `write`."""
    wide()
    R, N, d = sizes
    code, plus, minus = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    mine, other = np.empty(CHUNK + 8, np.float32), np.empty(CHUNK + 8, np.float32)
    if not given:
        measure(ranges, values, steps, R, N, d, by_head)
    wrong, bad = units_of(ranges, top), int32(0)
    if wrong != 0:  # such units make codes that no table has
        return wrong
    B, S = ranges.shape[0], tables.shape[1]
    each = keys.shape[0] // max(1, B)  # keys of a sample
    tokens = N // max(1, each)  # of a key
    row, sample = R * tokens * d, 4 * R * N * d
    for k in range(keys.shape[0]):
        b, begin, seed, token = k // each, k % each * tokens, keys[k, 0], keys[k, 1]
        for first in range(0, row, CHUNK):
            count = min(CHUNK, row - first)
            codes, upper, lower = code[:count], plus[:count], minus[:count]
            bad |= round_tokens(codes, values + 4 * b * steps[0], steps, first, tokens, begin, d, ranges[b], top)
            for s in range(S):
                mean, std = tables[0, s], tables[1, s]
                x = drawn(mine, first, count, token, s, seed)
                y = drawn(other, row + first, count, token, s, seed) if pairs else x
                for i in range(count):
                    upper[i] = digit_of(max(codes[i], f(0)), mean, std, x[i], low, high)
                for i in range(count):
                    lower[i] = digit_of(max(-codes[i], f(0)), mean, std, y[i], low, high)
                place_digits(out + (s * B + b) * sample, upper, first, tokens, begin, N, d)
                place_digits(out + ((S + s) * B + b) * sample, lower, first, tokens, begin, N, d)
    return NO_VALUE if bad else 0
