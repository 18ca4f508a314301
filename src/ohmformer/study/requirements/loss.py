"""The loss of a metric against the software model, with its paired interval, and the bound that a user gives for it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ohmformer.errors import BadInput, one_line
from ohmformer.stats.intervals import Floats, Interval, crossed_interval, paired_interval
from ohmformer.study.results.requirements import LossUnit, MeasuredLoss
from ohmformer.study.results.spec import Accuracy
from ohmformer.tasks.metric_kinds import Metric

FEWEST_SAMPLES = 6
"""Fewest samples that exclude chance at 95 % if all of them change alike (sign test: 2 / 2^6 < 5 %)."""

_LOSS = re.compile(r"\s*([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|[+-]?\.\d+)\s*(%|points?|pp)\s*")


@dataclass(frozen=True)
class LossBound:
    """The largest loss that a user accepts.

    Attributes:
        most: 0.01 for one percentage point, or for 1 % of the software metric.
        unit: how it counts.
    """

    most: float
    unit: LossUnit

    def __str__(self) -> str:
        return f"{100 * self.most:.4g} {'percentage points' if self.unit == 'points' else '%'}"

    def text(self, loss: MeasuredLoss) -> str:
        """A loss with its interval: '1.2 [0.8, 1.6] points'."""
        mean, near, far = (f"{100 * value:.3g}" for value in (loss.mean, loss.near, loss.far))
        return f"{mean} [{near}, {far}] {'points' if self.unit == 'points' else '%'}"

    def holds(self, loss: MeasuredLoss) -> bool:
        """True if the far end of the interval of the loss is within the bound."""
        return loss.far <= self.most

    def may_hold(self, loss: MeasuredLoss) -> bool:
        """True if the near end of the interval of the loss is within the bound."""
        return loss.near <= self.most


def unit_of(metric: Metric) -> LossUnit:
    """How losses of a metric count: in points for shares of samples in percent, relative to the software otherwise."""
    return "points" if metric.unit == "%" and metric.limits is not None else "relative"


def check_loss_text(loss: Any) -> None:
    """Refuse a loss without number and unit, before the metric is known.

    Raises:
        BadInput: it is no such text.
    """
    if not isinstance(loss, str) or _LOSS.fullmatch(loss) is None:
        raise BadInput(f"loss = {one_line(loss)}: has no unit or is not a number; write it as '1 %'")


def read_loss(loss: Any, metric: Metric) -> LossBound:
    """The bound that a user gives as text, such as "1 %" or "0.5 points".

    Raises:
        BadInput: it has no unit, is not above 0, is 100 or more, or counts in points for a metric without them.
    """
    unit = unit_of(metric)
    example = "'1 %' for one percentage point" if unit == "points" else "'1 %' of the software model's metric"
    found = _LOSS.fullmatch(loss) if isinstance(loss, str) else None
    if found is None:
        raise BadInput(f"loss = {one_line(loss)}: has no unit or is not a number; write {example}")
    number = float(found[1])
    if not (0 < number <= 1000 and (unit == "relative" or number < 100)):
        most = "100" if unit == "points" else "1000"
        raise BadInput(f"loss = {one_line(loss)}: must be above 0 and below {most} %; write {example}")
    if found[2] != "%" and unit == "relative":
        raise BadInput(f"loss = {one_line(loss)}: {metric.title} does not count in points; write {example}")
    return LossBound(number / 100, unit)


def loss_of(accuracy: Accuracy, software: Accuracy) -> MeasuredLoss:
    """The loss of a point, with the 95 % interval of the paired difference over chips and samples.

    For a relative loss, the interval is that of the ratio of both metrics, which is linear in small changes.

    Args:
        accuracy: the point.
        software: the software model on the same samples, as if measured on as many chips.

    Raises:
        BadInput: there are too few chips or samples to show how much they vary.
    """
    metric = accuracy.shown
    sign = 1.0 if metric.better == "lower" else -1.0
    chips = sign * np.subtract(accuracy.chips, software.chips)
    scale = 1.0 if unit_of(metric) == "points" else software.mean
    near, far = _interval(chips / scale, accuracy, software, sign, scale)
    if not (math.isfinite(near) and math.isfinite(far)):
        raise BadInput(
            f"samples = {accuracy.samples}, trials.chips = {len(accuracy.chips)}: too few to show how much the loss "
            "varies, so it has no 95 % interval; score more samples (task.limit), on more chips (trials.chips)"
        )
    return MeasuredLoss(mean=float(chips.mean() / scale), near=near, far=far)


def _interval(chips: Floats, accuracy: Accuracy, software: Accuracy, sign: float, scale: float) -> Interval:
    """The interval of the mean loss; unbounded if results hold nothing of single samples.

    Args:
        chips: [C], loss on each chip.
        accuracy: the point.
        software: the software model.
        sign: 1 if lower values of the metric are better, otherwise -1.
        scale: the metric that a relative loss refers to; 1 for points.
    """
    unbounded = (-math.inf, math.inf)
    if len(chips) < 2 or accuracy.samples < FEWEST_SAMPLES:
        return unbounded
    if accuracy.score_sums is not None and software.score_sums is not None:
        here, there = (np.array(each.score_sums) / len(chips) for each in (accuracy, software))
        ratio = 1.0 if unit_of(accuracy.shown) == "points" else accuracy.mean / software.mean
        # for ratio 1 the difference of each sample; otherwise the linear part of a ratio of two means
        return crossed_interval(chips, sign * (here - ratio * there) / scale)
    if accuracy.left_out and software.left_out and len(accuracy.left_out) == len(software.left_out):
        here, there = np.array(accuracy.left_out), np.array(software.left_out)
        without = sign * ((here - there) if unit_of(accuracy.shown) == "points" else here / there - 1.0)
        return paired_interval(chips, without) if np.ptp(here) > 0 else unbounded
    return unbounded
