"""Counting by instrument: what the `cell` level really did, to check the counts that a `Plan` predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Counts:
    """Events on arrays. Cells and columns that a ragged matrix leaves unused are neither written nor read."""

    cell_writes: int = 0
    cell_reads: int = 0
    activations: int = 0
    """Reads of one array (one cycle of one slice and polarity of one block)."""
    adc_conversions: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.cell_writes + other.cell_writes,
            self.cell_reads + other.cell_reads,
            self.activations + other.activations,
            self.adc_conversions + other.adc_conversions,
        )

    def times(self, factor: int) -> Counts:
        """The events of doing the same so many times."""
        return Counts(
            self.cell_writes * factor,
            self.cell_reads * factor,
            self.activations * factor,
            self.adc_conversions * factor,
        )


_counts: ContextVar[Counts | None] = ContextVar("counts", default=None)


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what `program` and `mvm` at level `cell` do inside."""
    counts = Counts()
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def current() -> Counts | None:
    """The counter in use, if any."""
    return _counts.get()
