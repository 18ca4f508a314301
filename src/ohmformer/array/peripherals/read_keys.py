"""Which random numbers the parts of a read draw: its inputs, its reference columns, and single input vectors.

Padding draws nothing, so the reads of a sample draw what they draw without padding.

Shapes: B samples, M input vectors, O outputs, I inputs, R rows of one block, C column blocks (reference columns).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ohmformer.streams import PaddedStreams, RandomSource, SampleStreams, Streams
from ohmformer.streams.backends import counts
from ohmformer.streams.places import Places, padded_rows

Counts = tuple[int, ...] | None
"""For each sample, how many places of an axis it has; None if all."""


@dataclass(frozen=True)
class QueryStreams(PaddedStreams):
    """Streams of samples whose input vectors are queries, for the `cell` level of fidelity.

    Attributes:
        queries: for each sample, the number and the head of the query of each of its M vectors.
    """

    queries: tuple[tuple[tuple[int, int], ...], ...] = ()


@dataclass(frozen=True)
class CornerStreams(SampleStreams):
    """One stream per sample for tensors [B, ..., Y, X] of which a sample has the first rows and columns only.

    Attributes:
        heights: for each sample, how many places along Y it has; None if all.
        widths: likewise along X.
    """

    heights: Counts = None
    widths: Counts = None

    def open(self, device: torch.device | str = "cpu") -> RandomSource:
        """Return a source of the numbers of the streams, from their start."""
        if counts(device, self.kernels):
            return super().open(device)
        return _CornerSource(tuple(stream.open(device) for stream in self.streams), self.heights, self.widths)

    def layout(self, shape: tuple[int, ...]) -> Places:
        """See `SampleStreams.layout`."""
        return padded_rows(self.seeds, shape, self.heights, self.widths)


@dataclass(frozen=True)
class _CornerSource(RandomSource):
    """Random numbers of `CornerStreams`; zero at places that a sample does not have."""

    samples: tuple[RandomSource, ...]
    heights: Counts
    widths: Counts

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """See `RandomSource`."""
        *lead, Y, X = shape[1:]
        drawn = like.new_zeros(shape)
        for b, (row, source) in enumerate(zip(drawn.unbind(0), self.samples, strict=True)):
            height, width = (n if counts is None else counts[b] for n, counts in ((Y, self.heights), (X, self.widths)))
            row[..., :height, :width] = source.normal(*lead, height, width, like=like)
        return drawn


def of_inputs(stream: Streams | None) -> Streams | None:
    """Return the streams for tensors [..., M, I] of inputs, from those for results [..., M, O] of a product."""
    return replace(stream, columns=stream.inputs) if isinstance(stream, PaddedStreams) else stream


def of_references(stream: Streams, columns: int) -> Streams:
    """Return the streams for results [..., M, C] of reference columns, from those for results [..., M, O].

    Args:
        stream: of the results.
        columns: columns of one array.
    """
    if not isinstance(stream, PaddedStreams):
        return stream
    return replace(stream, columns=in_blocks(stream.columns, columns))


def of_vector(stream: Streams, m: int, M: int) -> Streams:
    """Return the streams of input vector m of M; vectors of a sample are counted without padding."""
    if isinstance(stream, QueryStreams):
        names = tuple(of_sample[m] for of_sample in stream.queries)
        keys = tuple(key.child("query", *name) for key, name in zip(stream.streams, names, strict=True))
        return PaddedStreams(keys, columns=stream.columns, inputs=stream.inputs)
    if not isinstance(stream, PaddedStreams):
        return stream.child(m)
    rows = stream.rows if stream.places == M else None
    places = (m,) * len(stream.streams) if rows is None else tuple(row.index(m) if m in row else m for row in rows)
    keys = tuple(key.child(place) for key, place in zip(stream.streams, places, strict=True))
    return PaddedStreams(keys, columns=stream.columns, inputs=stream.inputs)


def of_one_input(vector: Streams) -> Streams:
    """Return the streams for tensors [..., 1, I] of one input vector."""
    return _corner(vector, None, vector.inputs) if isinstance(vector, PaddedStreams) else vector


def of_one_result(vector: Streams, *, reference: int = 0) -> Streams:
    """Return the streams for results [..., 1, O] of one input vector.

    Args:
        vector: of the vector.
        reference: for reference columns [..., 1, C] the columns of one array, otherwise 0.
    """
    if not isinstance(vector, PaddedStreams):
        return vector
    return _corner(vector, None, in_blocks(vector.columns, reference or 1))


def of_devices(vector: Streams, first: int, rows: int, *, reference: int = 0) -> Streams:
    """Return the streams for the devices [..., O, R] that one input vector reads in a block of rows.

    Args:
        vector: of the vector.
        first: the first row of the block.
        rows: R.
        reference: for devices [..., C, R] of reference columns the columns of one array, otherwise 0.
    """
    if not isinstance(vector, PaddedStreams):
        return vector
    inputs = vector.inputs
    widths = None if inputs is None else tuple(min(rows, max(0, n - first)) for n in inputs)
    return _corner(vector, in_blocks(vector.columns, reference or 1), widths)


def _corner(vector: SampleStreams, heights: Counts, widths: Counts) -> CornerStreams:
    return CornerStreams(vector.streams, None, heights, widths)


def in_blocks(counts: Counts, size: int) -> Counts:
    """Return how many blocks of a size the places of each sample fill."""
    return None if counts is None else tuple(-(-n // size) for n in counts)
