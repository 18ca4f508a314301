"""Steady states of max-plus recursions: the step from which on all times grow by one constant per period.

A max-plus map f adds c to all its results if c is added to all its inputs, and no result falls if an input rises. So
when p steps have shifted the state by one constant g, the next p steps shift it by g again, if what enters from outside
is shifted by g, too, or comes so early that nothing waits for it. Periods above 1 occur, such as with two sets of
cells that are used in turn.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LONGEST_PERIOD = 12
"""Longest period that is looked for."""
MOST_KEPT = 4_000_000
"""Maximum number of times that are kept from former steps."""
SAME = 1e-12
"""Difference up to which two times are equal, relative to the larger."""


class Steady:
    """Finds the period of a sequence of states.

    Attributes:
        states: the latest states, each with the times that decide what follows [s].
    """

    def __init__(self) -> None:
        self.states: deque[Array] = deque(maxlen=LONGEST_PERIOD + 1)

    def add(self, state: Array) -> tuple[int, Any] | None:
        """Add a state.

        Returns:
            The period, in steps, and by how much it shifts all times [s] (see `shift`); None if there is no period yet.
        """
        while self.states and (len(self.states) + 1) * state.size > max(MOST_KEPT, 2 * state.size):
            self.states.popleft()
        self.states.append(state)
        for period in range(1, len(self.states)):
            gain = shift(self.states[-1 - period], state)
            if gain is not None:
                return period, gain
        return None


def shift(before: Array, after: Array) -> Any:
    """The constant by which all times grew [s]; None if they did not grow alike.

    Args:
        before: times along the first axis [s]; a second one is that of designs, each with a constant of its own.
        after: the same times later [s].
    """
    if before.shape != after.shape:
        return None
    gain = after[0] - before[0]
    if not np.all(np.abs(after[-1] - before[-1] - gain) <= SAME * np.abs(after[-1])):
        return None  # most that differ do so here
    return gain if bool(np.all(np.abs(after - before - gain) <= SAME * np.abs(after))) else None


def alike(times: Array, period: int, gain: float) -> float | None:
    """How much later the rows of each period are than those of the period before, if it is the same for all periods.

    Args:
        times: [N, B], times at which the blocks of each sample enter [s].
        period: rows of a period.
        gain: the growth that is expected [s], up to rounding.

    Returns:
        The growth per period [s], free of rounding; None if rows do not grow in this way.
    """
    rounds = (len(times) - 1) // period
    exact = float(times[rounds * period, 0] - times[0, 0]) / rounds
    if abs(exact - gain) > SAME * float(np.abs(times).max()):
        return None
    late = times - _paced(times, period, exact)
    return exact if bool(np.all(np.abs(late) <= SAME * np.abs(times))) else None


def never_later(times: Array, period: int, gain: float) -> bool:
    """True if no row comes later than one that grows by `gain` per period from the first period on.

    Args:
        times: see `alike`.
        period: see `alike`.
        gain: growth per period [s].
    """
    return bool(np.all(times <= _paced(times, period, gain)))


def _paced(times: Array, period: int, gain: float) -> Array:
    """The rows of the first period, repeated with a growth of `gain` per period."""
    steps = np.arange(len(times))
    paced: Array = times[steps % period] + (gain * (steps // period))[:, None]
    return paced
