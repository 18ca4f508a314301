"""When a study has tried enough chips and samples, and which of them to add. Free of torch.

Interval and number of trials are found from the same scores, so an interval that is narrow by chance would end a study
too early, and would hold the truth too rarely. So a study goes on until two looks in a row, the second on half as many
chips again, are narrow (a finite number of trials beyond the first stop restores the coverage: Simons, Annals of
Mathematical Statistics 39, 1968). tests/stats/test_narrowing.py simulates the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ohmformer.stats.intervals import LEVEL, Interval, chip_interval

GROWTH = 1.5
"""Factor from the number of chips or samples of one look to that of the next."""

LOOKS = 2
"""Looks in a row that must be narrow."""


@dataclass(frozen=True)
class Trials:
    """Numbers of chips and of samples."""

    chips: int
    samples: int


def half_width(interval: Interval) -> float:
    """Half the width of an interval; infinite where it is unknown (NaN)."""
    half = (interval[1] - interval[0]) / 2
    return half if math.isfinite(half) else math.inf


def is_narrow(interval: Interval, asked: float) -> bool:
    """True if an interval is at most `asked` to either side of its middle; not if it is unknown (NaN)."""
    return half_width(interval) <= asked


def grown(now: Trials, most: Trials, interval: Interval, values: Sequence[float]) -> Trials | None:
    """Return the trials of the next look; None if there are no more.

    More chips, or more samples, of which the part in the interval is larger: for a product of chips and samples, that
    takes the fewest evaluations.

    Args:
        now: chips and samples that were tried.
        most: the most of them.
        interval: the 95 % interval of what was tried.
        values: the value of every chip that was tried.
    """
    half, chips = half_width(interval), half_width(chip_interval(np.array(values)))
    samples_matter_more = math.isfinite(half) and half**2 > 2 * chips**2
    if now.samples < most.samples and (samples_matter_more or now.chips == most.chips):
        return Trials(now.chips, min(most.samples, math.ceil(GROWTH * now.samples)))
    if now.chips < most.chips:
        return Trials(min(most.chips, math.ceil(GROWTH * now.chips)), now.samples)
    return None


def share_interval(successes: int, count: int) -> Interval:
    """Return the exact (Clopper-Pearson) 95 % interval of a share, from `successes` of `count` independent trials."""
    found = stats.binomtest(successes, count).proportion_ci(confidence_level=LEVEL, method="exact")
    return float(found.low), float(found.high)
