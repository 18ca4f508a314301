"""What tests need that start processes, kill them and wait for them."""

from __future__ import annotations

import os
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]

PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
"""Environment in which a process finds the package and the tests."""


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended but was not waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: object, seconds: float = 30.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
