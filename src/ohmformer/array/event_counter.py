"""Counting of array events where they are simulated, to check the counts that `mapping.Plan` predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Counts:
    """Numbers of events on arrays. Cells and columns that a matrix leaves unused are neither written nor read."""

    cell_writes: int = 0
    """Writes of one cell."""
    cell_reads: int = 0
    """Reads of one cell in one input cycle."""
    activations: int = 0
    """Reads of one array: one input cycle of one slice and polarity of one block."""
    adc_conversions: int = 0
    """Conversions of one column current."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.cell_writes + other.cell_writes,
            self.cell_reads + other.cell_reads,
            self.activations + other.activations,
            self.adc_conversions + other.adc_conversions,
        )

    def times(self, factor: int) -> Counts:
        """The events of doing the same `factor` times."""
        return Counts(
            self.cell_writes * factor,
            self.cell_reads * factor,
            self.activations * factor,
            self.adc_conversions * factor,
        )


_counts: ContextVar[Counts | None] = ContextVar("counts", default=None)


@contextmanager
def counting() -> Iterator[Counts]:
    """Inside the block, count cell writes with their read-backs, and reads and conversions of `mvm` at level `cell`."""
    counts = Counts()
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def current() -> Counts | None:
    """The counter in use; None outside of `counting`."""
    return _counts.get()
