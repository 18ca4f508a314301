"""Products with bit-serial inputs whose currents are summed and converted a few columns at a time.

Bits of four rows have 16 combinations, so sums of four cells are looked up: a current of 64 rows takes 16 additions. It
needs numba, so nothing imports this file before a product asks for compiled kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import int32, types, uint8
from numba.core import cgutils
from numba.extending import intrinsic

from ohmformer.array.kernels.vectors_compiled import LANES, ROUNDING, Vectors
from ohmformer.streams.compiling import compiled, intrinsics

f = np.float32
_, wide = intrinsics()
COLUMNS = 64
"""Columns whose currents are computed together, a multiple of `LANES`: their sums of four cells fill a core's cache."""
SIGNATURE = (
    "void(float32[:,:,::1], float32[:,:,::1], float32[:,:,:,:,:], float32[::1], float32[:,::1], float32[:,::1], int64)"
)
"""Of loops that compute products."""
TOGETHER = 4
"""Groups of four rows whose sums are added at a time."""


@intrinsic
def add_read(context: Any, total: Any, sums: Any, places: Any, scale: Any) -> Any:
    """Add to total[COLUMNS] a weight times what converters report of one read.

    The currents are the sums of sums[g, places[g]] over all g, a multiple of `TOGETHER`. A current x has the code
    (x - zero) / step, rounded and clamped; `scale` is weight, zero, step, 1 / step, lowest and highest code.
    A loop of numba would not become vectors, since the compiler cannot know that rows of a table and the result do not
    overlap.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        totals, table, index = (
            target.make_array(kind)(target, builder, value)
            for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
        )
        numbers = Vectors(builder)
        weight, zero, step, inverse, lowest, highest = (
            numbers.spread(builder.extract_value(arguments[3], n)) for n in range(6)
        )
        for part, read in enumerate(_summed(builder, numbers, table.data, index)):
            current = builder.fsub(read, zero)
            code = numbers.clamped(numbers.quotient(current, step, inverse), lowest, highest)
            code = numbers.rounded(code, numbers.all(ROUNDING))
            place = numbers.at(totals.data, ir.Constant(ir.IntType(64), part * LANES))
            added = numbers.fused(weight, numbers.fused(code, step, zero), numbers.load(place))
            numbers.store(added, place)
        return target.get_dummy_value()

    return types.none(total, sums, places, scale), generate


def _summed(builder: Any, numbers: Vectors, table: Any, index: Any) -> list[Any]:
    """Sums of the rows of a table [G, 16, COLUMNS] at places index[g], as vectors."""
    groups = builder.extract_value(index.shape, 0)
    size, parts = groups.type, range(COLUMNS // LANES)
    totals = [cgutils.alloca_once_value(builder, numbers.all(0.0)) for _ in parts]
    with cgutils.for_range(builder, builder.udiv(groups, size(TOGETHER))) as loop:
        rows = []
        for j in range(TOGETHER):
            g = builder.add(builder.mul(loop.index, size(TOGETHER)), size(j))
            place = builder.zext(builder.load(builder.gep(index.data, [g])), size)
            rows.append(builder.mul(builder.add(builder.mul(g, size(16)), place), size(COLUMNS)))
        for part, total in zip(parts, totals, strict=True):
            offsets = (builder.add(row, size(part * LANES)) for row in rows)
            a, b, c, d = (numbers.load(numbers.at(table, offset)) for offset in offsets)
            four = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
            builder.store(builder.fadd(builder.load(total), four), total)
    return [builder.load(total) for total in totals]


@compiled()
def find_places(places, codes, first, end, row):
    """The bits of each cycle and group of four inputs, as numbers from 0 to 15.

    Args:
        places: [Z, G], written. Group g has the inputs g, G + g, 2 G + g and 3 G + g of the block.
        codes: [I] whole numbers, of which `first` to `end` are the block.
        first: see above.
        end: see above.
        row: [4 G] memory.
    """
    groups = places.shape[1]
    for i in range(row.shape[0]):
        row[i] = int32(codes[first + i]) if first + i < end else int32(0)
    a, b, c, d = row[:groups], row[groups : 2 * groups], row[2 * groups : 3 * groups], row[3 * groups :]
    for z in range(places.shape[0]):
        place = places[z]
        for g in range(groups):
            low, high = ((a[g] >> z) & 1) | (((b[g] >> z) & 1) << 1), ((c[g] >> z) & 1) | (((d[g] >> z) & 1) << 1)
            place[g] = uint8(low | (high << 2))


@compiled()
def fill(sums, digits, o, first, end):
    """The sums [G, 16, COLUMNS] of the cells of four rows, for all bits; digits [O, I] of columns `o` and further."""
    groups, count = sums.shape[0], min(COLUMNS, digits.shape[0] - o)
    for g in range(groups):
        of_group = sums[g]
        for j in range(4):
            i, single = first + j * groups + g, of_group[1 << j]
            for t in range(COLUMNS):
                single[t] = digits[o + t, i] if (i < end) & (t < count) else f(0)
        for t in range(COLUMNS):
            of_group[0, t] = f(0)
        for j in range(1, 4):
            highest = of_group[1 << j]
            for rest in range(1, 1 << j):
                lower, both = of_group[rest], of_group[(1 << j) + rest]
                for t in range(COLUMNS):
                    both[t] = lower[t] + highest[t]


@compiled(SIGNATURE)
def product(out, codes, digits, weights, scales, factors, rows):
    """Multiply whole inputs by a matrix, with one conversion for each cycle, slice, side, row block and column.

    Args:
        out: results [N, M, O] of N matrices, in codes.
        codes: inputs [N, M, I].
        digits: [P, S, N or 1, O, I] of the sides and slices that are converted.
        weights: [Z] of the cycles.
        scales: [S, 4] zero, step, lowest and highest code of the converters, see `converters.code_scale`.
        factors: [P, S] of the conversions in the sum.
        rows: of an array.
    """
    wide()
    N, M, I = codes.shape
    O, blocks = out.shape[2], -(-I // rows)
    groups = -(-min(rows, I) // (4 * TOGETHER)) * TOGETHER
    places = np.empty((blocks, M, weights.shape[0], groups), np.uint8)
    row, sums = np.empty(4 * groups, np.int32), np.empty((groups, 16, COLUMNS), f)
    total = np.empty((M, COLUMNS), f)
    for n in range(N):
        for block in range(blocks):
            for m in range(M):
                find_places(places[block, m], codes[n, m], block * rows, min(I, (block + 1) * rows), row)
        for o in range(0, O, COLUMNS):
            total[:] = f(0)
            for part in range(blocks * factors.size):
                block, side = part // factors.size, part % factors.size
                s, p = side // factors.shape[0], side % factors.shape[0]
                matrix = digits[p, s, n % digits.shape[2]]
                fill(sums, matrix, o, block * rows, min(I, (block + 1) * rows))
                zero, step, lowest, highest = scales[s, 0], scales[s, 1], scales[s, 2], scales[s, 3]
                for m in range(M):
                    for z in range(weights.shape[0]):
                        scale = (weights[z] * factors[p, s], zero, step, f(1) / step, lowest, highest)
                        add_read(total[m], sums, places[block, m, z], scale)
            for m in range(M):
                out[n, m, o : min(O, o + COLUMNS)] = total[m, : min(O, o + COLUMNS) - o]
