"""Which tokens of a call the cells hold already from earlier calls, so that each is written, and counted, once.

Results do not depend on it: the noise of a token belongs to its number, and cells are used again only for the same
token. Shapes: B samples, R heads, n tokens, d features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ohmformer.array.aging.unaged import Unaged
from ohmformer.array.folded import Folded
from ohmformer.array.programmed import Programmed
from ohmformer.nn.operands.kv_tokens import KVTokens
from ohmformer.nn.operands.unpad import Unpadding, unpad_where
from ohmformer.nn.shared.state import Moved
from ohmformer.streams import SampleStreams, TokenStreams

PARTS = ("targets", "written")
"""The conductances of `Unaged`."""


@dataclass(frozen=True, eq=False)
class WrittenTokens:
    """The tokens that one K or V wrote last.

    Attributes:
        settings: everything beside the tokens and their streams that decided how they were written.
        tokens: [B, R, n, d] tokens before conditioning.
        streams: keys of their write noise.
        cells: what the cells hold; of cells that age, as they were written.
    """

    settings: tuple[object, ...]
    tokens: Tensor
    streams: SampleStreams
    cells: Folded | Unaged

    def matches(self, batch: KVTokens, settings: tuple[object, ...]) -> bool:
        """True if the tokens of a call would be written in the same way, with noise of the same kind."""
        old, tokens = self.tokens, batch.tokens
        alike = old.shape[1::2] == tokens.shape[1::2] and (old.dtype, old.device) == (tokens.dtype, tokens.device)
        alike = alike and all(_same_setting(a, b) for a, b in zip(self.settings, settings, strict=True))
        return alike and type(self.streams) is type(batch.streams)


class TokenPlaces(NamedTuple):
    """Where each token of a call stands.

    Attributes:
        to_write: slots and places of the tokens to write.
        known: [B, n] True if the cells hold the token.
        row: [B] for each sample of the call, its number among the samples that cells hold.
        place: [B, n] the place among those of that sample.
    """

    to_write: Unpadding
    known: Tensor
    row: Tensor
    place: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """The tokens of a call: those to write, and those that cells hold.

    Attributes:
        to_write: tokens to write; None if the cells hold all.
        cells: what was written before; None if the cells hold none.
        lookup: where each token stands; None if those to write follow all others.
        moved: contradictions between cells and cached tokens; None if they were not compared.
    """

    to_write: KVTokens | None
    cells: Folded | Unaged | None = None
    lookup: TokenPlaces | None = None
    moved: frozenset[Moved] | None = None

    def merged(
        self, written: Folded | Programmed | Unaged | None, axis: str, *, token_ranges: bool
    ) -> Folded | Programmed | Unaged:
        """What the cells hold of all tokens of the call.

        Args:
            written: what they hold of `to_write`.
            axis: "K" (tokens are outputs) or "V" (tokens are inputs).
            token_ranges: each token has a range of its own.
        """
        if self.cells is None:
            assert written is not None
            return written
        if written is None:
            return self.cells
        old, variance, dim = self.cells, None, -2 if axis == "K" else -1
        if isinstance(old, Unaged):
            assert isinstance(written, Unaged)
            unit = self._joined(old.unit, written.unit, dim) if token_ranges and axis == "K" else written.unit
            normals = old.normals
            if normals is not None and written.normals is not None:
                normals = self._joined(normals, written.normals, dim)
            targets, held = (self._joined(getattr(old, each), getattr(written, each), dim) for each in PARTS)
            return replace(old, targets=targets, written=held, normals=normals, unit=unit)
        assert isinstance(written, Folded)
        weight = self._joined(old.weight, written.weight, dim)
        if old.variance is not None and written.variance is not None:
            variance = self._joined(old.variance, written.variance, dim)
        unit = self._joined(old.unit, written.unit, dim) if token_ranges and axis == "K" else written.unit
        return Folded(weight, variance, None, unit, written.slices)

    def _joined(self, old: Tensor, written: Tensor, dim: int) -> Tensor:
        """Values of all tokens along `dim`, from those of old and of written tokens."""
        if self.lookup is None:
            return torch.cat([old, written], dim=dim)
        to_write, known, row, place = self.lookup
        shape, size = [1] * old.dim(), list(old.shape)
        shape[0], shape[dim] = size[0], size[dim] = place.shape
        kept = old[row].gather(dim, place.reshape(shape).expand(size))
        return kept * known.reshape(shape).to(old.dtype) + to_write.scatter(written, dim)


def split(cache: WrittenTokens | None, batch: KVTokens, new: int, settings: tuple[object, ...]) -> Split:
    """Split the tokens of a call into those to write and those that cells hold.

    Args:
        cache: what was written last; None if nothing was.
        batch: the tokens of the call.
        new: the last `new` tokens of each sample are those of the call itself: they are written in any case.
        settings: as in `WrittenTokens`.
    """
    tokens, streams = batch.tokens, batch.streams
    if cache is None or not cache.matches(batch, settings):
        return Split(batch)
    if not isinstance(streams, TokenStreams):
        same = cache.streams == streams and torch.equal(cache.tokens, tokens)
        return Split(None, cache.cells) if same else Split(batch)
    if new >= tokens.shape[-2]:
        return Split(batch)
    assert isinstance(cache.streams, TokenStreams)
    n = cache.tokens.shape[-2]
    if _continues(cache.streams, streams, new) and torch.equal(cache.tokens, tokens[:, :, :n]):
        rest = TokenStreams(streams.streams, numbers=tuple(row[n:] for row in streams.numbers))
        to_write = _part(batch, rest, lambda t: t[:, :, n:] if t.shape[-2] > n else t)
        return Split(to_write, cache.cells, moved=frozenset())
    return _split_by_number(cache, cache.streams, batch, streams, new)


def _split_by_number(
    cache: WrittenTokens, before: TokenStreams, batch: KVTokens, streams: TokenStreams, new: int
) -> Split:
    """`split` where samples or tokens stand at other places than before: each token is looked up by its number."""
    tokens, device = batch.tokens, batch.tokens.device
    row = torch.tensor(_rows_before(before, streams), device=device)
    old_numbers = torch.tensor(before.numbers, device=device)
    numbers = torch.tensor(streams.numbers, device=device)
    in_row = torch.where((row < 0)[:, None], -1, old_numbers[row])
    order = in_row.argsort(dim=1)
    place = torch.searchsorted(in_row.gather(1, order), numbers).clamp(max=in_row.shape[1] - 1)
    place = order.gather(1, place)
    cached = (numbers >= 0) & (numbers <= numbers.amax(dim=1, keepdim=True) - new)
    numbered = cached & (in_row.gather(1, place) == numbers)
    index = place[:, None, :, None].expand(-1, tokens.shape[1], -1, tokens.shape[3])
    known = numbered & (cache.tokens[row].gather(-2, index) == tokens).all(dim=-1).all(dim=1)
    places = unpad_where((numbers >= 0) & ~known)
    rest = numbers.gather(1, places.index).masked_fill(~places.kept, -1).tolist()
    replaced = cached & ~known & (numbered | (row < 0)[:, None])
    same_sample = torch.tensor([[a == b for b in before.streams] for a in streams.streams], device=device)
    moved = _moved(cache.tokens, tokens, known, replaced, row, same_sample, old_numbers, numbers)
    n = tokens.shape[-2]
    rest_streams = TokenStreams(streams.streams, numbers=tuple(tuple(each) for each in rest))
    to_write = _part(batch, rest_streams, lambda t: places.gather(t, -2) if t.shape[-2] == n > 1 else t)
    return Split(to_write, cache.cells, TokenPlaces(places, known, row, place), moved)


def _part(batch: KVTokens, streams: TokenStreams, of: Callable[[Tensor], Tensor]) -> KVTokens:
    """Some tokens of a call; `of` takes their part of a tensor [B, R, n or 1, ...]."""
    values, code_range, column_range = (of(t) for t in (batch.values, batch.code_range, batch.column_range))
    return replace(batch, values=values, streams=streams, code_range=code_range, column_range=column_range)


def _rows_before(before: TokenStreams, now: TokenStreams) -> list[int]:
    """For each sample of a call, its row among those that were written; -1 if it was not.

    Several rows may have one name, such as samples that are drawn from one prompt. Then the same row comes first.
    """
    row_of = {stream: row for row, stream in enumerate(before.streams)}
    stays = [a == b for a, b in zip(before.streams, now.streams, strict=False)]
    return [
        row if row < len(stays) and stays[row] else row_of.get(stream, -1) for row, stream in enumerate(now.streams)
    ]


def _moved(
    old: Tensor,
    tokens: Tensor,
    known: Tensor,
    replaced: Tensor,
    row: Tensor,
    same_sample: Tensor,
    old_numbers: Tensor,
    numbers: Tensor,
) -> frozenset[Moved]:
    """How cells that hold old tokens contradict cached tokens [B, R, n, d]; see `Moved`.

    `known` [B, n] are tokens that cells hold, `replaced` are others that they should hold: another token has their
    number, or their sample was not written. Only the last one of each sample is looked for. `same_sample` [B, rows
    written] is True where a row that was written has the name of a sample: its tokens are those of that sample.
    """
    moved: set[Moved] = set()
    if bool((replaced.cumsum(dim=1).bool() & known).any()):
        moved.add("overwritten")
    for b in replaced.any(dim=1).nonzero().flatten().tolist():
        place = int(replaced[b].nonzero()[-1])
        equal = (old == tokens[b, None, :, place, None]).all(dim=-1).all(dim=1) & (old_numbers >= 0)
        if row[b] >= 0 and bool(equal[row[b]].any()):
            moved.add("number")
        if bool((equal & (old_numbers == numbers[b, place]) & ~same_sample[b, :, None]).any()):
            moved.add("sample")
    return frozenset(moved)


def _continues(old: TokenStreams, now: TokenStreams, new: int) -> bool:
    """True if the same samples have exactly `new` more tokens than before, behind all others."""
    if old.streams != now.streams:
        return False
    return all(
        row == before + tuple(range(row[0] + len(before), row[0] + len(before) + new)) and min(before) >= 0
        for before, row in zip(old.numbers, now.numbers, strict=True)
    )


def _same_setting(a: object, b: object) -> bool:
    """True if two settings are the same one, or equal; tensors are compared by identity."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))
