"""Sources of random numbers: what draws the numbers of streams one tensor after another, and those of the CPU.

On the CPU, every key has a generator of torch of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ohmformer.errors import BadInput

if TYPE_CHECKING:
    import torch

BLOCK = 16
"""Numbers that torch's normal_ fills at a time on the CPU."""


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
        check_rows(shape, len(self.generators))
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
        open_places: makes the source of tensors [B, ..., N, X] whose N places are not tokens, from B and N.
        places: N -> that source, so that numbers follow on.
    """

    generators: tuple[tuple[torch.Generator | None, ...], ...]
    growing: bool
    open_places: Callable[[int, int], RandomSource]
    places: dict[int, RandomSource] = field(default_factory=dict)

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """See `RandomSource`."""
        B, *middle, N, X = shape
        if len(self.generators) != B or any(len(tokens) != N for tokens in self.generators):
            return self._source_of_places(B, N).normal(*shape, like=like)
        # On the CPU, torch fills a tensor in blocks of 16 numbers. If its size is a multiple of 16, it therefore starts
        # with the numbers of every shorter tensor whose size is one, too (tests/streams/test_sources.py checks this).
        padded = -(-X // BLOCK) * BLOCK
        drawn = _empty((B, N, padded, *middle) if self.growing else (B, N, *middle, X), like).zero_()
        for row, generators in zip(drawn.unbind(0), self.generators, strict=True):
            for place, generator in zip(row.unbind(0), generators, strict=True):
                if generator is not None:
                    place.normal_(generator=generator)
        drawn = drawn[:, :, :X].movedim(2, -1) if self.growing else drawn
        return drawn.movedim(1, -2).to(like.dtype)

    def _source_of_places(self, B: int, N: int) -> RandomSource:
        """The source of tensors whose N places are not tokens; the same one in every call, so numbers follow on."""
        if N not in self.places:
            self.places[N] = self.open_places(B, N)
        return self.places[N]


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.empty(tuple(shape), dtype=torch.float32, device=like.device)


def check_rows(shape: Sequence[int], samples: int) -> None:
    """Refuse a tensor of a shape whose first axis is not one row per sample.

    Raises:
        BadInput: it is not.
    """
    if not shape or shape[0] != samples:
        raise BadInput(f"a batch of {shape[0] if shape else 1} rows for {samples} samples; name one sample per row")


def generator_of(seed: int, device: torch.device | str) -> torch.Generator:
    """The generator of a stream, at its start."""
    import torch

    return torch.Generator(device).manual_seed(seed)


def drawn_uniform(generators: Iterable[torch.Generator], shape: Sequence[int], *, like: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [0, 1) [B, ...], row b from generator b."""
    drawn = _empty(shape, like)
    for row, generator in zip(drawn.unbind(0), generators, strict=True):
        row.uniform_(generator=generator)
    return drawn.to(like.dtype)
