"""The first use of compiled kernels takes seconds: say so once, on a terminal."""

from __future__ import annotations

import multiprocessing

from ohmformer.streams.backends import Kernels
from ohmformer.streams.compiling import load_loops
from ohmformer.terminal.progress import note


def load_compiled_loops(kernels: Kernels = "compiled") -> None:
    """Compile all loops of compiled kernels, or read what an earlier process compiled.

    Args:
        kernels: the choice that needs them, "compiled" or "amx".
    """
    load_loops(_say, kernels)


def _say() -> None:
    if multiprocessing.parent_process() is None:  # workers leave it to the process that the user started
        note("compiled kernels: compiling loops for this CPU; this takes some ten seconds, once")
