"""Bisection over whole numbers, as generators: they ask for one value after the other and never evaluate anything.

A generator yields a harm, is sent True if the value there passes, and assumes that a harsher value does not pass where
a milder one fails. What it asks for depends on the answers alone, so a search that starts anew with stored answers asks
for the same values in the same order.
"""

from __future__ import annotations

from collections.abc import Generator

Search = Generator[int, bool, tuple[int | None, int | None]]
"""Yields harms, is sent whether they pass, and returns the last that passes and the first that fails."""


def last_that_passes(start: int, mildest: int, harshest: int, growth: int) -> Search:
    """Search the harshest value that passes.

    Args:
        start: the harm where the search begins.
        mildest: smallest harm.
        harshest: largest harm.
        growth: harm of the first step away from the start; each later step is twice as long.

    Returns:
        The largest harm that passes, None if even the smallest one fails; and the smallest harm that fails, None if
        even the largest one passes. They are neighbors.
    """
    passing, failing = yield from _bracket(start, mildest, harshest, growth)
    if passing is None or failing is None:
        return passing, failing
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if (yield middle):
            passing = middle
        else:
            failing = middle
    return passing, failing


def _bracket(start: int, mildest: int, harshest: int, growth: int) -> Search:
    """Step away from the start with growing steps, until one value passes and one fails."""
    here = min(max(start, mildest), harshest)
    upward = yield here
    step = growth
    while here != (harshest if upward else mildest):
        there = min(here + step, harshest) if upward else max(here - step, mildest)
        if (yield there) != upward:
            return (here, there) if upward else (there, here)
        here, step = there, 2 * step
    return (here, None) if upward else (None, here)
