"""The first use of compiled kernels takes seconds: say so once, on a terminal."""

from __future__ import annotations

import multiprocessing

from ohmformer.streams.compiling import load_loops
from ohmformer.terminal.progress import note


def load_compiled_loops() -> None:
    """Compile all loops of compiled kernels, or read what an earlier process compiled."""
    load_loops(_say)


def _say() -> None:
    if multiprocessing.parent_process() is None:  # workers leave it to the process that the user started
        note("kernels = 'compiled': compiling loops for this CPU; this takes some ten seconds, once")
