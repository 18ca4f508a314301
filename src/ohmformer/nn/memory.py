"""What the cells of a cache hold already, so that a token is written once, and what stands there is checked.

The result is the same without: a token's noise belongs to its number. Shapes: B samples, R heads, n tokens, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array.folded import Folded
from ohmformer.errors import BadInput
from ohmformer.nn.compaction import Compaction, compaction
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

    def overlap(self, streams: TokenStreams) -> Overlap:
        """Which of the tokens with these streams are held already."""
        assert isinstance(self.streams, TokenStreams)
        device = self.tokens.device
        old = torch.tensor(self.streams.numbers, device=device)
        new = torch.tensor(streams.numbers, device=device)
        place = new - old[:, :1].clamp(min=0)
        inside = (new >= 0) & (place >= 0) & (place < old.shape[1])
        place = place.clamp(0, old.shape[1] - 1)
        return Overlap(place, inside & (old.gather(1, place) == new), new)


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

    @property
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
                "reordering of a cache would move what stands in cells: use greedy search or sampling"
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
