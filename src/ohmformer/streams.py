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
        """63 bits that identify the stream (BLAKE2 of the key; 0 and "0" differ)."""
        digest = hashlib.blake2b(json.dumps(self.key).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh torch generator at the start of the stream."""
        import torch

        return torch.Generator(device).manual_seed(self.seed)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """Standard normals of the given shape, on the device and in the dtype of `like`."""
        import torch

        drawn = torch.empty(shape, dtype=torch.float32, device=like.device).normal_(generator=self.generator(like.device))
        return drawn.to(like.dtype)

    def uniform(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """Uniform numbers in [0, 1) of the given shape, on the device and in the dtype of `like`."""
        import torch

        drawn = torch.empty(shape, dtype=torch.float32, device=like.device).uniform_(generator=self.generator(like.device))
        return drawn.to(like.dtype)


@dataclass(frozen=True)
class SampleStreams:
    """One stream per sample of a batch: what `Stream` is to a single thing, for the leading axis of a tensor."""

    streams: tuple[Stream, ...]

    def child(self, *parts: Part) -> SampleStreams:
        """The streams of something that belongs to each sample."""
        return SampleStreams(tuple(stream.child(*parts) for stream in self.streams))

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """Standard normals [len(streams), ...]; `shape` is the whole shape, the leading axis being the samples."""
        import torch

        if shape[0] != len(self.streams):
            raise BadInput(f"a batch of {shape[0]} rows for {len(self.streams)} samples; name one sample per row")
        drawn = torch.empty(shape, dtype=torch.float32, device=like.device)
        for row, stream in zip(drawn, self.streams, strict=True):
            row.normal_(generator=stream.generator(like.device))
        return drawn.to(like.dtype)


Streams = Stream | SampleStreams


@contextmanager
def samples(ids: Iterable[Part]) -> Iterator[None]:
    """Name the samples that the rows of the batches inside are, so that each draws its own noise.

    Args:
        ids: one integer or string per row of the batch. NumPy and torch integers are taken as integers.
    """
    names = tuple(name if isinstance(name, str) else int(name) for name in ids)
    token = _samples.set(names)
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
