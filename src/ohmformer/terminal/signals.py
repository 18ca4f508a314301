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
"""Signals that follow within this time [s] are ignored, since they would interrupt the end that the first began."""


class Stopped(Exception):
    """A command was stopped; the message is the line for the user."""


class Stopping:
    """The signal that stopped the command, if any, and the line for the user.

    Attributes:
        number: number of the first signal; None before there is one. Any exception after it, such as that of an
            interrupted import, is taken as a stop.
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
        """Handle signals that have Python's default handlers.

        Args:
            ends: True if the process ends with the block. After a stop, further signals are then ignored.
        """
        self.number, self.says, self._last = None, NOTHING_YET, 0.0
        before = self._replace_default_handlers() if threading.current_thread() is threading.main_thread() else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                if ends and self.number is not None:
                    signal.signal(number, signal.SIG_IGN)
                elif signal.getsignal(number) == self._stop:
                    signal.signal(number, handler)

    def _replace_default_handlers(self) -> dict[int, Any]:
        """Handle the signals that have Python's default handlers; return signal number -> handler before."""
        default_handlers = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
        taken = {}
        for name, default in default_handlers.items():
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
