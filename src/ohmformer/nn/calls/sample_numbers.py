"""Numbers as names of samples, for loops of other libraries that call a model and name no samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from ohmformer.errors import BadInput, check_type
from ohmformer.nn.shared.state import CallInfo
from ohmformer.streams import Part, current_samples


class _Counter:
    """The number of the next sample, and those of the last call's rows."""

    def __init__(self, start: int) -> None:
        self.next = start
        self.rows: tuple[Part, ...] = ()

    def upcoming(self, rows: int) -> tuple[Part, ...]:
        """The names of the next rows."""
        return tuple(range(self.next, self.next + rows))


_counter: ContextVar[_Counter | None] = ContextVar("counter", default=None)


@contextmanager
def numbered_samples(start: int = 0) -> Iterator[None]:
    """Context in which rows are named by their number: the rows of all calls, one after the other.

    It is for loops of other libraries, such as those of lm-evaluation-harness. As long as samples come in the same
    order, each draws the same noise, whatever the size of the batches. A call that goes on with the KV cache of the
    last one keeps its numbers, and so does a decoder whose encoder was called before it. Calls in other threads, and
    steps of `variation` in train mode, are not numbered.

    Args:
        start: number of the first sample.

    Raises:
        BadInput: the number is no integer, or the block is inside one of `samples`.
    """
    check_type("numbered_samples", "start", start, (int,), "an integer")
    if current_samples() is not None:
        raise BadInput("numbered_samples: is inside a block of samples(ids), which names them; leave one of them out")
    token = _counter.set(_Counter(start))
    try:
        yield
    finally:
        _counter.reset(token)


def numbered_call(info: CallInfo) -> CallInfo:
    """A call of the whole model with the names of its rows, if they are numbered and have no other names."""
    counter = _counter.get()
    if counter is None or info.names is not None or info.batch_size is None:
        return info
    if not (info.goes_on and len(counter.rows) == info.batch_size):
        counter.rows = counter.upcoming(info.batch_size)
        counter.next += info.batch_size
    return replace(info, names=counter.rows)


def numbered_encoder(info: CallInfo) -> CallInfo:
    """A call of an encoder with the names that the rows of the next call of the whole model will have."""
    counter = _counter.get()
    if counter is None or info.names is not None or info.batch_size is None:
        return info
    return replace(info, names=counter.upcoming(info.batch_size))
