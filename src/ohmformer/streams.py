"""Random streams keyed by the physical thing they belong to.

A stream is derived by hashing what it belongs to (seed, chip, sample, layer, operand), never taken from a global
generator. So the same thing draws the same noise whatever the batch size, the order of layers, the number of workers
or threads, or a resumed run. Numbers are always drawn in float32 on the target device, and cast afterwards.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from operator import index
from typing import TYPE_CHECKING, ClassVar, Self

from ohmformer.errors import BadInput

if TYPE_CHECKING:
    import torch

Part = int | str
_samples: ContextVar[tuple[Part, ...] | None] = ContextVar("samples", default=None)


class UnnamedSamples(UserWarning):
    """A converted model was called outside `with samples(ids):`, so its rows are samples 0..B-1."""


@dataclass(frozen=True)
class Stream:
    """A random stream: the tuple of what it belongs to.

    `Stream(0).child("chip", 3, "layer", "blocks.0.attn", "write")` always draws the same numbers.
    """

    key: tuple[Part, ...]

    def __init__(self, *key: Part) -> None:
        object.__setattr__(self, "key", key)

    def child(self, *parts: Part) -> Stream:
        """The stream of something that belongs to this one."""
        return Stream(*self.key, *parts)

    @property
    def seed(self) -> int:
        """63 bits that identify the stream: BLAKE2 of the key. Torch's CPU generator uses 32 of them."""
        digest = hashlib.blake2b(json.dumps(self.key).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def open(self, device: torch.device | str = "cpu") -> Source:
        """The numbers of the stream, from its start, one draw after the other."""
        return Source(_generator(self, device))

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first standard normals, of the given shape, on the device and in the dtype of `like`."""
        return self.open(like.device).normal(*shape, like=like)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first uniform numbers in [0, 1); otherwise like `normal`."""
        return self.open(like.device).uniform(*shape, like=like)


@dataclass(frozen=True)
class SampleStreams:
    """One stream per sample of a batch: what `Stream` is to a single thing, for the leading axis of a tensor.

    Attributes:
        streams: one per sample.
        lengths: how many places each sample has along the last axis but one, where that differs; the rest of a row
            belongs to nothing and is zero. So a sample draws what it would draw alone.
    """

    streams: tuple[Stream, ...]
    lengths: tuple[int, ...] | None = None

    @property
    def present(self) -> int | None:
        """How many places of all samples hold something; None where all do."""
        return None if self.lengths is None else sum(self.lengths)

    def child(self, *parts: Part) -> Self:
        """The streams of something that belongs to each sample."""
        return replace(self, streams=tuple(stream.child(*parts) for stream in self.streams))

    def open(self, device: torch.device | str = "cpu") -> Source:
        """The numbers of the streams, from their start, one draw after the other."""
        return SampleSource(tuple(_generator(stream, device) for stream in self.streams), self.lengths)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The first standard normals [len(streams), ...]; `shape` is the whole shape, its first axis the samples."""
        return self.open(like.device).normal(*shape, like=like)


@dataclass(frozen=True)
class PaddedStreams(SampleStreams):
    """One stream per sample for results [B, ..., M, O] of which padding takes a part: it draws nothing.

    So a sample draws what it would draw alone and without padding, wherever its padding stands.

    Attributes:
        places: M; tensors of another shape are drawn whole.
        rows: for each sample, which of M are its own; None where all are.
        columns: for each sample, how many of O are its own, the first ones; None where all are.
    """

    places: int = 0
    rows: tuple[tuple[int, ...], ...] | None = None
    columns: tuple[int, ...] | None = None

    def open(self, device: torch.device | str = "cpu") -> Source:
        """The numbers of the streams, from their start, one draw after the other."""
        return PaddedSource(tuple(_generator(stream, device) for stream in self.streams), None, self)


@dataclass(frozen=True)
class TokenStreams(SampleStreams):
    """One stream per token of every sample, for the first axis of a tensor and its last but one.

    What a token draws depends on its number alone: not on how many tokens come with it, nor on where they stand.

    Attributes:
        numbers: for each sample, the number of the token at each place; negative where there is none: it draws zeros.
        growing: the last axis may be longer another time, and then starts with the same numbers (on the CPU).
    """

    numbers: tuple[tuple[int, ...], ...] = ()
    growing: bool = False

    @property
    def present(self) -> int | None:
        """How many places of all samples hold a token."""
        return sum(n >= 0 for numbers in self.numbers for n in numbers)

    def open(self, device: torch.device | str = "cpu") -> Source:
        """The numbers of the streams, from their start, one draw after the other."""
        tokens = tuple(
            tuple(_generator(stream.child("token", n), device) if n >= 0 else None for n in numbers)
            for stream, numbers in zip(self.streams, self.numbers, strict=True)
        )
        return TokenSource(tokens, self.growing, SampleStreams(self.streams))


@dataclass(frozen=True)
class Source:
    """Random numbers of one stream, drawn one tensor after the other."""

    generator: torch.Generator

    by_sample: ClassVar[bool] = False

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next standard normals, of the given shape, on the device and in the dtype of `like`."""
        return _empty(shape, like).normal_(generator=self.generator).to(like.dtype)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next uniform numbers in [0, 1), of the given shape, on the device and in the dtype of `like`."""
        return _empty(shape, like).uniform_(generator=self.generator).to(like.dtype)


@dataclass(frozen=True)
class SampleSource(Source):
    """Random numbers of which row b of each tensor is generator b's."""

    generator: tuple[torch.Generator, ...]  # type: ignore[assignment]
    lengths: tuple[int, ...] | None = None

    by_sample: ClassVar[bool] = True

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next standard normals, of the given shape, on the device and in the dtype of `like`."""
        if not shape or shape[0] != len(self.generator):
            rows = shape[0] if shape else 1
            raise BadInput(f"a batch of {rows} rows for {len(self.generator)} samples; name one sample per row")
        drawn = _empty(shape, like)
        if self.lengths is None or shape[-2] != max(self.lengths):
            for row, generator in zip(drawn.unbind(0), self.generator, strict=True):
                row.normal_(generator=generator)
            return drawn.to(like.dtype)
        drawn.zero_()
        for row, generator, n in zip(drawn.unbind(0), self.generator, self.lengths, strict=True):
            row[..., :n, :] = _empty((*shape[1:-2], n, shape[-1]), like).normal_(generator=generator)
        return drawn.to(like.dtype)


@dataclass(frozen=True)
class PaddedSource(SampleSource):
    """Random numbers of which row b is generator b's, and zero at padding."""

    of: PaddedStreams | None = None

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next standard normals [B, ..., M, O], of the given shape, on the device and in the dtype of `like`."""
        assert self.of is not None
        rows, columns = self.of.rows, self.of.columns
        whole = shape[-2] != self.of.places or (columns is not None and shape[-1] != max(1, *columns))
        if whole or shape[0] != len(self.generator):
            return super().normal(*shape, like=like)
        drawn = _empty(shape, like).zero_()
        for b, (row, generator) in enumerate(zip(drawn.unbind(0), self.generator, strict=True)):
            own = list(range(shape[-2])) if rows is None else list(rows[b])
            n = shape[-1] if columns is None else columns[b]
            row[..., own, :n] = _empty((*shape[1:-2], len(own), n), like).normal_(generator=generator)
        return drawn.to(like.dtype)


@dataclass(frozen=True)
class TokenSource(Source):
    """Random numbers of which place n of row b is the generator's of that token."""

    generator: tuple[tuple[torch.Generator | None, ...], ...]  # type: ignore[assignment]
    growing: bool
    others: SampleStreams
    """What places that are no tokens belong to, such as reference columns."""
    places: dict[int, Source] = field(default_factory=dict)

    by_sample: ClassVar[bool] = True

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next standard normals [B, ..., N, X], of the given shape, on the device and in the dtype of `like`."""
        B, *middle, N, X = shape
        if len(self.generator) != B or any(len(tokens) != N for tokens in self.generator):
            if N not in self.places:
                numbers = tuple(tuple(range(N)) for _ in range(B))
                self.places[N] = TokenStreams(self.others.child("place").streams, numbers=numbers).open(like.device)
            return self.places[N].normal(*shape, like=like)
        # Torch fills blocks of 16 in order, so a tensor whose size is a multiple of that starts like a shorter one.
        wide = -(-X // 16) * 16
        drawn = _empty((B, N, wide, *middle) if self.growing else (B, N, *middle, X), like).zero_()
        for row, generators in zip(drawn.unbind(0), self.generator, strict=True):
            for place, generator in zip(row.unbind(0), generators, strict=True):
                if generator is not None:
                    place.normal_(generator=generator)
        drawn = drawn[:, :, :X].movedim(2, -1) if self.growing else drawn
        return drawn.movedim(1, -2).to(like.dtype)


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.empty(tuple(shape), dtype=torch.float32, device=like.device)


def _generator(stream: Stream, device: torch.device | str) -> torch.Generator:
    import torch

    return torch.Generator(device).manual_seed(stream.seed)


Streams = Stream | SampleStreams


def _names(ids: Iterable[Part]) -> tuple[Part, ...]:
    remedy = "pass one integer or string per row of the batch, such as samples(range(32))"
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise BadInput(f"samples(ids): {ids!r} is no list of ids; {remedy}")
    names: list[Part] = []
    for name in ids:
        try:
            names.append(name if isinstance(name, str) else index(name))
        except TypeError:
            raise BadInput(f"samples(ids): the id {name!r} is neither an integer nor a string; {remedy}") from None
    if not names:
        raise BadInput(f"samples(ids) names no sample; {remedy}")
    return tuple(names)


@contextmanager
def samples(ids: Iterable[Part]) -> Iterator[None]:
    """Name the samples that the rows of the batches inside are, so that each draws its own noise.

    Keep `loss.backward()` inside the block where layers are recomputed for it (gradient checkpointing).

    Args:
        ids: one integer or string per row of the batch. NumPy and torch integers are taken as integers.

    Raises:
        BadInput: an id is anything else, or there are none.
    """
    token = _samples.set(_names(ids))
    try:
        yield
    finally:
        _samples.reset(token)


def current_samples() -> tuple[Part, ...] | None:
    """The names given with `samples`, or None outside of it."""
    return _samples.get()


def sample_streams(stream: Stream, rows: int, names: tuple[Part, ...] | None = None) -> SampleStreams:
    """The streams of the rows of a batch under `stream`, by the names given with `samples`, or else by `names`.

    Raises:
        BadInput: the batch has another number of rows than there are names.
    """
    names = _samples.get() or names
    if names is None:
        warnings.warn(
            "called outside `with ohmformer.samples(ids):`, so the rows of every batch are samples 0..B-1 and two "
            "batches draw the same noise",
            UnnamedSamples,
            stacklevel=2,
        )
        names = tuple(range(rows))
    if len(names) != rows:
        raise BadInput(f"samples(ids) names {len(names)} samples but the batch has {rows} rows; name one per row")
    return SampleStreams(tuple(stream.child("sample", name) for name in names))
