"""The effort of writes that are read back: how often cells and rows are written and read on average.

Residual writing writes each cell once. All but the last cell of a value are read back, and each waits for the one
before it. The rest of this file is about verified writes.

The values are not known here. All digits of a slice are assumed equally likely, and one half of a differential pair is
unused, at G_min. Real values are mostly small, so this overestimates the effort. Torch is imported only for verified
writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ohmformer.array.spec import Crossbar


@dataclass(frozen=True)
class Effort:
    """Mean numbers of writes and reads for writing an array once.

    Attributes:
        writes: of a cell, as the mean over all slices.
        reads: read-backs of a cell, likewise. The last write that is allowed is not read back.
        row_writes: of a row. Slices are written at the same time, so it is that of the slowest slice; in residual
            writing they follow one another, so it is the sum of all slices. The cells of a row are written together
            until the last one is done.
        row_reads: read-backs of a row, likewise.
        worn: writes of a cell in the slice that is written most often.
    """

    writes: float = 1
    reads: float = 0
    row_writes: float = 1
    row_reads: float = 0
    worn: float = 1


@dataclass(frozen=True)
class _SliceEffort:
    """Mean numbers of writes and verifying reads in one slice: of a cell, and of a row."""

    writes: float
    reads: float
    row_writes: float
    row_reads: float


@dataclass(frozen=True)
class _Target:
    """Cells with the same target.

    Attributes:
        share: of all cells of the slice.
        miss: probability that one write misses.
    """

    share: float
    miss: float


def effort(array: Crossbar, slices: int) -> Effort:
    """The effort of writing an array once.

    Args:
        array: the hardware.
        slices: number of slices in use, from the least significant one up, copies included.
    """
    if array.residual is not None:
        read_backs = array.residual.read_backs(slices)
        return Effort(reads=read_backs / slices, row_writes=slices, row_reads=read_backs)
    return Effort() if array.write_verify is None else _verified_effort(array, slices)


@cache
def _verified_effort(array: Crossbar, slices: int) -> Effort:
    """`effort` of an array with write-verify."""
    by_slice = [_slice_effort(_targets(array, s), array.max_writes(s), array.columns) for s in range(slices)]
    return Effort(
        writes=sum(each.writes for each in by_slice) / slices,
        reads=sum(each.reads for each in by_slice) / slices,
        row_writes=max(each.row_writes for each in by_slice),
        row_reads=max(each.row_reads for each in by_slice),
        worn=max(each.writes for each in by_slice),
    )


def _slice_effort(targets: list[_Target], max_writes: int, columns: int) -> _SliceEffort:
    """Mean numbers of writes and reads of the cells of a slice, and of rows of `columns` cells.

    A cell needs more than k writes with probability q^k; a row needs more if any of its cells does.
    """
    cell_needs_more = [sum(target.share * target.miss**k for target in targets) for k in range(max_writes)]
    row_needs_more = [1.0 - max(0.0, 1.0 - probability) ** columns for probability in cell_needs_more]
    return _SliceEffort(sum(cell_needs_more), sum(cell_needs_more[:-1]), sum(row_needs_more), sum(row_needs_more[:-1]))


def _targets(array: Crossbar, s: int) -> list[_Target]:
    """The targets of the cells of slice s. A write of a stuck cell misses always or never."""
    # imported here since only verified writes need torch, whose import takes seconds
    from ohmformer.array.encoding import level_conductances
    from ohmformer.device import write_verify

    assert array.write_verify is not None
    cell, tolerance = array.cell, array.write_verify.tolerance
    largest = ((1 << array.bits) - 1) // array.slice_weight(s) if array.radix is None else array.max_digit
    digits = list(range(min(array.max_digit, largest) + 1))
    unused = 0.5 if array.polarities == 2 else 0.0
    shares = [(1 - unused) / len(digits) + (unused if digit == 0 else 0.0) for digit in digits]
    g = level_conductances(array)[: len(digits)]
    misses = write_verify.miss_probability(g, cell, tolerance).tolist()
    margin = tolerance * (cell.g_max - cell.g_min)
    stuck_states = array.aged_cell.faults.conductances(cell)
    working = 1 - sum(probability for _, probability in stuck_states)
    targets = []
    for share, conductance, miss in zip(shares, g.tolist(), misses, strict=True):
        targets.append(_Target(share * working, miss))
        for g_stuck, probability in stuck_states:
            targets.append(_Target(share * probability, float(abs(conductance - g_stuck) > margin)))
    return targets
