"""Where in a tensor the numbers of each stream stand, for the counter-based generator.

A tensor is described by one row per stream. The numbers of a row are counted along three axes, the innermost first:
number p stands at i0 = p % width, i1 = (p // width) % count and i2 = p // (width * count), in the tensor at
base + i0 * s0 + i1 * s1 + i2 * s2. So padding takes no numbers, wherever it stands.

Shapes: K rows, B samples, N or M places, X or O values of a place; `...` are matrices that share one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

COLUMNS = 7
"""Entries of a row: seed, token, base, total (how many numbers it has), width, count and later (how many tensors of the
source come before its own, in a draw of several tensors)."""


@dataclass(frozen=True)
class Places:
    """Where the numbers of K streams stand in a tensor.

    Attributes:
        rows: [K, COLUMNS] int64.
        shown: [K, longest count] int64, which place along axis i1 the n-th one is; None for n.
        strides: (s2, s1, s0).
        longest: the largest `total` of a row.
        size: number of values of the tensor.
        full: True if every value of the tensor is a number of a row.
        numbered: name of the tensors of a source whose numbers follow on those of the one before.
    """

    rows: Tensor
    shown: Tensor | None
    strides: tuple[int, int, int]
    longest: int
    size: int
    full: bool
    numbered: int = 0

    @property
    def contiguous(self) -> bool:
        """True if the numbers of a row stand one after the other."""
        return self.strides == (0, 0, 1)

    def to(self, device: torch.device) -> Places:
        """The same on a device, in one transfer without waiting for it."""
        shown = None if self.shown is None else sent(self.shown, device)
        return Places(sent(self.rows, device), shown, self.strides, self.longest, self.size, self.full, self.numbered)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A copy on a device; to a GPU from pinned memory, which the host need not wait for."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def whole_rows(seeds: Sequence[int], shape: Sequence[int]) -> Places:
    """Row b of a tensor [B, ...] belongs to seed b; one seed may have a tensor of any shape."""
    size, K = prod(shape), len(seeds)
    each = size // K
    rows = [[seed, 0, b * each, each, max(1, each), 1, 0] for b, seed in enumerate(seeds)]
    return Places(torch.tensor(rows, dtype=torch.int64).view(K, COLUMNS), None, (0, 0, 1), each, size, full=True)


def padded_rows(
    seeds: Sequence[int],
    shape: Sequence[int],
    counts: Sequence[int] | None,
    columns: Sequence[int] | None,
    shown: Sequence[Sequence[int]] | None = None,
) -> Places:
    """Row b of a tensor [B, ..., M, O] belongs to seed b, which has some places along M and the first ones along O.

    Args:
        seeds: of the B samples.
        shape: of the tensor.
        counts: number of places of each sample along M; None for all.
        columns: number of its places along O; None for all.
        shown: the places of each sample along M; None for the first ones.
    """
    B, *middle, M, O = shape
    counts = [len(row) for row in shown] if shown is not None else counts
    rows = torch.zeros(B, COLUMNS, dtype=torch.int64)
    rows[:, 0] = torch.tensor(seeds, dtype=torch.int64)
    rows[:, 2] = torch.arange(B) * (prod(middle) * M * O)
    width = torch.full((B,), O) if columns is None else torch.tensor(columns).clamp(max=O)
    count = torch.full((B,), M) if counts is None else torch.tensor(counts).clamp(max=M)
    total = prod(middle) * width * count
    rows[:, 3], rows[:, 4], rows[:, 5] = total, width.clamp(min=1), count.clamp(min=1)
    table = None
    if shown is not None:
        longest = max(1, *(len(row) for row in shown))
        table = torch.tensor([[*row, *([0] * (longest - len(row)))] for row in shown], dtype=torch.int64)
    size = prod(shape)
    return Places(rows, table, (M * O, O, 1), int(total.max()), size, full=int(total.sum()) == size)


def token_rows(
    seeds: Sequence[int], numbers: Sequence[Sequence[int]], shape: Sequence[int], *, growing: bool, numbered: int = 0
) -> Places:
    """Entry [b, ..., n, :] of a tensor [B, ..., N, X] belongs to token `numbers[b][n]` of seed b.

    Args:
        seeds: of the B samples.
        numbers: of the token at each place; negative if there is none.
        shape: of the tensor.
        growing: number a token's values along X last, so that a longer X starts with the numbers of a shorter one.
        numbered: see `Places`.
    """
    B, *middle, N, X = shape
    heads = prod(middle)
    rows = torch.zeros(B, N, COLUMNS, dtype=torch.int64)
    token = torch.tensor(numbers, dtype=torch.int64).view(B, N)
    rows[..., 0] = torch.tensor(seeds, dtype=torch.int64)[:, None]
    rows[..., 1] = token.clamp(min=0)
    rows[..., 2] = torch.arange(B)[:, None] * (heads * N * X) + torch.arange(N) * X
    rows[..., 3] = (token >= 0) * (heads * X)
    inner, outer = (heads, X) if growing else (X, heads)
    rows[..., 4], rows[..., 5] = max(1, inner), max(1, outer)
    strides = (0, 1, N * X) if growing else (0, N * X, 1)
    full = bool((token >= 0).all())
    return Places(rows.view(B * N, COLUMNS), None, strides, heads * X, prod(shape), full, numbered)


def repeated(places: Places, count: int) -> Places:
    """The places of the next tensors that a source draws, one after the other: [count, ...]."""
    several = stacked([places] * count)
    several.rows.view(count, -1, COLUMNS)[..., 6] += torch.arange(count)[:, None]
    return several


def stacked(parts: Sequence[Places]) -> Places:
    """The places of tensors of one shape, whose streams differ in their keys alone, one after the other: [R, ...]."""
    first = parts[0]
    rows = torch.stack([part.rows for part in parts])
    rows[..., 2] += torch.arange(len(parts))[:, None] * first.size
    shown = None if first.shown is None else first.shown.repeat(len(parts), 1)
    return Places(
        rows.view(-1, COLUMNS), shown, first.strides, first.longest, first.size * len(parts), first.full, first.numbered
    )
