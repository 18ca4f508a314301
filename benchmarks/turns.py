"""Timing things against one another on a machine that others use too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def medians(cases: dict[str, Callable[[], object]], *, rounds: int, warm_up: int) -> dict[str, float]:
    """Median seconds of each case. The cases take turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warm_up + rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
