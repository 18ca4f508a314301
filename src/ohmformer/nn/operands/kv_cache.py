"""What the cells of a cache hold already, so that a token is written once, and what stands there is checked.

The result is the same without: a token's noise belongs to its number. Shapes: B samples, R heads, n tokens, d features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ohmformer.array.folded import Folded
from ohmformer.errors import BadInput
from ohmformer.nn.operands.unpad import Compaction, compaction
from ohmformer.streams import SampleStreams, TokenStreams


@dataclass(frozen=True)
class Memory:
    """What was written at the last call.

    Attributes:
        conditions: what decided how, beside the tokens and their streams.
        tokens: [B, R, n, d].
        streams: what their noise belongs to.
        held: what the cells hold of them.
    """

    conditions: tuple[object, ...]
    tokens: Tensor
    streams: SampleStreams
    held: Folded

    def speaks_of(self, tokens: Tensor, streams: SampleStreams, conditions: tuple[object, ...]) -> bool:
        """Whether the same samples were written in the same way."""
        old = self.tokens
        alike = old.shape[:2] == tokens.shape[:2] and old.shape[3] == tokens.shape[3]
        alike = alike and old.dtype == tokens.dtype and old.device == tokens.device
        same = all(a is b or a == b for a, b in zip(self.conditions, conditions, strict=True))
        return alike and same and type(self.streams) is type(streams) and self.streams.streams == streams.streams

    def ring(self, tokens: Tensor, streams: SampleStreams, queries: int) -> SampleStreams:
        """The streams of tokens[B, R, n, d] where a full cache gives the place of its oldest tokens to new ones.

        In every sample as many places as there are queries hold other tokens than before: they are the new ones. In
        all other cases the streams are as given: also where all tokens moved up, which repeated words can hide.
        """
        if not isinstance(streams, TokenStreams) or not isinstance(self.streams, TokenStreams):
            return streams
        if tokens.shape != self.tokens.shape or queries >= tokens.shape[-2] or self.streams.present != streams.present:
            return streams
        other = (tokens != self.tokens).any(dim=-1).any(dim=1)
        if not bool((other.sum(dim=1) == queries).all()) or self._moved_up(tokens, self.streams, queries):
            return streams
        numbers = [_overwritten(old, new) for old, new in zip(self.streams.numbers, other.tolist(), strict=True)]
        return replace(streams, numbers=tuple(numbers))

    def _moved_up(self, tokens: Tensor, streams: TokenStreams, queries: int) -> bool:
        """Whether tokens[B, R, n, d] may be the old ones, in order, without the first `queries` of them."""
        numbers = torch.tensor(streams.numbers, device=tokens.device)
        first, last = numbers[:, :-1], numbers[:, 1:]
        in_order = bool(((last > first) | (last < 0)).all())
        same = (tokens[:, :, :-queries] == self.tokens[:, :, queries:]).all(dim=-1).all(dim=1)
        return in_order and bool((same | (numbers[:, queries:] < 0)).all())

    def check_rows(self, tokens: Tensor, streams: SampleStreams, queries: int, name: str) -> None:
        """Refuse cached tokens of samples that were in the last batch too, if they are others than they were there.

        Raises:
            BadInput: as `Overlap.check`.
        """
        old = self.streams
        if not isinstance(streams, TokenStreams) or not isinstance(old, TokenStreams):
            return
        if tokens.shape[0] == self.tokens.shape[0] or tokens.shape[1::2] != self.tokens.shape[1::2]:
            return
        pairs = [(old.streams.index(s), n) for n, s in enumerate(streams.streams) if s in old.streams]
        if not pairs:
            return
        before, now = [a for a, _ in pairs], [b for _, b in pairs]
        same = Memory(self.conditions, self.tokens[before], _rows(old, before), self.held)
        own = _rows(streams, now)
        same.overlap(own).check(same.tokens, tokens[now], queries, name)

    def overlap(self, streams: TokenStreams) -> Overlap:
        """Which of the tokens with these streams are held already."""
        assert isinstance(self.streams, TokenStreams)
        device = self.tokens.device
        old = torch.tensor(self.streams.numbers, device=device)
        new = torch.tensor(streams.numbers, device=device)
        order = old.argsort(dim=1)
        found = torch.searchsorted(old.gather(1, order), new).clamp(max=old.shape[1] - 1)
        place = order.gather(1, found)
        return Overlap(place, (new >= 0) & (old.gather(1, place) == new), new)


def _rows(streams: TokenStreams, rows: list[int]) -> TokenStreams:
    """The streams of some rows."""
    return TokenStreams(tuple(streams.streams[n] for n in rows), numbers=tuple(streams.numbers[n] for n in rows))


def _overwritten(numbers: tuple[int, ...], new: list[bool]) -> tuple[int, ...]:
    """Numbers of tokens by place, after new ones took some places: in order, beginning behind the last one written."""
    last = max(numbers)
    begin = numbers.index(last) + 1
    order = [place % len(numbers) for place in range(begin, begin + len(numbers)) if new[place % len(numbers)]]
    later = {place: last + 1 + n for n, place in enumerate(order)}
    return tuple(later.get(place, number) for place, number in enumerate(numbers))


@dataclass(frozen=True)
class Overlap:
    """Which tokens are held already.

    Attributes:
        place: [B, n] where each of the tokens now stands among those that are held.
        held: [B, n] whether it does.
        numbers: [B, n] of the tokens now; negative where there is none.
    """

    place: Tensor
    held: Tensor
    numbers: Tensor

    @cached_property
    def new(self) -> Compaction | None:
        """The tokens that must be written; None where there are none."""
        fresh = (self.numbers >= 0) & ~self.held
        if not bool(fresh.any()):
            return None
        lengths = tuple(fresh.sum(dim=1).tolist())
        return compaction(fresh, len(fresh)) or Compaction(
            torch.arange(fresh.shape[1], device=fresh.device).expand_as(fresh), lengths, fresh.shape[1]
        )

    def check(self, old: Tensor, now: Tensor, queries: int, name: str) -> None:
        """Refuse tokens[B, R, n, d] of a cache that are not those that were written.

        Raises:
            BadInput: there are such tokens.
        """
        last = self.numbers.amax(dim=1, keepdim=True)
        cached = self.held & (self.numbers <= last - queries)
        index = self.place[:, None, :, None].expand(-1, old.shape[1], -1, old.shape[3])
        same = (old.gather(-2, index) == now).all(dim=-1).all(dim=1)
        if bool((cached & ~same).any()):
            raise BadInput(
                f"{name}: the cache holds other tokens than were written for this sample; beam search and other "
                "reordering of a cache would move what stands in cells: use greedy search or sampling, and name the "
                "samples of texts that take turns"
            )
        self.held.logical_and_(same)

    def new_streams(self, streams: TokenStreams) -> TokenStreams:
        """The streams of the tokens that must be written."""
        new = self.new
        assert new is not None
        numbers = self.numbers.gather(1, new.index).masked_fill(~new.kept, -1).tolist()
        return TokenStreams(streams.streams, numbers=tuple(tuple(row) for row in numbers))

    def merged(self, old: Folded, written: Folded | None, axis: str, *, own_units: bool) -> Folded:
        """What the cells hold in the end; with `own_units` each output has a unit of its own."""
        dim = -2 if axis == "K" else -1
        weight = self._joined(old.weight, None if written is None else written.weight, dim)
        variance = None
        if old.variance is not None:
            variance = self._joined(old.variance, None if written is None else written.variance, dim)
        unit = old.unit
        if own_units and axis == "K":
            unit = self._joined(old.unit, None if written is None else written.unit, dim)
        return Folded(weight, variance, None, unit)

    def _joined(self, before: Tensor, after: Tensor | None, dim: int) -> Tensor:
        """Tokens along `dim` that are held, and those that were written now."""
        shape = [1] * before.dim()
        shape[0], shape[dim] = self.place.shape
        size = list(before.shape)
        size[dim] = shape[dim]
        kept = before.gather(dim, self.place.reshape(shape).expand(size)) * self.held.reshape(shape).to(before.dtype)
        new = self.new
        return kept if after is None or new is None else kept + new.scatter(after, dim)
