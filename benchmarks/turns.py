"""Timing things against one another on a machine that others use too, and showing what was found."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path


def medians(
    cases: dict[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int,
    wait: Callable[[], object] = lambda: None,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each case. The cases take turns, so that a busy machine slows all alike.

    Args:
        cases: name -> what is timed.
        rounds: how often each case is timed.
        warm_up: rounds before these, without timing.
        wait: returns when a device is done with what it was given; called before and after each case.
        seconds: time after which no further round begins; at least one is timed.
        clock: the clock; `time.process_time` leaves out the time in which other processes had the core.
    """
    if rounds < 1:
        raise SystemExit(f"--rounds {rounds}: must be at least 1")
    times: dict[str, list[float]] = {name: [] for name in cases}
    begun = time.perf_counter()
    for turn in range(warm_up + rounds):
        if turn > warm_up and time.perf_counter() - begun > seconds:
            break
        for name, case in cases.items():
            wait()
            start = clock()
            case()
            wait()
            if turn >= warm_up:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, text: str, file: Path | None) -> None:
    """Print text, and write it below a title into a file, if there is one."""
    print(text, end="")
    if file is not None:
        file.write_text(f"# {title}\n\n{text}", encoding="utf-8")
