"""Random streams keyed by the physical thing they belong to.

A stream is derived by hashing what it belongs to (seed, chip, sample, layer, operand), never taken from a global
generator. So the same thing draws the same noise whatever the batch size, the order of layers, the number of workers
or threads, or a resumed run. Numbers are always drawn in float32 on the target device, and cast afterwards.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING

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
        return Source((_generator(self, device),), by_sample=False)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first standard normals, of the given shape, on the device and in the dtype of `like`."""
        return self.open(like.device).normal(*shape, like=like)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The stream's first uniform numbers in [0, 1); otherwise like `normal`."""
        return self.open(like.device).uniform(*shape, like=like)


@dataclass(frozen=True)
class SampleStreams:
    """One stream per sample of a batch: what `Stream` is to a single thing, for the leading axis of a tensor."""

    streams: tuple[Stream, ...]

    def child(self, *parts: Part) -> SampleStreams:
        """The streams of something that belongs to each sample."""
        return SampleStreams(tuple(stream.child(*parts) for stream in self.streams))

    def open(self, device: torch.device | str = "cpu") -> Source:
        """The numbers of the streams, from their start, one draw after the other."""
        return Source(tuple(_generator(stream, device) for stream in self.streams), by_sample=True)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The first standard normals [len(streams), ...]; `shape` is the whole shape, its first axis the samples."""
        return self.open(like.device).normal(*shape, like=like)


@dataclass(frozen=True)
class Source:
    """Random numbers drawn one tensor after the other; with `by_sample`, row b of each tensor is generator b's."""

    generators: tuple[torch.Generator, ...]
    by_sample: bool

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next standard normals, of the given shape, on the device and in the dtype of `like`."""
        import torch

        drawn = torch.empty(shape, dtype=torch.float32, device=like.device)
        for row, generator in self._rows(drawn):
            row.normal_(generator=generator)
        return drawn.to(like.dtype)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """The next uniform numbers in [0, 1), of the given shape, on the device and in the dtype of `like`."""
        import torch

        drawn = torch.empty(shape, dtype=torch.float32, device=like.device)
        for row, generator in self._rows(drawn):
            row.uniform_(generator=generator)
        return drawn.to(like.dtype)

    def _rows(self, drawn: torch.Tensor) -> Iterable[tuple[torch.Tensor, torch.Generator]]:
        if not self.by_sample:
            return [(drawn, self.generators[0])]
        if not drawn.dim() or len(drawn) != len(self.generators):
            rows = len(drawn) if drawn.dim() else 1
            raise BadInput(f"a batch of {rows} rows for {len(self.generators)} samples; name one sample per row")
        return zip(drawn.unbind(0), self.generators, strict=True)


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


def sample_streams(stream: Stream, rows: int) -> SampleStreams:
    """The streams of the rows of a batch under `stream`, by the names given with `samples`.

    Raises:
        BadInput: the batch has another number of rows than there are names.
    """
    names = _samples.get()
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
