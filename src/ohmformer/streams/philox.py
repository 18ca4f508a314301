"""Random numbers of many streams at once from the counter-based generator Philox4x32-10, in PyTorch.

Four numbers follow from a key and a counter alone (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11):
no state is kept, and any number can be computed at any place. The key is the seed of a stream. The counter is
(place // 4, token, how many tensors the source drew before, kind), and place % 4 says which of the four numbers stands
there.

Shapes: K streams, G groups of four numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ohmformer.streams.places import Places

ROUNDS = 10
MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)
GROUP = 4
"""Numbers of one counter."""
NORMAL, UNIFORM = 0, 1
"""Kinds of numbers."""


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words for each counter and key; all are int64 tensors of values below 2^32 that broadcast."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        # Products wrap around at 64 bits, which leaves all bits right.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = ((p1 >> 32) & MASK) ^ c1 ^ k0, ((p0 >> 32) & MASK) ^ c3 ^ k1
        c1, c3 = p1 & MASK, p0 & MASK
        k0, k1 = (k0 + INCREMENTS[0]) & MASK, (k1 + INCREMENTS[1]) & MASK
    return c0, c1, c2, c3


def normals(words: tuple[Tensor, ...]) -> Tensor:
    """Standard normals [..., 4] in float32 of four 32-bit words, by Box and Muller: two of each pair."""
    numbers = []
    for radius, angle in (words[:2], words[2:]):
        r = (-2.0 * _open_unit(radius).log()).clamp(min=0.0).sqrt()
        turn = 2.0 * math.pi * _open_unit(angle)
        numbers += [r * turn.cos(), r * turn.sin()]
    return torch.stack(numbers, dim=-1)


def uniforms(words: tuple[Tensor, ...]) -> Tensor:
    """Uniform numbers [..., 4] in [0, 1) in float32 of four 32-bit words: multiples of 2^-24."""
    return torch.stack([(word >> 8).float() * 2.0**-24 for word in words], dim=-1)


def _open_unit(word: Tensor) -> Tensor:
    """(0, 1], from 32 bits: a radius then reaches 6.8 standard deviations."""
    return (word.float() + 0.5) * 2.0**-32


def draw(out: Tensor, places: Places, nth: int, kind: int) -> None:
    """Fill a contiguous float32 tensor with the numbers of streams; what belongs to none is not changed.

    Args:
        out: the tensor, on any device.
        places: where the numbers of each stream stand, on the device of `out`.
        nth: how many tensors the source drew before.
        kind: `NORMAL` or `UNIFORM`.
    """
    seed, token, base, total, width, count, later = places.rows.unsqueeze(-1).unbind(1)
    groups = -(-places.longest // GROUP)
    c0 = torch.arange(groups, device=out.device)[None]
    words = philox((c0, token, later + nth, torch.full_like(token, kind)), (seed & MASK, (seed >> 32) & MASK))
    numbers = (normals(words) if kind == NORMAL else uniforms(words)).flatten(1)  # [K, 4 G]
    flat = out.view(-1)
    if places.full and places.contiguous:
        flat.copy_(numbers[:, : places.longest].reshape(-1))
        return
    p = torch.arange(groups * GROUP, device=out.device)[None]
    s2, s1, s0 = places.strides
    i1 = (p // width) % count
    if places.shown is not None:
        i1 = places.shown.gather(1, i1)
    at = base + (p % width) * s0 + i1 * s1 + (p // (width * count)) * s2
    # What a row does not have goes to one value behind the tensor: a mask would make the host wait for its size.
    longer = torch.cat([flat, flat.new_zeros(1)])
    longer.scatter_(0, torch.where(p < total, at, flat.numel()).view(-1), numbers.reshape(-1))
    flat.copy_(longer[:-1])
