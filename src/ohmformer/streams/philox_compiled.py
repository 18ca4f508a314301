"""The numbers of `philox` on the CPU, by loops that numba compiles: those of all streams of a tensor at once.

It needs numba, so nothing imports this file before streams ask for compiled kernels. Other compiled loops take
`normals_of` from here, and use numbers while they are in the core's cache.
"""

from __future__ import annotations

import numpy as np
from numba import float32, int32, int64, uint32, uint64
from torch import Tensor

from ohmformer.streams.compiling import compiled, intrinsics
from ohmformer.streams.philox import INCREMENTS, MULTIPLIERS, NORMAL, ROUNDS
from ohmformer.streams.places import Places

CHUNK = 2048
"""Numbers that are drawn at a time, a multiple of four."""
f = np.float32
M0, M1 = (np.uint64(number) for number in MULTIPLIERS)
W0, W1 = (np.uint32(number) for number in INCREMENTS)
fused, wide = intrinsics()


@compiled()
def words_of(group, token, nth, kind, k0, k1):
    """The four words of a counter, see `philox.philox`."""
    c0, c1, c2, c3 = uint32(group), uint32(token), uint32(nth), uint32(kind)
    for _ in range(ROUNDS):
        p0, p1 = uint64(c0) * M0, uint64(c2) * M1
        h0, h1 = uint32(p0 >> uint64(32)), uint32(p1 >> uint64(32))
        c0, c1, c2, c3 = uint32(h1 ^ c1 ^ k0), uint32(p1), uint32(h0 ^ c3 ^ k1), uint32(p0)
        k0, k1 = uint32(k0 + W0), uint32(k1 + W1)
    return c0, c1, c2, c3


@compiled()
def logarithm(x):
    """Natural logarithm of a normal float32 number, by the polynomial of the Cephes library: within 1e-7 relative."""
    bits = f(x).view(np.int32)
    exponent = (bits - int32(0x3F3504F3)) >> int32(23)  # the rest lies between the roots of 1/2 and of 2
    m = np.int32(bits - (exponent << int32(23))).view(np.float32) - f(1.0)
    z = m * m
    p = fused(f(7.0376836292e-2), m, f(-1.1514610310e-1))
    p = fused(p, m, f(1.1676998740e-1))
    p = fused(p, m, f(-1.2420140846e-1))
    p = fused(p, m, f(1.4249322787e-1))
    p = fused(p, m, f(-1.6668057665e-1))
    p = fused(p, m, f(2.0000714765e-1))
    p = fused(p, m, f(-2.4999993993e-1))
    p = fused(p, m, f(3.3333331174e-1))
    y = fused(float32(exponent), f(-2.12194440e-4), m * (z * p))
    return fused(float32(exponent), f(0.693359375), m + fused(z, f(-0.5), y))


@compiled()
def pair_of(radius, angle):
    """Two standard normals of two words, by Box and Muller: see `philox.normals`."""
    r = np.sqrt(max(f(-2.0) * logarithm((float32(radius) + f(0.5)) * f(2.0**-32)), f(0.0)))
    nearest = uint32(angle + uint32(1 << 29))  # the quadrant in two bits, and the way from its middle
    quadrant = nearest >> uint32(30)
    t = (float32(int32((nearest & uint32(0x3FFFFFFF)) - uint32(1 << 29))) + f(0.5)) * f(2.0**-32 * 2.0 * np.pi)
    z = t * t
    s = fused(t * z, fused(z, fused(z, f(-1.9515295891e-4), f(8.3321608736e-3)), f(-1.6666654611e-1)), t)
    c = fused(z, fused(z, f(2.443315711809948e-5), f(-1.388731625493765e-3)), f(4.166664568298827e-2))
    c = fused(z, fused(z, c, f(-0.5)), f(1.0))
    turned = (quadrant & uint32(1)) != uint32(0)
    r = r * (f(1.0) - float32(int32(quadrant & uint32(2))))
    return r * (-s if turned else c), r * (c if turned else s)


@compiled()
def normals_of(out, first, count, token, nth, seed):
    """Write normals `first` to `first + count` of a stream to the beginning of `out`; both are multiples of four."""
    wide()
    k0, k1 = uint32(seed & int64(0xFFFFFFFF)), uint32((seed >> int64(32)) & int64(0xFFFFFFFF))
    for g in range(count // 4):
        w0, w1, w2, w3 = words_of(uint32(first // 4 + g), token, nth, uint32(0), k0, k1)
        n0, n1 = pair_of(w0, w1)
        n2, n3 = pair_of(w2, w3)
        out[4 * g], out[4 * g + 1], out[4 * g + 2], out[4 * g + 3] = n0, n1, n2, n3


@compiled()
def uniforms_of(out, first, count, token, nth, seed):
    """`normals_of` for uniform numbers in [0, 1)."""
    k0, k1 = uint32(seed & int64(0xFFFFFFFF)), uint32((seed >> int64(32)) & int64(0xFFFFFFFF))
    for g in range(count // 4):
        words = words_of(uint32(first // 4 + g), token, nth, uint32(1), k0, k1)
        for j in range(4):
            out[4 * g + j] = float32(words[j] >> uint32(8)) * f(2.0**-24)


@compiled("void(float32[::1], int64[:,::1], int64[:,::1], int64, int64, int64, int64, boolean, boolean)")
def fill(out, rows, shown, nth, s2, s1, s0, normal, shows):
    """`philox.draw` for the rows of `places.Places`; `shows` is False where `shown` says nothing."""
    wide()
    chunk = np.empty(CHUNK, np.float32)
    for k in range(rows.shape[0]):
        seed, token, base, total = rows[k, 0], rows[k, 1], rows[k, 2], rows[k, 3]
        width, count, later = rows[k, 4], rows[k, 5], rows[k, 6]
        i0, i1, i2 = 0, 0, 0
        for first in range(0, total, CHUNK):
            number = min(CHUNK, total - first)
            drawn = (number + 3) // 4 * 4
            if normal:
                normals_of(chunk, first, drawn, uint32(token), uint32(nth + later), seed)
            else:
                uniforms_of(chunk, first, drawn, uint32(token), uint32(nth + later), seed)
            if s0 == 1 and s1 == 0 and s2 == 0:
                for p in range(number):
                    out[base + first + p] = chunk[p]
                continue
            for p in range(number):
                place = shown[k, i1] if shows else i1
                out[base + i0 * s0 + place * s1 + i2 * s2] = chunk[p]
                i0 += 1
                if i0 == width:
                    i0, i1 = 0, i1 + 1
                    if i1 == count:
                        i1, i2 = 0, i2 + 1


def draw(out: Tensor, places: Places, nth: int, kind: int) -> None:
    """See `philox.draw`."""
    shown = places.rows if places.shown is None else places.shown
    s2, s1, s0 = places.strides
    flat, rows = out.view(-1).numpy(), places.rows.numpy()
    fill(flat, rows, shown.numpy(), nth, s2, s1, s0, kind == NORMAL, places.shown is not None)
