"""How far a method stays behind the software model, paired by chip and sample, and what it costs beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from common.curves import Curves, alike
from common.small_files import Cost, Point
from methods import NOTHING

from ohmformer.report.verdict import UNBOUNDED, gain
from ohmformer.stats.intervals import paired_interval

COSTS = {"latency_s": "time", "energy_J": "energy", "area_m2": "area", "wear": "wear"}
"""Fields of a cost, and what they are called."""

NO_PRICE = "no price"


@dataclass(frozen=True)
class Loss:
    """Loss of a method against the software model, with its 95 % interval; positive is worse.

    Attributes:
        mean: loss in the unit of `unit`.
        low, high: bounds of the interval, for other chips and samples; infinite if chips or samples are too few.
        unit: `points` of an accuracy, `%` of a perplexity, or empty for a plain number.
        digits: digits behind the decimal point.
        sign: -1 if a loss lowers the metric, 1 if it raises it.
    """

    mean: float
    low: float
    high: float
    unit: str
    digits: int
    sign: int

    def __str__(self) -> str:
        """The difference from software: '-1.3 [-2.3, -0.4]', or '+4.1 % [+2.0, +6.2]' for a perplexity."""
        bounds = (self.low, self.high) if self.sign > 0 else (-self.high, -self.low)
        unit = " %" if self.unit == "%" else ""
        return f"{self.text(self.sign * self.mean)}{unit} [{', '.join(map(self.text, bounds))}]"

    @property
    def far(self) -> str:
        """The difference at the far end of the interval."""
        return f"{self.text(self.sign * self.high)}{' %' if self.unit == '%' else ''}"

    def text(self, value: float) -> str:
        """A difference with its sign, without its unit."""
        return f"{value:+,.{self.digits}f}"


def loss(found: Curves, point: Point | None) -> Loss | None:
    """The loss of a point of a study; None if the point, or the scores of the software model, are missing.

    The loss of a perplexity is relative: perplexity over that of the software model, less 1. Its interval follows from
    this ratio on each chip and without each window in turn.
    """
    reference = None if point is None else found.software_like(point)
    if point is None or reference is None or not alike(point, reference):
        return None
    metric, plain, measured = found.metric, reference.accuracy, point.accuracy
    if metric.better == "lower":
        chips, windows = np.divide(measured.chips, plain.chips) - 1, measured.left_out or ()
        known = len(windows) == len(plain.left_out or ()) and (len(chips) > 1 or point.gamma == 0)
        low, high = paired_interval(chips, np.divide(windows, plain.left_out or ()) - 1) if known else UNBOUNDED
        return Loss(100 * float(chips.mean()), 100 * low, 100 * high, "%", 1, 1)
    difference = gain(1.0 if point.gamma is None else point.gamma, measured, plain)
    bounds = (difference.low, difference.high) if difference.over_samples else UNBOUNDED
    mean, high, low = (-metric.factor * value for value in (difference.mean, *bounds))
    return Loss(mean, low, high, "points" if metric.unit == "%" else "", metric.digits, -1)


def plain_cost(found: Curves) -> Cost | None:
    """The cost of doing nothing, which is the same at every noise; None if it is unknown."""
    return next((point.cost for point in found.found.get(NOTHING, {}).values() if point.cost), None)


def ratios(found: Curves, point: Point | None) -> dict[str, float] | None:
    """Field of the cost -> factor of what doing nothing costs; None without prices. Unknown wear is left out."""
    plain = plain_cost(found)
    if point is None or point.cost is None or plain is None:
        return None
    pairs = {name: (getattr(point.cost, name), getattr(plain, name)) for name in COSTS}
    return {name: value / least for name, (value, least) in pairs.items() if value is not None and least}


def more(ratio: float) -> str:
    """A factor as an increase: '+12 %', or '+0 %' where nothing changes."""
    increase = 100 * (ratio - 1)
    digits = 1 if 0.05 < abs(increase) < 1 else 0
    text = f"{increase:+.{digits}f}"
    return f"{'+0' if float(text) == 0 else text} %"


def beside(found: Curves, point: Point | None) -> list[str]:
    """The increase of each field of the cost, in the order of `COSTS`."""
    found_ratios = ratios(found, point)
    if found_ratios is None:
        return [NO_PRICE, *["-"] * (len(COSTS) - 1)]
    return [more(found_ratios[name]) if name in found_ratios else "-" for name in COSTS]


def is_bounded(found: Loss) -> bool:
    """True if chips and samples show how much they vary."""
    return math.isfinite(found.high)
