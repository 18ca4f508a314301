"""Tokens without padding: they are written in the order of their numbers, as in a sample by itself.

Shapes: B samples, R heads, N slots in which tokens come, n places at which they are written, d features, M inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.nn.shared.memory import Mask
from ohmformer.nn.shared.state import CallInfo


@dataclass(frozen=True, eq=False)
class Unpadding:
    """Which slot's token is written at which place.

    Attributes:
        index: [B, n] the slot of each place; arbitrary for a place without a token.
        kept: [B, n] True if a place holds a token.
        lengths: for each sample, the number of places up to its last token.
        slots: N.
    """

    index: Tensor
    kept: Tensor
    lengths: tuple[int, ...]
    slots: int

    def gather(self, t: Tensor, dim: int) -> Tensor:
        """t[B, R, ...] with n places along `dim` instead of N slots; places without a token are zero."""
        dim %= t.dim()
        shape = [1] * t.dim()
        shape[0], shape[dim] = self.index.shape
        index = self.index.reshape(shape)
        t = t.gather(dim, index.expand(*t.shape[:dim], index.shape[dim], *t.shape[dim + 1 :]))
        return t * self.kept.reshape(shape).to(t.dtype)

    def scatter(self, t: Tensor, dim: int) -> Tensor:
        """The inverse of `gather`: slots that were not written are zero."""
        dim %= t.dim()
        shape = [1] * t.dim()
        shape[0], shape[dim] = self.index.shape
        t = t * self.kept.reshape(shape).to(t.dtype)
        index = self.index.reshape(shape).expand_as(t)
        size = [*t.shape[:dim], self.slots, *t.shape[dim + 1 :]]
        return t.new_zeros(size).scatter_add(dim, index, t)

    @property
    def seen(self) -> Tensor:
        """[B, N] True if a slot's token is written."""
        return self.scatter(self.kept.long(), -1) > 0


def unpad(valid: Tensor | None, samples: int) -> Unpadding | None:
    """Tokens of the slots valid[B or 1, N], side by side; None if every slot has one."""
    if valid is None or bool(valid.all()):
        return None
    return unpad_where(valid.expand(samples, -1))


def unpad_where(valid: Tensor) -> Unpadding:
    """Tokens of the slots valid[B, N], side by side in the order of their slots."""
    lengths = valid.sum(dim=1)
    longest = max(1, int(lengths.max()))
    index = (~valid).to(torch.int8).sort(dim=1, stable=True).indices[:, :longest]
    kept = torch.arange(longest, device=valid.device) < lengths[:, None]
    return Unpadding(index, kept, tuple(lengths.tolist()), valid.shape[1])


def place_tokens(
    tokens: Tensor, valid: Tensor | None, info: CallInfo, *, by_number: bool, queries_written: bool
) -> tuple[Unpadding | None, Numbers]:
    """The places of tokens of causal attention, and the number of the token at each place.

    Args:
        tokens: [B, R, N, d].
        valid: [B or 1, N] False where a slot holds no token.
        info: what the call says of its batch.
        by_number: the place of a token is its number, also where older tokens are missing, as from the cache of a
            window; otherwise tokens stand side by side.
        queries_written: the tokens are queries, which are all new, not keys or values.

    Returns:
        The unpadding, None if every slot is written in its order; and the numbers.
    """
    B, _, N, _ = tokens.shape
    unpadding, device = unpad(valid, B), tokens.device
    numbered = len(info.numbers) == B
    if queries_written and unpadding is None and numbered and len(info.numbers[0]) == N:
        if not by_number or all(row == tuple(range(N)) for row in info.numbers):
            return None, info.numbers
        return place_by_number(torch.tensor(info.numbers, device=device))
    if info.ring and numbered and len(info.numbers[0]) < N:
        last = torch.tensor(info.tokens_so_far, device=device)[:, None] - 1
        numbers = last - (last - torch.arange(N, device=device)) % N
        return place_by_number(numbers if unpadding is None else torch.where(unpadding.seen, numbers, -1))
    lengths = (N,) * B if unpadding is None else unpadding.lengths
    tokens_so_far = info.tokens_so_far if len(info.tokens_so_far) == B else lengths
    starts = [max(0, total - length) for total, length in zip(tokens_so_far, lengths, strict=True)]
    if unpadding is not None and any(starts):
        of_slots = _numbers_of_slots(info.token_mask, tokens_so_far, N, device)
        if of_slots is not None and by_number:
            return place_by_number(torch.where(unpadding.seen, of_slots, -1))
        if of_slots is not None:
            shown = of_slots.gather(1, unpadding.index).masked_fill(~unpadding.kept, -1)
            return unpadding, tuple(tuple(row) for row in shown.tolist())
    if not (by_number and any(starts)):
        n = N if unpadding is None else unpadding.index.shape[1]
        return unpadding, side_by_side(tuple(starts), tuple(lengths), n)
    first = torch.tensor(starts, device=device)[:, None]
    if unpadding is None:
        return place_by_number(first + torch.arange(N, device=device))
    seen = unpadding.seen
    return place_by_number(torch.where(seen, seen.long().cumsum(dim=1) - 1 + first, -1))


@lru_cache(maxsize=8)
def side_by_side(starts: tuple[int, ...], lengths: tuple[int, ...], n: int) -> Numbers:
    """The numbers of tokens side by side at n places: all layers of a call have the same ones."""
    return tuple(
        tuple(range(start, start + length)) + (-1,) * (n - length)
        for start, length in zip(starts, lengths, strict=True)
    )


def _numbers_of_slots(token_mask: Mask, tokens_so_far: Sequence[int], N: int, device: torch.device) -> Tensor | None:
    """The number of the token in each of N slots [B, N], -1 at padding, where no token of a sample is missing.

    A mask may hide tokens between others that it shows (sparse attention, or a mask that depends on values), so the
    visible tokens alone do not tell the numbers; `token_mask` [B, L] does, of whose columns none is hidden by a mask.

    None if older tokens may be missing, as from the cache of a window, so that they are fewer than `tokens_so_far`.
    """
    if not token_mask:
        slots = torch.arange(N, device=device).expand(len(tokens_so_far), N)
        return slots if max(tokens_so_far) <= N and len(set(tokens_so_far)) == 1 else None
    B, L = token_mask[0].shape
    if len(tokens_so_far) != B or L > N:
        return None
    filled = torch.nn.functional.pad(token_mask[0].to(device), (0, N - L))
    if filled.sum(dim=1).tolist() != list(tokens_so_far):
        return None
    return torch.where(filled, filled.long().cumsum(dim=1) - 1, -1)


def place_by_number(numbers: Tensor) -> tuple[Unpadding, Numbers]:
    """Each token at the place of its number; numbers[B, N] are negative where a slot has no token."""
    B, N = numbers.shape
    n = max(1, 1 + int(numbers.max()))
    where = torch.where(numbers < 0, n, numbers)
    index = numbers.new_zeros(B, n + 1).scatter_(1, where, torch.arange(N, device=numbers.device).expand(B, N))
    kept = torch.zeros_like(index, dtype=torch.bool).scatter_(1, where, torch.ones_like(where, dtype=torch.bool))
    lengths = tuple((1 + numbers.amax(dim=1)).clamp(min=0).tolist())
    placed = torch.where(kept, torch.arange(n + 1, device=numbers.device), -1)[:, :n]
    return Unpadding(index[:, :n], kept[:, :n], lengths, N), tuple(tuple(row) for row in placed.tolist())
