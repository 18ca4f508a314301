"""The first and the last tokens of K or V, which stay digital while cells hold the others.

Query q multiplies token k digitally if k < `first_tokens`, or if k > q - `last_tokens`: the window belongs to the
query, so a pass over a whole text and decoding token by token multiply the same tokens digitally. Cells hold what has
left the window of the last query. In a pass over many queries these cells are there from its start, but the queries
whose window still holds a token do not read its cells.

Shapes: B samples, R heads, M inputs, N slots in which tokens come, n places of tokens, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ohmformer.mitigation.spec import Conditioning
from ohmformer.nn.operands.read_streams import last_numbers
from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.nn.operands.unpad import Unpadding, unpad_where
from ohmformer.nn.shared.state import CallInfo


class TokenCount(NamedTuple):
    """A number of tokens.

    Attributes:
        digital: those that no cell holds.
        all: all tokens.
    """

    digital: int = 0
    all: int = 0

    def plus(self, other: TokenCount) -> TokenCount:
        """The sum of two counts."""
        return TokenCount(self.digital + other.digital, self.all + other.all)


@dataclass(frozen=True, eq=False)
class DigitalTokens:
    """The tokens of one call, divided into those of cells and those that are digital.

    Attributes:
        in_cells: the places of the tokens that cells hold.
        numbers: for each sample, the number of the token at each of these places, -1 at a place without a token.
        digital: [B or 1, 1, M or 1, N] True where a query multiplies the token of a slot digitally.
        count: the tokens of all samples.
    """

    in_cells: Unpadding
    numbers: Numbers
    digital: Tensor
    count: TokenCount

    @property
    def all_digital(self) -> bool:
        """True if no cell holds a token."""
        return self.count.digital == self.count.all

    def product(self, x: Tensor, tokens: Tensor, axis: str) -> Tensor:
        """The digital part of a product: scores of digital keys, or the sum over digital values.

        Args:
            x: inputs [B, R, M, d] of K, or [B, R, M, N] of V.
            tokens: K or V [B, R, N, d].
            axis: "K" or "V".

        Returns:
            [B, R, M, N] for K, which is zero at all other tokens; [B, R, M, d] for V.
        """
        if axis == "K":
            return (x @ tokens.transpose(-2, -1)).masked_fill(~self.digital, 0.0)
        elsewhere = ~self.digital.any(dim=-2)  # slots of padding may hold anything
        return x.masked_fill(~self.digital, 0.0) @ tokens.masked_fill(elsewhere[..., None], 0.0)

    def inputs(self, x: Tensor) -> Tensor:
        """The inputs x[B, R, M, N] of V for cells: zero at digital tokens."""
        return x.masked_fill(self.digital, 0.0)

    def joined(self, from_cells: Tensor, product: Tensor, axis: str) -> Tensor:
        """The whole product, from the part of cells and that of `product`; both as `product` returns it."""
        return torch.where(self.digital, product, from_cells) if axis == "K" else from_cells + product


def divide(
    spec: Conditioning,
    unpadding: Unpadding | None,
    numbers: Numbers,
    slots: Tensor,
    info: CallInfo,
    *,
    new: int,
    heads: int,
    by_number: bool,
) -> DigitalTokens:
    """Divide the tokens of a call.

    Args:
        spec: the conditioning, which says how many tokens are digital.
        unpadding: the places of all tokens; None if every slot is a place.
        numbers: for each sample, the number of the token at each place, or empty if tokens are numbered by place.
        slots: [B, N] of any values, on the device of the tokens.
        info: what the call says of its batch.
        new: number of new queries of a head.
        heads: number of heads of queries, whose rows of inputs follow one another along M.
        by_number: the place of a token in cells follows from its number; otherwise tokens stand side by side.
    """
    B, N = slots.shape
    held = torch.tensor(numbers) if numbers else _by_place(unpadding, B, N)
    kept = held >= spec.first_tokens
    if spec.last_tokens:
        kept &= held <= held.amax(dim=1, keepdim=True) - spec.last_tokens
    places = _by_number(kept, spec.first_tokens) if by_number else unpad_where(kept)
    numbered = held.gather(1, places.index).masked_fill(~places.kept, -1)
    tokens = held.to(slots.device)
    if unpadding is not None:
        tokens = unpadding.scatter(tokens + 1, -1) - 1
    digital = tokens[:, None, :] < spec.first_tokens
    if spec.last_tokens:
        rows = _query_numbers(tokens, info, new).repeat(1, heads)
        digital = digital | (tokens[:, None, :] > rows[:, :, None] - spec.last_tokens)
    total = int((held >= 0).sum())
    return DigitalTokens(
        _composed(unpadding, places, slots),
        tuple(map(tuple, numbered.tolist())),
        (digital & (tokens >= 0)[:, None, :])[:, None],
        TokenCount(total - int(kept.sum()), total),
    )


def _by_place(unpadding: Unpadding | None, B: int, N: int) -> Tensor:
    """The numbers [B, n] of tokens that stand side by side, -1 where there is none."""
    if unpadding is None:
        return torch.arange(N).expand(B, N)
    places = torch.arange(unpadding.index.shape[1])
    return torch.where(places < torch.tensor(unpadding.lengths)[:, None], places, -1)


def _by_number(kept: Tensor, first: int) -> Unpadding:
    """The kept ones of places [B, n], whose tokens stand by their numbers, from that of token `first` on."""
    B, n = kept.shape
    ends = torch.where(kept, torch.arange(1, n + 1), 0).amax(dim=1)
    stop = max(int(ends.max()), first + 1)
    index = torch.arange(first, stop).clamp(max=n - 1).expand(B, -1)
    there = torch.nn.functional.pad(kept, (0, max(0, stop - n)))[:, first:stop]
    return Unpadding(index, there, tuple((ends - first).clamp(min=0).tolist()), n)


def _composed(unpadding: Unpadding | None, places: Unpadding, slots: Tensor) -> Unpadding:
    """The unpadding of some of the places of another unpadding."""
    index, kept = places.index.to(slots.device), places.kept.to(slots.device)
    if unpadding is not None:
        index = unpadding.index.gather(1, index)
    return Unpadding(index, kept, places.lengths, slots.shape[1])


def _query_numbers(tokens: Tensor, info: CallInfo, new: int) -> Tensor:
    """The numbers [B, new] of the new queries of a head; padding counts as the last token.

    They are those of the new tokens of the call, or of its last tokens if there are fewer queries. If the call does not
    number its tokens, queries are taken for the tokens [B, N] of the last slots.
    """
    last = tokens.amax(dim=1, keepdim=True)
    if len(info.numbers) == len(tokens) and len(info.numbers[0]) >= new:
        numbers = torch.tensor([last_numbers(row, new) for row in info.numbers], device=tokens.device)
    else:
        numbers = tokens[:, -new:]
    return torch.where(numbers < 0, last, numbers)
