"""Streams of random numbers, keyed by the physical thing to which the numbers belong.

The seed of a stream is a hash of its key (seed, chip, sample, layer, operand, ...); there is no global generator. The
same thing therefore draws the same noise, regardless of batch size, order of layers, number of workers or threads, and
interruptions. Numbers are always drawn in float32 on the target device, and cast afterward.

On the CPU every key has a generator of torch (the sources of the table). On other devices, and on the CPU for streams
with compiled kernels, one counter-based generator draws the numbers of all keys of a tensor at once, from the layout
that each kind of stream gives (`counted_source`).

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Self

from ohmformer.streams import backends
from ohmformer.streams.sources import (
    PaddedSource,
    RandomSource,
    SampleSource,
    StreamSource,
    TokenSource,
    check_rows,
    drawn_uniform,
    generator_of,
)

if TYPE_CHECKING:
    import torch

    from ohmformer.streams.counted_source import CountedSource
    from ohmformer.streams.places import Places

Part = int | str
"""One part of the key of a stream."""


def _as_json(part: Part) -> str:
    """A part as `json.dumps` writes it, which makes an encoder in every call."""
    kind = type(part)
    return quoted(part) if kind is str else str(part) if kind is int else json.dumps(part)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stream:
    """One random stream; its key is the path to the thing whose noise it draws.

    `Stream(0).child("chip", 3, "layer", "blocks.0.attn", "write")` always draws the same numbers.

    Attributes:
        key: the path.
        kernels: what draws on the CPU, and computes with what it draws; not part of the key.
    """

    key: tuple[Part, ...]
    kernels: backends.Kernels = "torch"

    def __init__(self, *key: Part, kernels: backends.Kernels = "torch") -> None:
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "kernels", kernels)

    def child(self, *parts: Part) -> Stream:
        """The stream of a part of the thing to which this stream belongs."""
        return Stream(*self.key, *parts, kernels=self.kernels)

    @property
    def seed(self) -> int:
        """63 bits that identify the stream: BLAKE2 of the key. Torch's CPU generator uses 32 of them."""
        digest = hashlib.blake2b(f"[{', '.join(map(_as_json, self.key))}]".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """A source of the numbers of the stream, from its start."""
        if backends.counts(device, self.kernels):
            from ohmformer.streams.counted_source import CountedStreamSource

            return CountedStreamSource(self.layout, device, self.kernels)
        return StreamSource(generator_of(self.seed, device))

    def layout(self, shape: tuple[int, ...]) -> Places:
        """Where the stream's numbers stand in a tensor of a shape."""
        from ohmformer.streams.places import whole_rows

        return whole_rows((self.seed,), shape)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first standard normals, of the given shape, on the device and in the dtype of `like`."""
        return self.open(like.device).normal(*shape, like=like)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first uniform numbers in [0, 1); otherwise like `normal`."""
        return SampleStreams((self,)).uniform(1, *shape, like=like).squeeze(0)


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
    def kernels(self) -> backends.Kernels:
        """What draws on the CPU; see `Stream`."""
        return self.streams[0].kernels if self.streams else "torch"

    @property
    def present(self) -> int | None:
        """Number of places of all samples that hold values; None if all places do."""
        return None if self.lengths is None else sum(self.lengths)

    def child(self, *parts: Part) -> Self:
        """The streams of a part of each sample."""
        streams = tuple(stream.child(*parts) for stream in self.streams)
        return type(self)(streams, self.lengths) if type(self) is SampleStreams else replace(self, streams=streams)

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """A source of the numbers of the streams, from their start."""
        if backends.counts(device, self.kernels):
            return _counted(self.layout, device, self.kernels)
        return SampleSource(tuple(generator_of(seed, device) for seed in self.seeds), self.lengths)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the streams."""
        return tuple(stream.seed for stream in self.streams)

    def layout(self, shape: tuple[int, ...]) -> Places:
        """Where the numbers of each stream stand in a tensor of a shape, on devices without a generator per key.

        Raises:
            BadInput: the first axis has another length than there are samples.
        """
        from ohmformer.streams.places import padded_rows, whole_rows

        check_rows(shape, len(self.streams))
        if self.lengths is None or shape[-2] != max(self.lengths):
            return whole_rows(self.seeds, shape)
        return padded_rows(self.seeds, shape, self.lengths, None)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The first standard normals [len(streams), ...]; `shape` is the whole shape, its first axis the samples."""
        return self.open(like.device).normal(*shape, like=like)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The first uniform numbers in [0, 1) of each stream, without regard to `lengths`; otherwise like `normal`."""
        if not backends.counts(like.device, self.kernels):
            generators = (generator_of(seed, like.device) for seed in self.seeds)
            return drawn_uniform(generators, shape, like=like)
        return _counted(SampleStreams(self.streams).layout, like.device, self.kernels).uniform(*shape, like=like)


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
        if backends.counts(device, self.kernels):
            return _counted(self.layout, device, self.kernels)
        samples = SampleSource(tuple(generator_of(seed, device) for seed in self.seeds))
        return PaddedSource(samples, self.places, self.rows, self.columns)

    def layout(self, shape: tuple[int, ...]) -> Places:
        """See `SampleStreams.layout`."""
        from ohmformer.streams.places import padded_rows, whole_rows

        check_rows(shape, len(self.streams))
        if shape[-2] != self.places or (self.columns is not None and shape[-1] != max(1, *self.columns)):
            return whole_rows(self.seeds, shape)
        return padded_rows(self.seeds, shape, None, self.columns, self.rows)


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
        growing: True if axis X grows from call to call: a longer X then starts with the numbers of a shorter one.
    """

    numbers: tuple[tuple[int, ...], ...] = ()
    growing: bool = False

    @property
    def present(self) -> int | None:
        """Number of places of all samples that hold a token."""
        return sum(n >= 0 for numbers in self.numbers for n in numbers)

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """A source of the numbers of the streams, from their start."""
        if backends.counts(device, self.kernels):
            return _counted(self.layout, device, self.kernels)
        tokens = tuple(
            tuple(generator_of(stream.child("token", n).seed, device) if n >= 0 else None for n in numbers)
            for stream, numbers in zip(self.streams, self.numbers, strict=True)
        )
        return TokenSource(tokens, self.growing, lambda B, N: self._of_places(B, N).open(device))

    def layout(self, shape: tuple[int, ...]) -> Places:
        """See `SampleStreams.layout`; the number of a token is part of its counter, not of its seed."""
        from ohmformer.streams.places import token_rows

        B, N = shape[0], shape[-2]
        if len(self.numbers) == B and all(len(tokens) == N for tokens in self.numbers):
            seeds = SampleStreams(self.streams).child("token").seeds
            return token_rows(seeds, self.numbers, shape, growing=self.growing)
        check_rows(shape, len(self.streams))
        others = self._of_places(B, N)
        seeds = SampleStreams(others.streams).child("token").seeds
        return token_rows(seeds, others.numbers, shape, growing=False, numbered=N)

    def _of_places(self, B: int, N: int) -> TokenStreams:
        """The streams of tensors whose N places are not tokens."""
        numbers = tuple(tuple(range(N)) for _ in range(B))
        return TokenStreams(SampleStreams(self.streams).child("place").streams, numbers=numbers)


Streams = Stream | SampleStreams


def _counted(
    layout: Callable[[tuple[int, ...]], Places], device: torch.device | str, kernels: backends.Kernels
) -> CountedSource:
    """A source by the counter-based generator; imported on demand, since it needs torch."""
    from ohmformer.streams.counted_source import CountedSource

    return CountedSource(layout, device, kernels)


def stacked_normal(streams: Sequence[Streams], *shape: int, like: torch.Tensor) -> torch.Tensor:
    """The first standard normals of several streams, [R, ...], each those of its own `normal(*shape)`.

    By the counter-based generator they are drawn at once.

    Args:
        streams: R streams that differ in their keys alone.
        shape: of the tensor of each.
        like: gives the device and the dtype.
    """
    kernels = streams[0].kernels
    if not backends.counts(like.device, kernels):
        import torch

        return torch.stack([stream.normal(*shape, like=like) for stream in streams])
    from ohmformer.streams.places import stacked

    source = _counted(lambda _: stacked([stream.layout(shape) for stream in streams]), like.device, kernels)
    return source.normal(len(streams), *shape, like=like)
