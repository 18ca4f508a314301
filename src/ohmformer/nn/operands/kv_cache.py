"""Which tokens of a call the cells hold already from earlier calls, so that each is written, and counted, once.

Results do not depend on it: the noise of a token belongs to its number, and cells are used again only for the same
token. Shapes: B samples, R heads, n tokens, d features.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ohmformer.array.aging.unaged import Unaged
from ohmformer.array.folded import Folded
from ohmformer.array.programmed import Programmed
from ohmformer.nn.operands.kv_tokens import KVTokens
from ohmformer.nn.operands.unpad import Unpadding, unpad_where
from ohmformer.nn.shared.state import Moved
from ohmformer.streams import SampleStreams, TokenStreams

if TYPE_CHECKING:
    from ohmformer.nn.operands.quick.appended import NextToken

BY_CELL: dict[type, tuple[str, ...]] = {Folded: ("values", "variance"), Unaged: ("targets", "written", "normals")}
"""What is known of each cell: names of tensors, some of which may be None."""


@dataclass(frozen=True, eq=False)
class WrittenTokens:
    """The tokens that one K or V wrote last.

    Attributes:
        settings: everything beside the tokens and their streams that decided how they were written.
        tokens: [B, R, n, d] tokens before conditioning.
        streams: keys of their write noise.
        cells: what the cells hold; of cells that age, as they were written.
        gain: [B, R, 1, n] factors of the inputs of V, see `KVTokens`; None for none.
        memory: where these tensors grow: name -> memory; empty until tokens are appended.
        following: how the next token is written in few steps, see `quick.appended`; None if that is not known.
        source: the tensor that the tokens were compared with, and its version; None if this is not known.
    """

    settings: tuple[object, ...]
    tokens: Tensor
    streams: SampleStreams
    cells: Folded | Unaged
    gain: Tensor | None = None
    memory: dict[str, Growing] = field(default_factory=dict)
    following: NextToken | None = None
    source: tuple[weakref.ref[Tensor], int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy does not know its source."""
        return WrittenTokens, tuple(getattr(self, each.name) for each in fields(self) if each.name != "source")

    def matches(self, tokens: Tensor, streams: SampleStreams, settings: tuple[object, ...]) -> bool:
        """True if the tokens of a call would be written in the same way, with noise of the same kind."""
        alike = type(self.streams) is type(streams)
        alike = alike and (self.tokens.dtype, self.tokens.device) == (tokens.dtype, tokens.device)
        alike = alike and self.tokens.shape[1::2] == tokens.shape[1::2]
        return alike and all(_same_setting(a, b) for a, b in zip(self.settings, settings, strict=True))

    def goes_on(self, tokens: Tensor, streams: SampleStreams, new: int, settings: tuple[object, ...]) -> bool:
        """True if the tokens of a call are these and `new` more behind them, and would be written in the same way."""
        if not isinstance(streams, TokenStreams) or new >= tokens.shape[-2]:
            return False
        if not self.matches(tokens, streams, settings):
            return False
        assert isinstance(self.streams, TokenStreams)
        return _continues(self.streams, streams, new) and same_bits(self.tokens, tokens[:, :, : -new or None])

    def appended(self, batch: KVTokens, streams: TokenStreams, written: Folded, axis: str) -> WrittenTokens:
        """These tokens and others behind them, in the memory of these: only what is new is copied.

        Args:
            batch: the other tokens.
            streams: keys of all tokens.
            written: what cells hold of the others.
            axis: "K" (tokens are outputs) or "V" (tokens are inputs).
        """
        cells, along, memory = self.cells, -2 if axis == "K" else -1, self.memory
        assert isinstance(cells, Folded)
        own_units = axis == "K" and cells.unit.shape[-2] == self.tokens.shape[-2] > 1
        tensors = dict[str, Any]()
        for name in ("values", "variance", *(("unit",) if own_units else ())):
            if getattr(cells, name) is not None:
                grown = memory.setdefault(name, Growing(getattr(cells, name), along))
                tensors[name] = grown.append(getattr(written, name))
        tokens = memory.setdefault("tokens", Growing(self.tokens, -2)).append(batch.tokens)
        gain = None
        if self.gain is not None and batch.gain is not None:
            gain = memory.setdefault("gain", Growing(self.gain, -1)).append(batch.gain)
        return replace(self, tokens=tokens, streams=streams, cells=replace(written, **tensors), gain=gain)

    def with_token(self, all_tokens: Tensor, streams: TokenStreams, values: Tensor, axis: str) -> WrittenTokens:
        """`appended` for the last token of all, of which cells hold `values` [B, R, 1, d], in units that stay."""
        token = all_tokens.narrow(2, self.tokens.shape[2], 1)
        cells, memory = self.cells, self.memory
        assert isinstance(cells, Folded)
        held = memory["values"].append(values if axis == "K" else values.mT)
        tokens, cells = memory["tokens"].append(token), Folded(held, None, None, cells.unit, cells.slices)
        source = None if all_tokens.is_inference() else (weakref.ref(all_tokens), all_tokens._version)
        return WrittenTokens(self.settings, tokens, streams, cells, None, memory, self.following, source)


class Growing:
    """A tensor that grows along an axis, in memory with room to spare. What `append` returned before stays as it is.

    Args:
        first: its first values.
        dim: the axis.
    """

    def __init__(self, first: Tensor, dim: int) -> None:
        self.memory, self.dim, self.size = first, dim, first.shape[dim]

    def append(self, values: Tensor) -> Tensor:
        """Append values; return a view of all."""
        end, dim = self.size + values.shape[self.dim], self.dim
        if end > self.memory.shape[dim] or self.memory.is_inference():
            before, shape = self.memory.narrow(dim, 0, self.size), list(self.memory.shape)
            shape[dim] = end + max(64, end // 4)
            with torch.inference_mode(False):  # later calls outside of this mode may append, too
                self.memory = torch.empty(shape, dtype=before.dtype, device=before.device)
            self.memory.narrow(dim, 0, self.size).copy_(before)
        self.memory.narrow(dim, self.size, end - self.size).copy_(values)
        self.size = end
        return self.memory.narrow(dim, 0, end)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """True if two tensors [B, R, n, d] of one shape and type hold the same bits; two numbers are compared at once."""
    pairs = a.dtype is torch.float32 and a.shape[-1] % 2 == 0 and a.stride(-1) == b.stride(-1) == 1
    if pairs and not any(t.storage_offset() % 2 or any(step % 2 for step in t.stride()[:-1]) for t in (a, b)):
        a, b = a.view(torch.int64), b.view(torch.int64)
    return torch.equal(a, b)


class TokenPlaces(NamedTuple):
    """Where each token of a call stands.

    Attributes:
        places: slots and places of the tokens to write.
        known: [B, n] True if the cells hold the token.
        row: [B] for each sample of the call, its number among the samples that cells hold.
        place: [B, n] the place among those of that sample.
    """

    places: Unpadding
    known: Tensor
    row: Tensor
    place: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """The tokens of a call: those to write, and those that cells hold.

    Attributes:
        batch: tokens to write; None if the cells hold all.
        cells: what was written before; None if the cells hold none.
        lookup: where each token stands; None if those to write follow all others.
        moved: contradictions between cells and cached tokens; None if they were not compared.
    """

    batch: KVTokens | None
    cells: Folded | Unaged | None = None
    lookup: TokenPlaces | None = None
    moved: frozenset[Moved] | None = None

    def merged(
        self, written: Folded | Programmed | Unaged | None, axis: str, *, token_ranges: bool
    ) -> Folded | Programmed | Unaged:
        """What the cells hold of all tokens of the call.

        Args:
            written: what they hold of `batch`.
            axis: "K" (tokens are outputs) or "V" (tokens are inputs).
            token_ranges: each token has a range of its own.
        """
        if self.cells is None:
            assert written is not None
            return written
        if written is None:
            return self.cells
        assert isinstance(written, type(self.cells))
        tensors, dim = dict[str, Any](), -2 if axis == "K" else -1
        for name in BY_CELL[type(written)] + (("unit",) if token_ranges and axis == "K" else ()):
            cells, new = getattr(self.cells, name), getattr(written, name)
            tensors[name] = None if cells is None or new is None else self._joined(cells, new, dim)
        return replace(written, **tensors)

    def _joined(self, cells: Tensor, written: Tensor, dim: int) -> Tensor:
        """Values of all tokens along `dim`, from those that cells hold and those that were written now."""
        if self.lookup is None:
            return torch.cat([cells, written], dim=dim)
        places, known, row, place = self.lookup
        shape, size = [1] * cells.dim(), list(cells.shape)
        shape[0], shape[dim] = size[0], size[dim] = place.shape
        cells = cells[row].gather(dim, place.reshape(shape).expand(size))
        return cells * known.reshape(shape).to(cells.dtype) + places.scatter(written, dim)


def split(cache: WrittenTokens | None, batch: KVTokens, new: int, settings: tuple[object, ...]) -> Split:
    """Split the tokens of a call into those to write and those that cells hold.

    Args:
        cache: what was written last; None if nothing was.
        batch: the tokens of the call.
        new: the last `new` tokens of each sample are those of the call itself: they are written in any case.
        settings: as in `WrittenTokens`.
    """
    tokens, streams = batch.tokens, batch.streams
    if cache is None or not cache.matches(tokens, streams, settings):
        return Split(batch)
    if not isinstance(streams, TokenStreams):
        same = cache.streams == streams and torch.equal(cache.tokens, tokens)
        return Split(None, cache.cells) if same else Split(batch)
    if new >= tokens.shape[-2]:
        return Split(batch)
    assert isinstance(cache.streams, TokenStreams)
    n = cache.tokens.shape[-2]
    if _continues(cache.streams, streams, new) and torch.equal(cache.tokens, tokens[:, :, :n]):
        rest = streams_from(streams, n)
        batch = _part(batch, rest, lambda t: t[:, :, n:] if t.shape[-2] > n else t)
        return Split(batch, cache.cells, moved=frozenset())
    return _split_by_number(cache, cache.streams, batch, streams, new)


def streams_from(streams: TokenStreams, n: int) -> TokenStreams:
    """The keys of all tokens but the first n of each sample."""
    return replace(streams, numbers=tuple(row[n:] for row in streams.numbers))


def _split_by_number(
    cache: WrittenTokens, before: TokenStreams, batch: KVTokens, streams: TokenStreams, new: int
) -> Split:
    """`split` where samples or tokens stand at other places than before: each token is looked up by its number."""
    tokens, device = batch.tokens, batch.tokens.device
    row = torch.tensor(_rows_before(before, streams), device=device)
    numbers = torch.tensor(streams.numbers, device=device)
    in_row = torch.where((row < 0)[:, None], -1, torch.tensor(before.numbers, device=device)[row])
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
    moved, n = _moved(cache, batch, known, replaced, row), tokens.shape[-2]
    rest_streams = TokenStreams(streams.streams, numbers=tuple(tuple(each) for each in rest))
    batch = _part(batch, rest_streams, lambda t: places.gather(t, -2) if t.shape[-2] == n > 1 else t)
    return Split(batch, cache.cells, TokenPlaces(places, known, row, place), moved)


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


def _moved(cache: WrittenTokens, batch: KVTokens, known: Tensor, replaced: Tensor, row: Tensor) -> frozenset[Moved]:
    """How what cells hold contradicts the cached tokens of a call; see `Moved`.

    `known` [B, n] are tokens that cells hold, `replaced` are others that they should hold: another token has their
    number, or their sample was not written. Only the last one of each sample is looked for.
    """
    before, streams = cache.streams, batch.streams
    assert isinstance(before, TokenStreams)
    assert isinstance(streams, TokenStreams)
    if not bool(replaced.any()):
        return frozenset()
    moved: set[Moved] = set()
    if bool((replaced.cumsum(dim=1).bool() & known).any()):
        moved.add("overwritten")
    numbers = torch.tensor(before.numbers, device=known.device)
    for b in replaced.any(dim=1).nonzero().flatten().tolist():
        place = int(replaced[b].nonzero()[-1])
        equal = (cache.tokens == batch.tokens[b, None, :, place, None]).all(dim=-1).all(dim=1) & (numbers >= 0)
        if row[b] >= 0 and bool(equal[row[b]].any()):
            moved.add("number")
        others = torch.tensor([stream != streams.streams[b] for stream in before.streams], device=known.device)
        if bool((equal & (numbers == streams.numbers[b][place]) & others[:, None]).any()):
            moved.add("sample")
    return frozenset(moved)


def _continues(before: TokenStreams, now: TokenStreams, new: int) -> bool:
    """True if the same samples have exactly `new` more tokens than before, behind all others."""
    if before.streams != now.streams:
        return False
    return all(map(_goes_on, before.numbers, now.numbers, repeat(new, len(now.numbers))))


def _goes_on(earlier: tuple[int, ...], row: tuple[int, ...], new: int) -> bool:
    """`_continues` for the numbers of one sample."""
    n = len(earlier)
    ends = row[n:] == tuple(range(row[0] + n, row[0] + n + new))
    return ends and row[:n] == earlier and min(earlier) >= 0


def _same_setting(a: object, b: object) -> bool:
    """True if two settings are the same one, or equal; tensors are compared by identity."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))
