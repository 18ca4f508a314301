"""Signals that end a command: Ctrl-C, SIGTERM of batch systems, SIGHUP of a terminal that closes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NOTHING_YET = "stopped; nothing was computed yet"
GO_ON = "stopped; run again to go on"
NOTHING_STORED = "stopped; nothing was stored, so the next run begins anew"

CALM_SECONDS = 1.0
"""Signals that follow one another faster are one: they would disturb the end that the first one began."""


class Stopped(Exception):
    """A command was stopped; the message is the line for the user."""


class Stopping:
    """Which signal stopped the command, if any, and the line for the user.

    Attributes:
        number: of the first signal; None as long as there was none. Whatever is raised from then on, such as by an
            import that was cut short, means a stop.
        says: the line for the user.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.says = NOTHING_YET
        self._last = 0.0

    @property
    def code(self) -> int:
        """The exit code, as shells give it: 128 and the number of the signal."""
        return 128 + (self.number or signal.SIGINT)

    @contextmanager
    def watching(self, *, ends: bool) -> Iterator[None]:
        """Take signals whose handlers are Python's own.

        Args:
            ends: whether the process ends with the block: after a stop, further signals are then ignored for good.
        """
        self.number, self.says, self._last = None, NOTHING_YET, 0.0
        before = self._take() if threading.current_thread() is threading.main_thread() else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                if ends and self.number is not None:
                    signal.signal(number, signal.SIG_IGN)
                elif signal.getsignal(number) == self._stop:
                    signal.signal(number, handler)

    def _take(self) -> dict[int, Any]:
        wanted = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
        taken = {}
        for name, default in wanted.items():
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is default:
                taken[int(number)] = signal.signal(number, self._stop)
        return taken

    def _stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is not None and now - self._last < CALM_SECONDS:
            return
        if self.number is None:
            self.number = number
        self._last = now
        raise KeyboardInterrupt
