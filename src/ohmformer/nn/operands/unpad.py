"""Tokens without padding: what is written stands in the order of its numbers, as it does in a sample by itself.

Shapes: B samples, R heads, N slots in which tokens come, n places at which they are written, d features, M inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Numbers = tuple[tuple[int, ...], ...]
"""For each sample the number of the token at each place, negative where none is."""


@dataclass(frozen=True, eq=False)
class Unpadding:
    """Which slot's token is written at which place.

    Attributes:
        index: [B, n] the slot of each place; of a place that holds no token, any.
        kept: [B, n] whether a place holds a token.
        lengths: for each sample, how many places it takes, up to its last token.
        slots: N.
    """

    index: Tensor
    kept: Tensor
    lengths: tuple[int, ...]
    slots: int

    def gather(self, t: Tensor, dim: int) -> Tensor:
        """t[B, R, ...] with N slots along `dim` to n places; those that hold no token are zero."""
        dim %= t.dim()
        shape = [1] * t.dim()
        shape[0], shape[dim] = self.index.shape
        index = self.index.reshape(shape)
        found = t.gather(dim, index.expand(*t.shape[:dim], index.shape[dim], *t.shape[dim + 1 :]))
        return found * self.kept.reshape(shape).to(t.dtype)

    def scatter(self, t: Tensor, dim: int) -> Tensor:
        """The inverse of `gather`: slots that were not written give zero."""
        dim %= t.dim()
        shape = [1] * t.dim()
        shape[0], shape[dim] = self.index.shape
        t = t * self.kept.reshape(shape).to(t.dtype)
        index = self.index.reshape(shape).expand_as(t)
        size = [*t.shape[:dim], self.slots, *t.shape[dim + 1 :]]
        return t.new_zeros(size).scatter_add(dim, index, t)


def unpad(valid: Tensor | None, samples: int) -> Unpadding | None:
    """Tokens of the slots valid[B or 1, N], side by side; None where every slot has one."""
    if valid is None or bool(valid.all()):
        return None
    return unpad_where(valid.expand(samples, -1))


def unpad_where(valid: Tensor) -> Unpadding:
    """Tokens of the slots valid[B, N], side by side in the order in which they come."""
    lengths = valid.sum(dim=1)
    longest = max(1, int(lengths.max()))
    index = (~valid).to(torch.int8).sort(dim=1, stable=True).indices[:, :longest]
    kept = torch.arange(longest, device=valid.device) < lengths[:, None]
    return Unpadding(index, kept, tuple(lengths.tolist()), valid.shape[1])


def places(
    unpadding: Unpadding | None,
    totals: Sequence[int],
    B: int,
    N: int,
    device: torch.device,
    *,
    at_numbers: bool,
    padding: Tensor | None = None,
) -> tuple[Unpadding | None, Numbers]:
    """The places of tokens that come in the order of their numbers, and the number of the token at each place.

    Args:
        unpadding: which of N slots hold tokens; None if all do.
        totals: for each sample, how many tokens it has had, the last of which are here; empty if nobody knows more.
        B: samples.
        N: slots.
        device: of the tokens.
        at_numbers: the place of a token is its number, where older ones are missing; otherwise they stand side by side.
        padding: [B, L] which slots hold a token at all, though a mask may hide it; None if nothing says so.
    """
    n = N if unpadding is None else unpadding.index.shape[1]
    lengths = (n,) * B if unpadding is None else unpadding.lengths
    totals = totals if len(totals) == B else lengths
    starts = [max(0, total - own) for total, own in zip(totals, lengths, strict=True)]
    if unpadding is not None and any(starts):
        of_slots = _numbers_of_slots(padding, totals, N, device)
        if of_slots is not None:
            return _place_seen(unpadding, of_slots, at_numbers=at_numbers)
    if not (at_numbers and any(starts)):
        return unpadding, tuple(
            tuple(range(start, start + own)) + (-1,) * (n - own) for start, own in zip(starts, lengths, strict=True)
        )
    first = torch.tensor(starts, device=device)[:, None]
    if unpadding is None:
        return place_at(first + torch.arange(N, device=device))
    valid = unpadding.scatter(unpadding.kept.long(), -1) > 0
    return place_at(torch.where(valid, valid.long().cumsum(dim=1) - 1 + first, -1))


def _numbers_of_slots(padding: Tensor | None, totals: Sequence[int], N: int, device: torch.device) -> Tensor | None:
    """The number of the token in each of N slots [B, N], where every token that a sample has had is in one of them.

    A mask may hide tokens between others that it shows (sparse attention, or one that depends on the values), so what
    is seen does not tell the numbers. None where older tokens may be missing, as from the cache of a window.
    """
    if padding is None:
        slots = torch.arange(N, device=device).expand(len(totals), N)
        return slots if max(totals) <= N and len(set(totals)) == 1 else None
    B, L = padding.shape
    if len(totals) != B or L > N:
        return None
    held = torch.nn.functional.pad(padding.to(device), (0, N - L))
    return torch.where(held, held.long().cumsum(dim=1) - 1, -1)


def _place_seen(unpadding: Unpadding, of_slots: Tensor, *, at_numbers: bool) -> tuple[Unpadding, Numbers]:
    """The places of the tokens that are seen, given the number of the token in each slot [B, N]."""
    if at_numbers:
        seen = unpadding.scatter(unpadding.kept.long(), -1) > 0
        return place_at(torch.where(seen, of_slots, -1))
    numbers = of_slots.gather(1, unpadding.index).masked_fill(~unpadding.kept, -1)
    return unpadding, tuple(tuple(row) for row in numbers.tolist())


def ring_places(
    unpadding: Unpadding | None, totals: Sequence[int], N: int, device: torch.device
) -> tuple[Unpadding, Numbers]:
    """The same for a cache of N slots in which token n stands in slot n mod N."""
    last = torch.tensor(totals, device=device)[:, None] - 1
    numbers = last - (last - torch.arange(N, device=device)) % N
    if unpadding is not None:
        numbers = torch.where(unpadding.scatter(unpadding.kept.long(), -1) > 0, numbers, -1)
    return place_at(numbers)


def place_at(numbers: Tensor) -> tuple[Unpadding, Numbers]:
    """Each token at the place of its number; numbers[B, N] are negative where no token is."""
    B, N = numbers.shape
    n = max(1, 1 + int(numbers.max()))
    where = torch.where(numbers < 0, n, numbers)
    index = numbers.new_zeros(B, n + 1).scatter_(1, where, torch.arange(N, device=numbers.device).expand(B, N))
    kept = torch.zeros_like(index, dtype=torch.bool).scatter_(1, where, torch.ones_like(where, dtype=torch.bool))
    lengths = tuple((1 + numbers.amax(dim=1)).clamp(min=0).tolist())
    own = torch.where(kept, torch.arange(n + 1, device=numbers.device), -1)[:, :n]
    return Unpadding(index[:, :n], kept[:, :n], lengths, N), tuple(tuple(row) for row in own.tolist())
