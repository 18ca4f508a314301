"""Drivers: processes in groups of their own that tests stop by signals."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stopped_if_it_fails(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Context of a driver that leads its process group; the group is killed if the test fails."""
    with process:
        try:
            yield process
        except BaseException:  # a test that fails must not wait for a driver that nobody stops
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            raise
