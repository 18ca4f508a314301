"""What each thread that calls a converted model keeps for itself, so that threads may share one model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class OneThread(threading.local, Generic[T]):
    """The values of the thread that reads them.

    Attributes:
        call: what the thread keeps of its calls; None in a thread that has never called the whole model.
        frames: what intercepts products now, innermost last; None where nothing does.
    """

    def __init__(self) -> None:
        self.call: T | None = None
        self.frames: list[object | None] = []


class Threads(Generic[T]):
    """One record of calls for every thread that has called the whole model.

    Other threads, such as those in which gradients are computed, share the record of the thread that called it last.

    Attributes:
        make: returns an empty record.
        here: what belongs to the current thread alone.
        latest: the record of the thread that called the whole model last; before any call, one that awaits its thread.
    """

    def __init__(self, make: Callable[[], T], latest: T | None = None) -> None:
        self.make = make
        self.here: OneThread[T] = OneThread()
        self.latest = make() if latest is None else latest
        self.claimed = False

    def enter(self) -> T:
        """The current thread calls the whole model: from now on it has a record of its own, which is returned."""
        call = self.here.call
        if call is None:
            # The first thread goes on with what was set before any call.
            call = self.here.call = self.make() if self.claimed else self.latest
            self.claimed = True
        self.latest = call
        return call

    @property
    def call(self) -> T:
        """The record that the current thread uses."""
        call = self.here.call
        return self.latest if call is None else call

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies go on where the current thread is."""
        return Threads, (self.make, self.call)
