"""The tokens that the cells of a KV cache hold already, so that each is written, and counted, once.

Results do not depend on it: a token's noise belongs to its number, and what cells hold is used again only for the very
same token. Shapes: B samples, R heads, n tokens, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array.folded import Folded
from ohmformer.nn.operands.state import Moved
from ohmformer.nn.operands.unpad import Unpadding, unpad_where
from ohmformer.streams import SampleStreams, TokenStreams


@dataclass(frozen=True, eq=False)
class WrittenTokens:
    """What was written last.

    Attributes:
        settings: what decided how, beside the tokens and their streams.
        tokens: [B, R, n, d] the tokens as they came.
        streams: what their noise belongs to.
        held: what the cells hold of them.
    """

    settings: tuple[object, ...]
    tokens: Tensor
    streams: SampleStreams
    held: Folded

    def matches(self, tokens: Tensor, streams: SampleStreams, settings: tuple[object, ...]) -> bool:
        """True if tokens[B, R, n, d] would be written in the same way, with noise of the same kind."""
        old = self.tokens
        alike = old.shape[1::2] == tokens.shape[1::2] and (old.dtype, old.device) == (tokens.dtype, tokens.device)
        alike = alike and all(_same(a, b) for a, b in zip(self.settings, settings, strict=True))
        return alike and type(self.streams) is type(streams)

    def equals(self, tokens: Tensor, streams: SampleStreams) -> bool:
        """True if just these tokens[B, R, n, d] were written, with the noise of these streams."""
        return self.streams == streams and torch.equal(self.tokens, tokens)

    def split(self, tokens: Tensor, streams: TokenStreams, new: int) -> Split:
        """Which of tokens[B, R, n, d] the cells hold, and which have to be written.

        The last `new` tokens of each sample come with this call: they are written whatever the cells hold.
        """
        assert isinstance(self.streams, TokenStreams)
        n = self.tokens.shape[-2]
        if _continues(self.streams, streams, new) and torch.equal(self.tokens, tokens[:, :, :n]):
            return Split(TokenStreams(streams.streams, numbers=tuple(row[n:] for row in streams.numbers)), first=n)
        where = {stream: row for row, stream in enumerate(self.streams.streams)}
        rows = torch.tensor([where.get(stream, -1) for stream in streams.streams], device=tokens.device)
        before = torch.tensor(self.streams.numbers, device=tokens.device)
        own = torch.where((rows < 0)[:, None], -1, before[rows])
        numbers = torch.tensor(streams.numbers, device=tokens.device)
        order = own.argsort(dim=1)
        place = order.gather(1, torch.searchsorted(own.gather(1, order), numbers).clamp(max=n - 1))
        cached = (numbers >= 0) & (numbers <= numbers.amax(dim=1, keepdim=True) - new)
        there = cached & (own.gather(1, place) == numbers)
        index = place[:, None, :, None].expand(-1, tokens.shape[1], -1, tokens.shape[3])
        known = there & (self.tokens[rows].gather(-2, index) == tokens).all(dim=-1).all(dim=1)
        to_write = unpad_where((numbers >= 0) & ~known)
        left = numbers.gather(1, to_write.index).masked_fill(~to_write.kept, -1).tolist()
        replaced = cached & ~known & (there | (rows < 0)[:, None])
        moved = self._moved(tokens, known, replaced, rows, before, numbers)
        fresh = TokenStreams(streams.streams, numbers=tuple(tuple(row) for row in left))
        return Split(fresh, to_write=to_write, known=known, rows=rows, place=place, moved=moved)

    def _moved(
        self, tokens: Tensor, known: Tensor, replaced: Tensor, rows: Tensor, before: Tensor, numbers: Tensor
    ) -> frozenset[Moved]:
        """How the cells contradict tokens [B, n], some of which are `known`, and some `replaced` others.

        So do, as it were, those of samples that were not written. Of each sample only the last one is looked for.
        """
        found: set[Moved] = set()
        if bool((replaced.cumsum(dim=1).bool() & known).any()):
            found.add("overwritten")
        for b in replaced.any(dim=1).nonzero().flatten().tolist():
            place = int(replaced[b].nonzero()[-1])
            equal = (self.tokens == tokens[b, None, :, place, None]).all(dim=-1).all(dim=1) & (before >= 0)
            if rows[b] >= 0 and bool(equal[rows[b]].any()):
                found.add("number")
            if bool((equal & (before == numbers[b, place])).any()):
                found.add("sample")
        return frozenset(found)


@dataclass(frozen=True, eq=False)
class Split:
    """Tokens [B, R, n, d] of which the cells hold some.

    Attributes:
        streams: what the noise of those belongs to that have to be written.
        first: where these begin, if all tokens before them are held in the same order; None if not.
        to_write: where they stand, otherwise.
        known: [B, n] whether a token is held.
        rows: [B] as which of the samples that were written.
        place: [B, n] at which place of that sample.
        moved: how the cells contradict cached tokens that they do not hold.
    """

    streams: TokenStreams
    first: int | None = None
    to_write: Unpadding | None = None
    known: Tensor | None = None
    rows: Tensor | None = None
    place: Tensor | None = None
    moved: frozenset[Moved] = frozenset()

    def new(self, t: Tensor) -> Tensor:
        """Of t[B, R, n, ...], or of what is the same for all tokens [B, R, 1, ...], what belongs to tokens to write."""
        if self.first is not None:
            return t[:, :, self.first :] if t.shape[-2] > self.first else t
        assert self.to_write is not None
        assert self.known is not None
        return self.to_write.gather(t, -2) if t.shape[-2] == self.known.shape[1] > 1 else t

    def merged(self, old: Folded, written: Folded, axis: str, *, own_units: bool) -> Folded:
        """What the cells hold in the end; with `own_units` each output has a unit of its own."""
        dim = -2 if axis == "K" else -1
        weight = self._joined(old.weight, written.weight, dim)
        variance = None
        if old.variance is not None and written.variance is not None:
            variance = self._joined(old.variance, written.variance, dim)
        unit = self._joined(old.unit, written.unit, dim) if own_units and axis == "K" else written.unit
        return Folded(weight, variance, None, unit)

    def _joined(self, before: Tensor, after: Tensor, dim: int) -> Tensor:
        """Tokens along `dim` that are held, and those that were written now."""
        if self.first is not None:
            return torch.cat([before, after], dim=dim)
        assert self.known is not None
        assert self.rows is not None
        assert self.place is not None
        assert self.to_write is not None
        shape = [1] * before.dim()
        shape[0], shape[dim] = self.place.shape
        size = list(before.shape)
        size[0], size[dim] = self.place.shape
        kept = before[self.rows].gather(dim, self.place.reshape(shape).expand(size))
        return kept * self.known.reshape(shape).to(before.dtype) + self.to_write.scatter(after, dim)


def _continues(old: TokenStreams, now: TokenStreams, new: int) -> bool:
    """True if the same samples have just `new` more tokens than before, behind all others."""
    if old.streams != now.streams:
        return False
    return all(
        row == before + tuple(range(row[0] + len(before), row[0] + len(before) + new)) and min(before) >= 0
        for before, row in zip(old.numbers, now.numbers, strict=True)
    )


def _same(a: object, b: object) -> bool:
    """True if two settings are the same one, or equal; tensors are compared by identity."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))
