"""Refreshes of keys and values over a request: a clock that goes on from pass to pass.

The machine computes for `work` seconds, then refreshes, and so on, whatever pass it is in. A refresh takes longer as
the cache grows; `work` is the interval minus the longest refresh, so that no value gets older than the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ohmformer.cost.machine.refresh import Refresh, refreshes
from ohmformer.cost.stage import By, total_energy
from ohmformer.dataflow.retention.pauses import Pauses

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RequestRefresh:
    """The refreshes of a request.

    Attributes:
        kinds: the refresh of the prefill, then those of all steps.
        times: how many of each happen.
    """

    kinds: tuple[Refresh, ...]
    times: npt.NDArray[np.int64]

    @classmethod
    def during(cls, kinds: tuple[Refresh, ...], work: Array) -> RequestRefresh:
        """The refreshes during passes that compute for `work` [1 + N] seconds."""
        between = work_between(kinds)
        sums = [refreshes(float(done), between) for done in np.cumsum(work)]
        return cls(kinds, np.array([now - before for before, now in pairwise([0, *sums])], dtype=np.int64))

    @property
    def seconds(self) -> Array:
        """Time of all refreshes of each pass [1 + N] [s]."""
        each = np.array([refresh.seconds for refresh in self.kinds])
        found: Array = each * self.times
        return found

    @property
    def joules(self) -> Array:
        """Energy of all refreshes of each pass [1 + N] [J]."""
        each = np.array([refresh.joules for refresh in self.kinds])
        found: Array = each * self.times
        return found

    @property
    def gated(self) -> Array:
        """Energy of gated tiles during all refreshes of each pass [1 + N] [J]; 0 if tiles are always on."""
        each = np.array([refresh.static for refresh in self.kinds])
        found: Array = each * self.times
        return found

    @property
    def cell_writes(self) -> float:
        """Number of cells that are written again, each time counted."""
        return float(sum(refresh.cell_writes * int(n) for refresh, n in zip(self.kinds, self.times, strict=True)))

    @property
    def count(self) -> int:
        """Number of refreshes."""
        return int(self.times.sum())

    def energy_by(self, kind: By) -> dict[str, float]:
        """Energy of all refreshes [J], split by component, operation or engine."""
        pairs = zip(self.kinds, self.times, strict=True)
        return total_energy(((refresh.stage, int(n)) for refresh, n in pairs if n), kind)

    def pauses(self, passes: int) -> Pauses:
        """The refreshes of the first `passes` passes."""
        each = np.array([refresh.seconds for refresh in self.kinds[:passes]])
        return Pauses(work_between(self.kinds), np.repeat(each, self.times[:passes]))


def work_between(kinds: Sequence[Refresh]) -> float:
    """Time of computing between two refreshes [s]."""
    return kinds[0].interval - max(refresh.seconds for refresh in kinds)
