"""Random streams, keyed by the physical thing to which the numbers belong.

The seed of a stream is a hash of its key (seed, chip, sample, layer, operand, ...); there is no global generator. The
same thing therefore draws the same noise, regardless of batch size, order of layers, number of workers or threads, and
interruptions. Numbers are always drawn in float32 on the target device, and cast afterward.

A stream is a frozen key; `open` gives a `RandomSource`, which draws its numbers one tensor after another. Four kinds
differ in which part of a tensor belongs to which key:

| stream          | source         | tensor         | keys                                                  |
|-----------------|----------------|----------------|-------------------------------------------------------|
| `Stream`        | `StreamSource` | any shape      | one for the whole tensor (weights of a chip)          |
| `SampleStreams` | `SampleSource` | [B, ..., N, X] | one per sample                                        |
| `PaddedStreams` | `PaddedSource` | [B, ..., M, O] | one per sample; padding draws nothing                 |
| `TokenStreams`  | `TokenSource`  | [B, ..., N, X] | one per token of each sample (causal models, caches)  |
"""

from __future__ import annotations

import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from operator import index
from typing import TYPE_CHECKING, ClassVar, Self

from ohmformer.errors import BadInput, one_line

if TYPE_CHECKING:
    import torch

Part = int | str
"""One part of the key of a stream."""
BLOCK = 16
"""Numbers that torch's normal_ fills at a time on the CPU."""
_samples: ContextVar[tuple[Part, ...] | None] = ContextVar("samples", default=None)


class UnnamedSamples(UserWarning):
    """A converted model was called outside `with samples(ids):`, so its rows are samples 0..B-1."""


@dataclass(frozen=True)
class Stream:
    """One random stream; its key is the path to the thing whose noise it draws.

    `Stream(0).child("chip", 3, "layer", "blocks.0.attn", "write")` always draws the same numbers.
    """

    key: tuple[Part, ...]

    def __init__(self, *key: Part) -> None:
        object.__setattr__(self, "key", key)

    def child(self, *parts: Part) -> Stream:
        """The stream of a part of the thing to which this stream belongs."""
        return Stream(*self.key, *parts)

    @property
    def seed(self) -> int:
        """63 bits that identify the stream: BLAKE2 of the key. Torch's CPU generator uses 32 of them."""
        digest = hashlib.blake2b(json.dumps(self.key).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """A source of the numbers of the stream, from its start."""
        return StreamSource(_generator(self, device))

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first standard normals, of the given shape, on the device and in the dtype of `like`."""
        return self.open(like.device).normal(*shape, like=like)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first uniform numbers in [0, 1); otherwise like `normal`."""
        uniform = _empty(shape, like).uniform_(generator=_generator(self, like.device))
        return uniform.to(like.dtype)


@dataclass(frozen=True)
class SampleStreams:
    """One stream per sample of a batch, for tensors [B, ..., N, X] whose first axis is the samples.

    Row b of a tensor is drawn from stream b alone, so a sample draws what it would draw in a batch of one.

    Attributes:
        streams: B streams.
        lengths: for each sample, the number of places along axis N that hold values; the remaining places are zero.
            None if all places hold values.
    """

    streams: tuple[Stream, ...]
    lengths: tuple[int, ...] | None = None

    @property
    def present(self) -> int | None:
        """Number of places of all samples that hold values; None if all places do."""
        return None if self.lengths is None else sum(self.lengths)

    def child(self, *parts: Part) -> Self:
        """The streams of a part of each sample."""
        return replace(self, streams=tuple(stream.child(*parts) for stream in self.streams))

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """A source of the numbers of the streams, from their start."""
        return SampleSource(tuple(_generator(stream, device) for stream in self.streams), self.lengths)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The first standard normals [len(streams), ...]; `shape` is the whole shape, its first axis the samples."""
        return self.open(like.device).normal(*shape, like=like)


@dataclass(frozen=True)
class PaddedStreams(SampleStreams):
    """One stream per sample for results [B, ..., M, O] with padding anywhere along M and at the end of O.

    Padding draws nothing and is zero, so a sample draws what it would draw without padding.

    Example: with M = 4 and rows = ((0, 1, 2, 3), (2, 3)), sample 1 has two tokens behind two places of padding. Its
    places 2 and 3 hold the numbers that places 0 and 1 hold when the sample runs alone with M = 2.

    Attributes:
        places: M. Tensors with another M are drawn without regard to padding.
        rows: for each sample, its places along M; None if it has all of them.
        columns: for each sample, the number of its outputs, which come first along O; None if it has all of them.
        inputs: for each sample, the number of its inputs of the product, likewise; for tensors [B, ..., M, I].
    """

    places: int = 0
    rows: tuple[tuple[int, ...], ...] | None = None
    columns: tuple[int, ...] | None = None
    inputs: tuple[int, ...] | None = None

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """A source of the numbers of the streams, from their start."""
        samples = SampleSource(tuple(_generator(stream, device) for stream in self.streams))
        return PaddedSource(samples, self.places, self.rows, self.columns)


@dataclass(frozen=True)
class TokenStreams(SampleStreams):
    """One stream per token of each sample, for tensors [B, ..., N, X] whose axis N is the tokens.

    The numbers of a token depend only on its stream and its number, not on how many other tokens there are or where it
    stands.

    Example: numbers = ((0, 1, 2), (-1, 0, 1)) is a batch of two samples, the second of which is padded on the left.
    Entry [0, ..., 1, :] of a tensor is drawn from `streams[0].child("token", 1)`, entry [1, ..., 2, :] from
    `streams[1].child("token", 1)`, and entry [1, ..., 0, :] is zero. A later call with numbers = ((3,), (2,)) draws the
    numbers of the next token, as one call with all four places would.

    Attributes:
        numbers: for each sample, the number of the token at each place; negative if the place holds no token.
        growing: True if axis X grows from call to call: a longer X then starts with the numbers of a shorter one (on
            the CPU).
    """

    numbers: tuple[tuple[int, ...], ...] = ()
    growing: bool = False

    @property
    def present(self) -> int | None:
        """Number of places of all samples that hold a token."""
        return sum(n >= 0 for numbers in self.numbers for n in numbers)

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """A source of the numbers of the streams, from their start."""
        tokens = tuple(
            tuple(_generator(stream.child("token", n), device) if n >= 0 else None for n in numbers)
            for stream, numbers in zip(self.streams, self.numbers, strict=True)
        )
        return TokenSource(tokens, self.growing, SampleStreams(self.streams))


class RandomSource(ABC):
    """Random numbers of one stream, or of the streams of a batch, drawn one tensor after another.

    Attributes:
        by_sample: True if the first axis of its tensors is samples.
    """

    by_sample: ClassVar[bool] = True

    @abstractmethod
    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next standard normals, of the given shape, on the device and in the dtype of `like`."""


@dataclass(frozen=True)
class StreamSource(RandomSource):
    """Random numbers of a `Stream`, for tensors of any shape."""

    generator: torch.Generator

    by_sample: ClassVar[bool] = False

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """See `RandomSource`."""
        return _empty(shape, like).normal_(generator=self.generator).to(like.dtype)


@dataclass(frozen=True)
class SampleSource(RandomSource):
    """Random numbers of `SampleStreams`, for tensors [B, ...]: row b is drawn from generator b."""

    generators: tuple[torch.Generator, ...]
    lengths: tuple[int, ...] | None = None

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """See `RandomSource`.

        Raises:
            BadInput: the first axis has another length than there are samples.
        """
        if not shape or shape[0] != len(self.generators):
            rows = shape[0] if shape else 1
            raise BadInput(f"a batch of {rows} rows for {len(self.generators)} samples; name one sample per row")
        drawn = _empty(shape, like)
        if self.lengths is None or shape[-2] != max(self.lengths):
            for row, generator in zip(drawn.unbind(0), self.generators, strict=True):
                row.normal_(generator=generator)
            return drawn.to(like.dtype)
        drawn.zero_()
        for row, generator, n in zip(drawn.unbind(0), self.generators, self.lengths, strict=True):
            row[..., :n, :] = _empty((*shape[1:-2], n, shape[-1]), like).normal_(generator=generator)
        return drawn.to(like.dtype)


@dataclass(frozen=True)
class PaddedSource(RandomSource):
    """Random numbers of `PaddedStreams`, for tensors [B, ..., M, O]: those of `samples`, and zero at padding."""

    samples: SampleSource
    places: int
    rows: tuple[tuple[int, ...], ...] | None
    columns: tuple[int, ...] | None

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """See `RandomSource`."""
        rows, columns, generators = self.rows, self.columns, self.samples.generators
        unpadded = shape[-2] != self.places or (columns is not None and shape[-1] != max(1, *columns))
        if unpadded or shape[0] != len(generators):
            return self.samples.normal(*shape, like=like)
        drawn = _empty(shape, like).zero_()
        for b, (row, generator) in enumerate(zip(drawn.unbind(0), generators, strict=True)):
            unpadded_places = list(range(shape[-2])) if rows is None else list(rows[b])
            n = shape[-1] if columns is None else columns[b]
            numbers = _empty((*shape[1:-2], len(unpadded_places), n), like).normal_(generator=generator)
            row[..., unpadded_places, :n] = numbers
        return drawn.to(like.dtype)


@dataclass(frozen=True)
class TokenSource(RandomSource):
    """Random numbers of `TokenStreams`, for tensors [B, ..., N, X]: place n of row b is drawn from its own generator.

    Tensors with another N belong to no tokens (such as reference columns): each place draws from a stream of its own.

    Attributes:
        generators: for each sample, one generator per place; None if the place holds no token.
        growing: see `TokenStreams`.
        samples: the streams of the samples, from which the streams of places that are not tokens derive.
        places: N -> the source of tensors with N places that are not tokens.
    """

    generators: tuple[tuple[torch.Generator | None, ...], ...]
    growing: bool
    samples: SampleStreams
    places: dict[int, RandomSource] = field(default_factory=dict)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """See `RandomSource`."""
        B, *middle, N, X = shape
        if len(self.generators) != B or any(len(tokens) != N for tokens in self.generators):
            return self._source_of_places(B, N, like.device).normal(*shape, like=like)
        # On the CPU, torch fills a tensor in blocks of 16 numbers. If its size is a multiple of 16, it therefore starts
        # with the numbers of every shorter tensor whose size is one, too (tests/test_streams.py checks this).
        padded = -(-X // BLOCK) * BLOCK
        drawn = _empty((B, N, padded, *middle) if self.growing else (B, N, *middle, X), like).zero_()
        for row, generators in zip(drawn.unbind(0), self.generators, strict=True):
            for place, generator in zip(row.unbind(0), generators, strict=True):
                if generator is not None:
                    place.normal_(generator=generator)
        drawn = drawn[:, :, :X].movedim(2, -1) if self.growing else drawn
        return drawn.movedim(1, -2).to(like.dtype)

    def _source_of_places(self, B: int, N: int, device: torch.device) -> RandomSource:
        """The source of tensors whose N places are not tokens; the same one in every call, so numbers follow on."""
        if N not in self.places:
            numbers = tuple(tuple(range(N)) for _ in range(B))
            self.places[N] = TokenStreams(self.samples.child("place").streams, numbers=numbers).open(device)
        return self.places[N]


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.empty(tuple(shape), dtype=torch.float32, device=like.device)


def _generator(stream: Stream, device: torch.device | str) -> torch.Generator:
    import torch

    return torch.Generator(device).manual_seed(stream.seed)


Streams = Stream | SampleStreams


def _check_ids(ids: Iterable[Part]) -> tuple[Part, ...]:
    """The ids of `samples` as a tuple of integers and strings."""
    remedy = "pass one integer or string per row of the batch, such as samples(range(32))"
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable) or getattr(ids, "ndim", None) == 0:
        raise BadInput(f"samples(ids): {one_line(ids)} is not a list of ids; {remedy}")
    names: list[Part] = []
    for name in ids:
        try:
            names.append(name if isinstance(name, str) else index(name))
        except TypeError:
            raise BadInput(
                f"samples(ids): the id {one_line(name)} is neither an integer nor a string; {remedy}"
            ) from None
    if not names:
        raise BadInput(f"samples(ids) names no sample; {remedy}")
    return tuple(names)


@contextmanager
def samples(ids: Iterable[Part]) -> Iterator[None]:
    """Context in which the rows of a batch are these samples, so that each sample draws its own noise.

    With gradient checkpointing, `loss.backward()` recomputes layers, so keep it inside the block.

    Args:
        ids: one integer or string per row of the batch. NumPy and torch integers count as integers.

    Raises:
        BadInput: an id is neither, or there are no ids.
    """
    token = _samples.set(_check_ids(ids))
    try:
        yield
    finally:
        _samples.reset(token)


def current_samples() -> tuple[Part, ...] | None:
    """The names of the surrounding `samples` block; None outside of one."""
    return _samples.get()


def sample_streams(stream: Stream, rows: int, names: tuple[Part, ...] | None = None) -> SampleStreams:
    """The streams of the rows of a batch.

    Args:
        stream: the stream of the thing that the samples share, such as a layer.
        rows: number of rows of the batch.
        names: names of the samples outside a `samples` block; by default 0..rows - 1, with a warning.

    Raises:
        BadInput: the number of names differs from the number of rows.
    """
    names = _samples.get() or names
    if names is None:
        warnings.warn(
            "called outside `with ohmformer.samples(ids):`, so the rows of every batch are samples 0..B-1 and two "
            "batches draw the same noise; where another library makes the batches, use ohmformer.numbered_samples()",
            UnnamedSamples,
            stacklevel=2,
        )
        names = tuple(range(rows))
    if len(names) != rows:
        raise BadInput(f"samples(ids) names {len(names)} samples but the batch has {rows} rows; name one per row")
    return SampleStreams(tuple(stream.child("sample", name) for name in names))
