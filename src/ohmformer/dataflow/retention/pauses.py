"""`Pauses`: turns times of computing into times of a clock that also runs while cells are refreshed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ohmformer.cost.machine.refresh import ROUNDING

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pauses:
    """The refreshes of a run: one after every `work` seconds of computing.

    Attributes:
        work: time of computing between two refreshes [s].
        seconds: [n], time of each refresh [s].
    """

    work: float
    seconds: Array

    @property
    def starts(self) -> Array:
        """When each refresh starts, by the clock [n] [s]."""
        return self.work * np.arange(1, len(self.seconds) + 1) + self._before[:-1]

    @property
    def _before(self) -> Array:
        """Time of the first 0, 1, ..., n refreshes [n + 1] [s]."""
        return np.concatenate([[0.0], np.cumsum(self.seconds)])

    def end(self, times: Array) -> Array:
        """When what ends after `times` of computing ends by the clock [s]."""
        passed: Array = times + self._before[self._passed(times)]
        return passed

    def start(self, times: Array) -> Array:
        """When what starts after `times` of computing starts by the clock: after a refresh that is due then [s]."""
        due = np.floor(np.asarray(times) / self.work * (1 + ROUNDING)).astype(np.int64)
        passed: Array = times + self._before[np.clip(due, 0, len(self.seconds))]
        return passed

    def last_start(self, times: Array) -> Array:
        """When the last refresh before `times` of computing started, by the clock [s]; -inf without one."""
        return np.concatenate([[-np.inf], self.starts])[self._passed(times)]

    def _passed(self, times: Array) -> npt.NDArray[np.int64]:
        """Number of refreshes before what ends after `times` of computing."""
        finite = np.where(np.isfinite(times), times, 0.0)
        passed = np.ceil(finite / self.work * (1 - ROUNDING)).astype(np.int64) - 1
        return np.clip(passed, 0, len(self.seconds))
