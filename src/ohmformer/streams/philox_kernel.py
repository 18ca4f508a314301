"""The numbers of `philox` in one launch of a Triton kernel, for all streams of a tensor.

It needs Triton, so nothing imports this file before a tensor on a GPU asks for numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ohmformer.streams.backends import launching_on
from ohmformer.streams.philox import GROUP
from ohmformer.streams.places import COLUMNS, Places

BLOCK = 256
"""Counters of one program."""


@triton.jit
def open_unit(word):
    """See `philox._open_unit`."""
    return (word.to(tl.float32) + 0.5) * 2.3283064365386963e-10


@triton.jit
def pair(radius, angle):
    """Two standard normals from two words, by Box and Muller."""
    r = tl.sqrt_rn(tl.maximum(-2.0 * tl.log(open_unit(radius)), 0.0))
    turn = 6.283185307179586 * open_unit(angle)
    return r * tl.cos(turn), r * tl.sin(turn)


@triton.jit
def words_of(seed, group, token, nth, kind):
    """The four words of counters `group`, a vector; the other arguments are numbers."""
    c0 = group.to(tl.uint32)
    none = c0 ^ c0
    return tl.philox(seed, c0, none + token.to(tl.uint32), none + nth.to(tl.uint32), none + kind)


@triton.jit
def store(out, shown, p, number, base, total, width, count, s2, s1, s0, NEXT: tl.constexpr, SHOWN: tl.constexpr):
    """Write number p of a row to its place."""
    there = p < total
    at = base + p
    if not NEXT:
        i1 = (p // width) % count
        if SHOWN:
            i1 = tl.load(shown + i1, mask=there, other=0)
        at = base + (p % width) * s0 + i1 * s1 + (p // (width * count)) * s2
    tl.store(out + at, number, mask=there)


@triton.jit(do_not_specialize=["nth"])
def fill(
    out, rows, shown, nth, programs, s2, s1, s0, longest_count,
    KIND: tl.constexpr, NEXT: tl.constexpr, SHOWN: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program writes `BLOCK` groups of four numbers of one row; see `places` for the rows.

    `programs` is how many programs share a row, NEXT is True if its numbers stand one after the other.
    """
    row = (tl.program_id(0) // programs).to(tl.int64)
    entry = rows + row * COLUMNS
    seed, token, base = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    total, width, count = tl.load(entry + 3), tl.load(entry + 4), tl.load(entry + 5)
    group = (tl.program_id(0) % programs).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    w0, w1, w2, w3 = words_of(seed, group, token, nth + tl.load(entry + 6), KIND)
    if KIND == 0:
        n0, n1 = pair(w0, w1)
        n2, n3 = pair(w2, w3)
    else:
        n0 = (w0 >> 8).to(tl.float32) * 5.9604644775390625e-08
        n1 = (w1 >> 8).to(tl.float32) * 5.9604644775390625e-08
        n2 = (w2 >> 8).to(tl.float32) * 5.9604644775390625e-08
        n3 = (w3 >> 8).to(tl.float32) * 5.9604644775390625e-08
    p, of_row = group * 4, shown + row * longest_count
    store(out, of_row, p, n0, base, total, width, count, s2, s1, s0, NEXT, SHOWN)
    store(out, of_row, p + 1, n1, base, total, width, count, s2, s1, s0, NEXT, SHOWN)
    store(out, of_row, p + 2, n2, base, total, width, count, s2, s1, s0, NEXT, SHOWN)
    store(out, of_row, p + 3, n3, base, total, width, count, s2, s1, s0, NEXT, SHOWN)


def draw(out: Tensor, places: Places, nth: int, kind: int) -> None:
    """See `philox.draw`."""
    programs = triton.cdiv(triton.cdiv(places.longest, GROUP), BLOCK)
    grid = (len(places.rows) * programs,)
    if 0 in grid:
        return
    shown = places.rows if places.shown is None else places.shown
    with launching_on(out):
        fill[grid](
            out, places.rows, shown, nth, programs, *places.strides, shown.shape[1],
            KIND=kind, NEXT=places.contiguous, SHOWN=places.shown is not None, COLUMNS=COLUMNS, BLOCK=BLOCK,
            enable_fp_fusion=False,
        )  # fmt: skip
