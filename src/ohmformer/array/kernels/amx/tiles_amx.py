"""Matrix products by tile instructions, each result by the same sequence of sums wherever it stands in a matrix.

A tile is 16 rows of 64 bytes. A tile of the left factor holds 16 of its rows and 32 inputs; one of the right factor
holds 16 pairs of inputs for 16 columns. Numbers of a matrix are split: each is the sum of three parts in bfloat16.

It needs numba and a CPU with AMX, so nothing imports this file before a product asks for it. Intel's manual of the
instruction set defines the instructions (TDPBF16PS: sums in float32, rounded to nearest).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ohmformer.streams.compiling import check_kernels, compiled, memory

check_kernels("amx", "kernels")  # which also asks the system for the tiles of this process
f = np.float32
floats_at = memory()
EDGE = 32
"""Rows and columns of results that are computed together, and inputs of one step: two tiles of 16, or one of 32."""
TOGETHER = 512
"""Rows of the left factor that stay in a core's cache while the right one passes by."""
TILE = 1024
"""Bytes of a tile."""
_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_POINTER = _BYTE.as_pointer()


def _instruction(builder: Any, name: str, *kinds: Any) -> Any:
    """An instruction for tiles, as a function of LLVM."""
    kind = ir.FunctionType(ir.VoidType(), kinds)
    return cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")


@intrinsic
def configure(context: Any, address: Any) -> Any:
    """Say which shapes tiles have: 64 bytes at an address."""

    def generate(target: Any, builder: Any, _: Any, arguments: Any) -> Any:
        builder.call(_instruction(builder, "ldtilecfg", _POINTER), [builder.inttoptr(arguments[0], _POINTER)])
        return target.get_dummy_value()

    return types.none(types.int64), generate


@intrinsic
def release(context: Any) -> Any:
    """Give the tiles back, so that the system need not keep them."""

    def generate(target: Any, builder: Any, _: Any, __: Any) -> Any:
        builder.call(_instruction(builder, "tilerelease"), [])
        return target.get_dummy_value()

    return types.none(), generate


def _product_of(parts: int) -> Any:
    """A function for compiled loops that computes `EDGE` x `EDGE` results.

    Its arguments are the addresses of both factors, the number of steps, the address of numbers that begin the sums of
    the columns (0 for none), and address and bytes per row of the results.

    Args:
        parts: of the right factor.
    """
    grid = [(row, column) for row in range(2) for column in range(2)]

    def generate(target: Any, builder: Any, _: Any, arguments: Any) -> Any:
        left, right, steps, begin, out, stride = arguments
        zero = _instruction(builder, "tilezero", _BYTE)
        load, store = (_instruction(builder, name, _BYTE, _POINTER, _WORD) for name in ("tileloadd64", "tilestored64"))
        add = _instruction(builder, "tdpbf16ps", _BYTE, _BYTE, _BYTE)

        def move(how: Any, tile: int, base: Any, offset: Any, row: Any) -> None:
            place = builder.inttoptr(builder.add(base, offset), _POINTER)
            builder.call(how, [_BYTE(tile), place, row])

        with builder.if_else(builder.icmp_unsigned("==", begin, _WORD(0))) as (none, some):
            with none:
                for tile in range(4):
                    builder.call(zero, [_BYTE(tile)])
            with some:
                for row, column in grid:
                    move(load, 2 * row + column, begin, _WORD(64 * column), _WORD(0))
        with cgutils.for_range(builder, steps) as loop:
            a = builder.add(left, builder.mul(loop.index, _WORD(2 * TILE)))
            b = builder.add(right, builder.mul(loop.index, _WORD(2 * TILE * parts)))
            for row in range(2):
                move(load, 4 + row, a, _WORD(TILE * row), _WORD(64))
            for part in range(parts):
                for column in range(2):
                    move(load, 6 + column, b, _WORD(TILE * (2 * part + column)), _WORD(64))
                for row, column in grid:
                    builder.call(add, [_BYTE(2 * row + column), _BYTE(4 + row), _BYTE(6 + column)])
        for row, column in grid:
            offset = builder.add(builder.mul(stride, _WORD(16 * row)), _WORD(64 * column))
            move(store, 2 * row + column, out, offset, stride)
        return target.get_dummy_value()

    @intrinsic
    def product(context: Any, left: Any, right: Any, steps: Any, begin: Any, out: Any, stride: Any) -> Any:
        return types.none(*[types.int64] * 6), generate

    return product


three_parts, one_part = _product_of(3), _product_of(1)


def _split_into(parts: int) -> Any:
    """A function for compiled loops that writes `EDGE` numbers of float32 as sums of numbers of bfloat16.

    Its arguments are the address of the numbers, that of their first parts, the bytes from there to the next parts, and
    whether the numbers are squared first. A loop of numba would need checks whether its arrays overlap, which take as
    long as these few numbers.
    """
    number, word, half = (ir.VectorType(kind, 16) for kind in (ir.FloatType(), ir.IntType(32), ir.IntType(16)))

    def all_of(value: int) -> Any:
        return ir.Constant(word, [value] * 16)

    def rounded(builder: Any, x: Any) -> Any:
        """The nearest numbers of bfloat16, the even ones of two."""
        bits = builder.bitcast(x, word)
        odd = builder.and_(builder.lshr(bits, all_of(16)), all_of(1))
        return builder.and_(builder.add(builder.add(bits, all_of(0x7FFF)), odd), all_of(0xFFFF0000))

    def generate(target: Any, builder: Any, _: Any, arguments: Any) -> Any:
        source, out, between, squared = arguments
        for side in range(2):
            x = builder.load(builder.inttoptr(builder.add(source, _WORD(64 * side)), number.as_pointer()))
            x.align = 4
            x = builder.select(squared, builder.fmul(x, x), x)
            for part in range(parts):
                bits = rounded(builder, x)
                x = builder.fsub(x, builder.bitcast(bits, number))
                place = builder.add(builder.add(out, builder.mul(between, _WORD(part))), _WORD(32 * side))
                place = builder.inttoptr(place, half.as_pointer())
                builder.store(builder.trunc(builder.lshr(bits, all_of(16)), half), place).align = 2
        return target.get_dummy_value()

    @intrinsic
    def split(context: Any, source: Any, out: Any, between: Any, squared: Any) -> Any:
        return types.none(*[types.int64] * 3, types.boolean), generate

    return split


into_three, into_one = _split_into(3), _split_into(1)


@compiled("void(int64, int64, int64[::1], int64, boolean)")
def pack_left(out, codes, sizes, rows, squared):
    """Arrange numbers, or their squares, as left factors: whole numbers up to 256 are exact.

    Args:
        out: address of the tiles [N, strips, steps, 32, 32]; rows behind the last are not written.
        codes: address of the numbers [N, M, I].
        sizes: N, M, I and the steps of a strip.
        rows: inputs of a row block, each of which begins with a new step.
        squared: True for squares.
    """
    N, M, I, whole = sizes[0], sizes[1], sizes[2], sizes[3]
    steps, padded = -(-min(rows, I) // EDGE), np.zeros(EDGE, np.float32)
    for n in range(N):
        for m in range(M):
            line = codes + 4 * (n * M + m) * I
            place = out + 2 * TILE * (n * -(-M // EDGE) + m // EDGE) * whole + 2 * EDGE * (m % EDGE)
            for step in range(whole):
                first = step // steps * rows + step % steps * EDGE
                count = max(0, min(EDGE, min(I, (step // steps + 1) * rows) - first))
                source = line + 4 * first
                if count < EDGE:
                    some = floats_at(source, count)
                    for i in range(EDGE):
                        padded[i] = some[i] if i < count else f(0)
                    source = padded.ctypes.data
                into_one(source, place + 2 * TILE * step, 0, squared)


@compiled("void(uint32[:,:,:,:,:,:,::1], float32[:,:,:], int64, float32)")
def pack_right(out, matrix, rows, factor):
    """Arrange a matrix, in one or three parts, as right factors.

    Args:
        out: [N, panels, steps, parts, 2, 16, 16] pairs of numbers, written.
        matrix: [N, O, I].
        rows: inputs of a row block, each of which begins with a new step.
        factor: on all numbers.
    """
    N, O, I = matrix.shape
    steps, parts = -(-min(rows, I) // EDGE), out.shape[3]
    pairs, padded = np.empty((parts, 16), np.uint32), np.zeros(EDGE, np.float32)
    for n in range(N):
        for o in range(out.shape[1] * EDGE):
            for step in range(out.shape[2]):
                first = step // steps * rows + step % steps * EDGE
                count = max(0, min(EDGE, min(I, (step // steps + 1) * rows) - first)) if o < O else 0
                for i in range(EDGE):
                    padded[i] = matrix[n, o, first + i] * factor if i < count else f(0)
                if parts == 3:
                    into_three(padded.ctypes.data, pairs.ctypes.data, 2 * EDGE, False)
                else:
                    into_one(padded.ctypes.data, pairs.ctypes.data, 0, False)
                for part in range(parts):
                    held, of_part = out[n, o // EDGE, step, part, (o % EDGE) // 16], pairs[part]
                    for i in range(16):
                        held[i, o % 16] = of_part[i]


@compiled("void(int64, int64, int64, int64, int64[::1], uint8[::1])")
def multiply(out, left, right, begin, sizes, shape):
    """Multiply whole numbers of `pack_left` and numbers of `pack_right` in three parts.

    Args:
        out: address of the results [N, M, O].
        left: address of the left factors.
        right: address of the right factors.
        begin: address of what is added to each column, in whole panels; 0 for nothing.
        sizes: N, M, O, steps, and bytes from one right factor to the next.
        shape: of tiles, see `configure`.
    """
    N, M, O, steps = sizes[0], sizes[1], sizes[2], sizes[3]
    strips, edge = -(-M // EDGE), np.empty(EDGE * EDGE, np.float32)
    configure(shape.ctypes.data)
    for some in range(0, N * strips, TOGETHER // EDGE):
        for panel in range(-(-O // EDGE)):
            columns = min(EDGE, O - panel * EDGE)
            for part in range(some, min(N * strips, some + TOGETHER // EDGE)):
                n, strip = part // strips, part % strips
                count = min(EDGE, M - strip * EDGE)
                at = out + 4 * ((n * M + strip * EDGE) * O + panel * EDGE)
                inside = (count == EDGE) & (columns == EDGE)
                to, row = (at, 4 * O) if inside else (edge.ctypes.data, 4 * EDGE)
                b = right + n * sizes[4] + panel * steps * 6 * TILE
                three_parts(left + part * steps * 2 * TILE, b, steps, begin + 4 * panel * EDGE if begin else 0, to, row)
                if not inside:
                    for i in range(count):
                        place = floats_at(at + 4 * i * O, columns)
                        for j in range(columns):
                            place[j] = edge[i * EDGE + j]
    release()
