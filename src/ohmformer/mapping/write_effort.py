"""What verified writes take: how often cells are written and read back, on average. Torch is imported only for them.

Nothing is known of values here, so codes are taken as equally likely: every digit of a slice is, and one half of a
differential pair is unused, at G_min. Real values are mostly small, so this is more work than they make.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ohmformer.array.spec import Crossbar


@dataclass(frozen=True)
class Effort:
    """Of writing an array once.

    Attributes:
        writes: of a cell, the mean over all slices.
        reads: verifying reads of a cell, likewise; the last of the writes that are allowed is not read back.
        row_writes: of a row, whose cells are written at once until the last of them is done; of the slowest slice.
        row_reads: verifying reads of a row, likewise.
        worn: writes of a cell in the slice that is written most.
    """

    writes: float = 1
    reads: float = 0
    row_writes: float = 1
    row_reads: float = 0
    worn: float = 1


def effort(array: Crossbar, slices: int) -> Effort:
    """What it takes to write so many slices of an array, the least significant ones."""
    return Effort() if array.verify is None else _verified(array, slices)


@cache
def _verified(array: Crossbar, slices: int) -> Effort:
    found = [_of_slice(_misses(array, index), array.writes(index), array.columns) for index in range(slices)]
    writes, reads = ([each[name] for each in found] for name in (0, 1))
    return Effort(
        writes=sum(writes) / slices,
        reads=sum(reads) / slices,
        row_writes=max(each[2] for each in found),
        row_reads=max(each[3] for each in found),
        worn=max(writes),
    )


def _of_slice(misses: list[tuple[float, float]], n: int, columns: int) -> tuple[float, float, float, float]:
    """Mean writes and reads of a cell, and of a row of so many cells, from (share, probability to miss) of its cells.

    A cell needs more than k writes with probability q^k; a row does if any of its cells does.
    """
    more = [sum(share * q**k for share, q in misses) for k in range(n)]
    any_of_row = [1.0 - max(0.0, 1.0 - each) ** columns for each in more]
    return sum(more), sum(more[:-1]), sum(any_of_row), sum(any_of_row[:-1])


def _misses(array: Crossbar, index: int) -> list[tuple[float, float]]:
    """(share, probability that one write misses) of the cells of a slice; stuck cells miss always, or never."""
    import torch  # verified writes alone need it, and importing it takes seconds

    from ohmformer.device import write_verify

    assert array.verify is not None
    cell, tolerance = array.cell, array.verify.tolerance
    largest = ((1 << array.bits) - 1) // array.place(index) if array.slice_base is None else array.max_digit
    digits = list(range(min(array.max_digit, largest) + 1))
    unused = 0.5 if array.polarities == 2 else 0.0
    shares = [(1 - unused) / len(digits) + (unused if digit == 0 else 0.0) for digit in digits]
    targets = [cell.g_min + digit * array.step for digit in digits]
    missed = write_verify.miss(torch.tensor(targets, dtype=torch.float64), cell, tolerance).tolist()
    margin = tolerance * (cell.g_max - cell.g_min)
    found = []
    for share, target, q in zip(shares, targets, missed, strict=True):
        stuck = cell.faults.conductances(cell)
        found.append((share * (1 - sum(probability for _, probability in stuck)), q))
        found += [(share * probability, float(abs(target - g) > margin)) for g, probability in stuck]
    return found
