"""What the samples of a batch are called, and which streams they have."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import index

from ohmformer.errors import BadInput, one_line
from ohmformer.streams.keys import Part, SampleStreams, Stream

_samples: ContextVar[tuple[Part, ...] | None] = ContextVar("samples", default=None)


class UnnamedSamples(UserWarning):
    """A converted model was called outside `with samples(ids):`, so its rows are samples 0..B-1."""


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
