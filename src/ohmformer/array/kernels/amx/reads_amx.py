"""Reads by tile instructions: currents, their noise and their conversions, a few rows and columns at a time.

Currents and variances of `ROWS` rows and `COLUMNS` columns never leave a core's cache. See `tiles_amx`.
"""

from __future__ import annotations

import numpy as np
from numba import uint32

from ohmformer.array.kernels.amx.tiles_amx import EDGE, TILE, configure, one_part, release, three_parts
from ohmformer.array.kernels.input_codes_compiled import clamped, rounded
from ohmformer.streams.compiling import compiled, intrinsics, memory
from ohmformer.streams.philox_compiled import normals_of

f = np.float32
fused, wide = intrinsics()
floats_at = memory()
COLUMNS = 256
"""Columns whose currents are computed together."""
TOGETHER = 512
"""Rows whose inputs and results stay in a core's cache while all reads of some columns pass by."""
DRAWN = 64
"""Numbers are drawn in multiples of this, as many as a loop computes at a time."""


@compiled()
def add_noise(current, spread, chunk, normals, rows, nth, first):
    """Add to each of some currents in a row the root of its variance times a normal.

    Args:
        current: the currents, which are changed.
        spread: address of the variance of each.
        chunk: memory.
        normals: address of the normals of all results; 0 to draw them.
        rows: the rows of `places.Places`, whose numbers stand one after the other.
        nth: how many tensors the source drew before.
        first: number of the first current among all results.
    """
    done, k = 0, 0
    while done < current.shape[0]:
        while rows[k, 2] + rows[k, 3] <= first + done:
            k += 1
        at = first + done - rows[k, 2]
        count, lead = min(current.shape[0] - done, rows[k, 3] - at), at % 4
        if normals != 0:
            lead, given = 0, floats_at(normals + 4 * (first + done), count)
            for i in range(count):
                chunk[i] = given[i]
        else:
            drawn = (lead + count + DRAWN - 1) // DRAWN * DRAWN
            normals_of(chunk, at - lead, drawn, uint32(rows[k, 1]), uint32(nth + rows[k, 6]), rows[k, 0])
        some, normal = current[done : done + count], chunk[lead : lead + count]
        variance = floats_at(spread + 4 * done, count)
        for i in range(count):
            some[i] = fused(np.sqrt(variance[i]), normal[i], some[i])
        done += count


@compiled()
def add_converted(result, current, scale):
    """Add to each result what a converter reports of its current: zero, step, lowest, highest, weight of `scale`.

    From the rounded inverse of a step the quotient is the rounded one all the same, in a third of the time of a
    division.
    """
    zero, step, lowest, highest, weight = scale[0], scale[1], scale[2], scale[3], scale[4]
    inverse = f(1) / step
    for i in range(result.shape[0]):
        above = current[i] - zero
        quotient = above * inverse
        quotient = fused(fused(-quotient, step, above), inverse, quotient)
        result[i] = result[i] + weight * (rounded(clamped(quotient, lowest, highest)) * step + zero)


@compiled("void(int64, int64, int64, int64[::1], int64[:,::1], float32[:,::1], int64[:,:,::1], boolean, uint8[::1])")
def read(out, codes, powers, sizes, reads, scales, rows, converts, shape):
    """Sums of what converters report of all reads; without converters the currents of the only read.

    Args:
        out: address of the results [N, M, O].
        codes: address of the input codes in tiles.
        powers: address of the factors on variances in tiles.
        sizes: N, M, O, the steps of a strip, their number in a row block, and bytes from the cells of
            one matrix to the next, and from their variances.
        reads: for each the addresses of cells and variances in tiles (0 for no noise), the first matrix of the inputs,
            the first step, the address of normals (0 to draw them), and how many tensors their source drew before.
        scales: for each as in `add_converted`.
        rows: of `add_noise`, for each.
        converts: True if converters round.
        shape: of tiles, see `tiles_amx.configure`.
    """
    wide()
    N, M, O, whole, steps = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    strips, chunk = -(-M // EDGE), np.empty(COLUMNS + 2 * DRAWN, np.float32)
    space = np.empty(2 * EDGE * COLUMNS + 16, np.float32)
    current = (space.ctypes.data + 63) // 64 * 64
    variance, line = current + 4 * EDGE * COLUMNS, 4 * COLUMNS
    configure(shape.ctypes.data)
    for some in range(0, N * strips, TOGETHER // EDGE):
        last = min(N * strips, some + TOGETHER // EDGE)
        for column in range(0, O, COLUMNS):
            width = min(COLUMNS, O - column)
            for r in range(reads.shape[0]):
                plane, first = reads[r, 2], reads[r, 3]
                for part in range(some, last):
                    n, strip = part // strips, part % strips
                    left = ((plane + n) * strips + strip) * whole + first
                    for panel in range(0, width, EDGE):
                        right = (column + panel) // EDGE * whole + first
                        b = reads[r, 0] + n * sizes[5] + right * 6 * TILE
                        three_parts(codes + left * 2 * TILE, b, steps, 0, current + 4 * panel, line)
                        if reads[r, 1] != 0:
                            b = reads[r, 1] + n * sizes[6] + right * 2 * TILE
                            one_part(powers + left * 2 * TILE, b, steps, 0, variance + 4 * panel, line)
                    for i in range(min(EDGE, M - strip * EDGE)):
                        at = (n * M + strip * EDGE + i) * O + column
                        result, found = floats_at(out + 4 * at, width), floats_at(current + i * line, width)
                        if reads[r, 1] != 0:
                            add_noise(found, variance + i * line, chunk, reads[r, 4], rows[r], reads[r, 5], at)
                        if r == 0:
                            for j in range(width):
                                result[j] = f(0)
                        if converts:
                            add_converted(result, found, scales[r])
                        else:
                            for j in range(width):
                                result[j] = found[j]
    release()
