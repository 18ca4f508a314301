"""Products with bit-serial inputs whose currents a CPU computes by products of tiles (AMX), and converts at once.

A cell in float32 is the exact sum of three bfloat16 numbers, so bits times cells are exact, too, and are summed in
float32. It needs numba and a CPU with AMX, so nothing imports this file before a product asks for it.

Shapes: M input vectors, O outputs, I inputs, Z input cycles, K steps of `DEPTH` rows of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import int32, types, uint16, uint32
from numba.core import cgutils
from numba.extending import intrinsic

from ohmformer.array.kernels import bit_serial_compiled
from ohmformer.array.kernels.amx.factors import TILES
from ohmformer.array.kernels.amx.tiles_amx import TILE, configure, release
from ohmformer.array.kernels.vectors_compiled import LANES, ROUNDING, Vectors
from ohmformer.streams.compiling import compiled, intrinsics

f = np.float32
_, wide = intrinsics()
SIDE = 16
"""Rows of a tile, and its columns of four bytes."""
DEPTH = 32
"""Rows of cells that one product of tiles sums."""
READS, COLUMNS = 2 * SIDE, 2 * SIDE
"""Reads (input vectors and cycles) and columns whose currents are computed together, in four tiles."""
PARTS = 3
"""Numbers in bfloat16 whose sum is a number in float32."""
LINE = 64
"""Bytes of a line of the cache, and of a row of a tile."""
ONE = 0x3F80
"""1 in bfloat16."""
MOST_VECTORS = 512
"""Input vectors whose bits are kept at a time: those of one row block fill half of a core's second cache."""


def _call(builder: Any, name: str, *arguments: Any) -> None:
    """Call an instruction of the CPU that returns nothing."""
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


def _tile(number: int) -> Any:
    return ir.Constant(ir.IntType(8), number)


def _bytes_of(target: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Address of the data of an array."""
    return builder.bitcast(target.make_array(kind)(target, builder, array).data, ir.IntType(8).as_pointer())


@intrinsic
def begin_sums(context: Any) -> Any:
    """Set the sums of four tiles to zero."""

    def generate(target: Any, builder: Any, _: Any, __: Any) -> Any:
        for n in range(4):
            _call(builder, "tilezero", _tile(n))
        return target.get_dummy_value()

    return types.none(), generate


@intrinsic
def add_products(context: Any, bits: Any, cells: Any, parts: Any) -> Any:
    """Add the products of bits [2, SIDE, DEPTH] and cells [PARTS, 2, SIDE, SIDE] to the sums of four tiles.

    Two rows of cells are one word, see `split`. The first `parts` of a cell's parts are summed, the smallest first.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, columns = (
            _bytes_of(target, builder, kind, value)
            for kind, value in zip(signature.args[:2], arguments[:2], strict=True)
        )
        size = ir.IntType(64)

        def load(tile: int, base: Any, offset: Any) -> None:
            _call(builder, "tileloadd64", _tile(tile), builder.gep(base, [offset]), size(LINE))

        load(4, rows, size(0))
        load(5, rows, size(TILE))
        last = builder.sub(arguments[2], size(1))
        with cgutils.for_range(builder, arguments[2]) as part:
            of_part = builder.mul(builder.sub(last, part.index), size(2 * TILE))
            load(6, columns, of_part)
            load(7, columns, builder.add(of_part, size(TILE)))
            for n in range(4):
                _call(builder, "tdpbf16ps", _tile(n), _tile(4 + n // 2), _tile(6 + n % 2))
        return target.get_dummy_value()

    return types.none(bits, cells, parts), generate


@intrinsic
def store_sums(context: Any, currents: Any) -> Any:
    """Write the sums of four tiles to currents[READS, COLUMNS]."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, size = _bytes_of(target, builder, signature.args[0], arguments[0]), ir.IntType(64)
        for n in range(4):
            place = builder.gep(out, [size(4 * (n // 2 * SIDE * COLUMNS + n % 2 * SIDE))])
            _call(builder, "tilestored64", _tile(n), place, size(4 * COLUMNS))
        return target.get_dummy_value()

    return types.none(currents), generate


@intrinsic
def add_reads(context: Any, total: Any, currents: Any, first: Any, weights: Any, scale: Any) -> Any:
    """Add to total[COLUMNS] what converters report of the currents of one input vector.

    Its reads are the rows `first` and further of currents[READS, COLUMNS], one for each of weights[Z]. `scale` is zero,
    step, 1 / step, lowest and highest code of the converters, what all zeros add, and whether the step is a power of
    two and zero is 0: then a current is rounded to a multiple of the step without a division.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        totals, table, factors = (
            target.make_array(signature.args[n])(target, builder, arguments[n]) for n in (0, 1, 3)
        )
        numbers, size, parts = Vectors(builder), ir.IntType(64), range(COLUMNS // LANES)
        of_scale = [builder.extract_value(arguments[4], n) for n in range(7)]
        zero, step, inverse, lowest, highest, offset = (numbers.spread(value) for value in of_scale[:6])
        start = builder.mul(arguments[2], size(COLUMNS))

        def sums(code_of: Any) -> None:
            places = [numbers.at(totals.data, size(part * LANES)) for part in parts]
            sums = [cgutils.alloca_once_value(builder, numbers.load(place)) for place in places]
            with cgutils.for_range(builder, builder.extract_value(factors.shape, 0)) as loop:
                weight = numbers.spread(builder.load(builder.gep(factors.data, [loop.index])))
                row = builder.add(start, builder.mul(loop.index, size(COLUMNS)))
                for part, held in zip(parts, sums, strict=True):
                    current = numbers.load(numbers.at(table.data, builder.add(row, size(part * LANES))))
                    builder.store(numbers.fused(weight, code_of(current), builder.load(held)), held)
            for place, held in zip(places, sums, strict=True):
                numbers.store(builder.fadd(builder.load(held), offset), place)

        def code(current: Any) -> Any:
            quotient = numbers.quotient(builder.fsub(current, zero), step, inverse)
            return numbers.rounded(numbers.clamped(quotient, lowest, highest), numbers.all(ROUNDING))

        rounding, low, high = (builder.fmul(step, a) for a in (numbers.all(ROUNDING), lowest, highest))
        with builder.if_else(of_scale[6]) as (then, otherwise):
            with then:
                sums(lambda current: numbers.rounded(numbers.clamped(current, low, high), rounding))
            with otherwise:
                sums(code)
        return target.get_dummy_value()

    return types.none(total, currents, first, weights, scale), generate


@compiled()
def aligned(size):
    """Memory of some bytes that begins with a line of the cache: a row of a tile that crosses lines takes twice as long
    or more."""
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]


@compiled()
def is_power_of_two(number):
    """True for a number 2^n in float32."""
    return (f(number).view(np.uint32) & uint32(0x7FFFFF)) == uint32(0)


@compiled()
def find_bits(bits, codes, first, end, Z):
    """The bits of input vectors in one row block, as numbers in bfloat16.

    Args:
        bits: [T, K, 2, SIDE, DEPTH] of T groups of READS reads, written. A group has all reads of as many vectors as
            fit, one after the other.
        codes: [M, I] whole numbers, of which `first` to `end` are the block.
        first: see above.
        end: see above.
        Z: bits of a code.
    """
    each = READS // Z
    bits[:] = uint16(0)
    for m in range(codes.shape[0]):
        of_group = bits[m // each]
        for z in range(Z):
            read = m % each * Z + z
            for k in range(bits.shape[1]):
                place = of_group[k, read // SIDE, read % SIDE]
                at = first + k * DEPTH
                for i in range(min(DEPTH, end - at)):
                    place[i] = uint16(((int32(codes[m, at + i]) >> z) & 1) * ONE)


@compiled()
def take_part(words, even, odd):
    """Take the highest part of the cells [SIDE] of two rows, as words; return a number that is 0 if nothing is left."""
    high, left = uint32(0xFFFF0000), uint32(0)
    for t in range(SIDE):
        a, b = np.uint32(even[t] & high), np.uint32(odd[t] & high)
        words[t] = (a >> uint32(16)) | b
        a = np.float32(np.uint32(even[t]).view(np.float32) - a.view(np.float32)).view(np.uint32)
        b = np.float32(np.uint32(odd[t]).view(np.float32) - b.view(np.float32)).view(np.uint32)
        even[t], odd[t] = a, b
        left |= a | b
    return left


@compiled("int64(uint32[:,:,:,:,::1], float32[:,:], int64, int64, int64, uint32[:,::1])")
def split(cells, digits, o, first, end, pair):
    """The parts in bfloat16 of the cells of a row block and of the columns `o` and further; return how many there are.

    Args:
        cells: [K, PARTS, 2, SIDE, SIDE] words of two rows each, written.
        digits: [O, I] of the matrix.
        o: see above.
        first: the first row.
        end: behind the last one.
        pair: [2, SIDE] words of memory.
    """
    parts, even, odd = 1, pair[0], pair[1]
    for nth in range(cells.shape[0] * 2 * SIDE):
        k, half, place = nth // (2 * SIDE), nth // SIDE % 2, nth % SIDE
        i, column = first + k * DEPTH + 2 * place, o + half * SIDE
        count = min(SIDE, digits.shape[0] - column)
        if (count < SIDE) | (i + 1 >= end):
            pair[:] = uint32(0)
        for t in range(count if i < end else 0):
            even[t] = np.float32(digits[column + t, i]).view(np.uint32)
        for t in range(count if i + 1 < end else 0):
            odd[t] = np.float32(digits[column + t, i + 1]).view(np.uint32)
        for part in range(PARTS):
            left = take_part(cells[k, part, half, place], even, odd)
            if (left != uint32(0)) & (part + 2 > parts):
                parts = part + 2
    return parts


@compiled()
def scale_of(of_reads, weights, factor, scale):
    """What `add_reads` takes for the converters of a side; its weights are written to of_reads[Z]."""
    zero, step = scale[0], scale[1]
    plain, offset = (zero == f(0)) & is_power_of_two(step), f(0)
    for z in range(weights.shape[0]):
        weight = weights[z] * factor
        of_reads[z] = weight if plain else weight * step
        offset += weight * zero
    return zero, step, f(1) / step, scale[2], scale[3], offset, plain


@compiled()
def add_side(total, currents, bits, cells, parts, of_reads, scale):
    """Add the conversions of one side in some columns to total[M, COLUMNS], for input vectors with these bits.

    While the CPU multiplies tiles of a group of reads, the currents of the group before are converted.
    """
    Z, K, each = of_reads.shape[0], bits.shape[1], READS // of_reads.shape[0]
    groups = -(-total.shape[0] // each)
    for t in range(groups + 1):
        before = (t - 1) * each
        begin_sums()
        for k in range(K):
            if t < groups:
                add_products(bits[t, k], cells[k], parts)
            if t > 0:
                for v in range(each * k // K, min(each * (k + 1) // K, total.shape[0] - before)):
                    add_reads(total[before + v], currents[(t - 1) % 2], v * Z, of_reads, scale)
        store_sums(currents[t % 2])


@compiled(bit_serial_compiled.SIGNATURE)
def product(out, codes, digits, weights, scales, factors, rows):
    """`bit_serial_compiled.product`."""
    wide()
    N, M, I = codes.shape
    O, Z, K = out.shape[2], weights.shape[0], -(-min(rows, I) // DEPTH)
    blocks, each, most = -(-I // rows), READS // Z, min(M, MOST_VECTORS)
    bits = aligned(-(-most // each) * K * 2 * TILE).view(np.uint16).reshape(-1, K, 2, SIDE, DEPTH)
    cells = aligned(K * PARTS * 2 * TILE).view(np.uint32).reshape(K, PARTS, 2, SIDE, SIDE)
    currents = aligned(2 * READS * COLUMNS * 4).view(np.float32).reshape(2, READS, COLUMNS)
    pair, of_reads = np.empty((2, SIDE), np.uint32), np.empty(Z, f)
    total = aligned(most * COLUMNS * 4).view(np.float32).reshape(most, COLUMNS)
    out[:] = f(0)
    configure(TILES.ctypes.data)
    for nth in range(N * blocks * -(-M // MOST_VECTORS)):
        n, first, m = nth // blocks % N, nth % blocks * rows, nth // (blocks * N) * MOST_VECTORS
        vectors, end = min(MOST_VECTORS, M - m), min(I, first + rows)
        find_bits(bits, codes[n, m : m + vectors], first, end, Z)
        for o in range(0, O, COLUMNS):
            total[:] = f(0)
            for side in range(factors.size):
                p, s = side % factors.shape[0], side // factors.shape[0]
                parts = split(cells, digits[p, s, n % digits.shape[2]], o, first, end, pair)
                scale = scale_of(of_reads, weights, factors[p, s], scales[s])
                add_side(
                    total[:vectors], currents, bits[:, : -(-(end - first) // DEPTH)], cells, parts, of_reads, scale
                )
            for v in range(vectors):
                row, added = out[n, m + v], total[v]
                for t in range(min(COLUMNS, O - o)):
                    row[o + t] += added[t]
    release()
