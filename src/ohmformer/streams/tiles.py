"""Whether the CPU multiplies tiles of bfloat16 numbers (the instructions AMX), and may do so in this process."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

REQUEST, PROCESS_CONTROL, TILE_DATA = 0x1023, 158, 18
"""Numbers of Linux on x86-64: ask for a part of the CPU's state (ARCH_REQ_XCOMP_PERM of arch_prctl), and its number."""


@cache
def has_tiles() -> bool:
    """True if compiled loops may multiply tiles: the CPU can, and Linux keeps tiles for this process from now on."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return False
    from llvmlite import binding  # type: ignore[import-untyped]

    features = binding.get_host_cpu_features()
    if not all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512f")):
        return False
    return bool(ctypes.CDLL(None).syscall(PROCESS_CONTROL, REQUEST, TILE_DATA) == 0)
