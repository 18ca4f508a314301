"""Objectives and constraints: the quantities of both halves that they name, and how their bounds are read.

The accuracy of a design never counts as better than that of the software model: what it exceeds it by is chance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ohmformer import units
from ohmformer.errors import BadInput, shown, suggest
from ohmformer.study.requirements.loss import read_loss, unit_of
from ohmformer.tasks.metric_kinds import METRICS, Metric

Better = Literal["lower", "higher"]

YEAR = 31_557_600.0


@dataclass(frozen=True)
class Quantity:
    """A number that a search compares.

    Attributes:
        name: its name in files.
        title: its name in words.
        unit: SI unit of its values; empty for plain numbers.
        better: whether lower or higher values are better.
        measured: True if it comes from the accuracy half.
    """

    name: str
    title: str
    unit: str
    better: Better
    measured: bool = False

    @property
    def sign(self) -> int:
        """Factor that makes lower values better."""
        return 1 if self.better == "lower" else -1


COSTS = {
    each.name: each
    for each in (
        Quantity("latency", "latency", "s", "lower"),
        Quantity("energy", "energy", "J", "lower"),
        Quantity("power", "power", "W", "lower"),
        Quantity("area", "area", "m^2", "lower"),
        Quantity("lifetime", "lifetime", "s", "higher"),
        Quantity("throughput", "throughput", "Hz", "higher"),
        Quantity("arrays", "arrays", "", "lower"),
    )
}
"""Name -> quantity of the cost half."""

LOSS, ACCURACY = "loss", "accuracy"
SYNONYMS = {"wear": "lifetime", "endurance": "lifetime"}
_BOUND = re.compile(r"\s*([A-Za-z_][A-Za-z_0-9]*)\s*(<=|>=|<|>|==|=)\s*(\S.*?)\s*")
EXAMPLES = {"area": "100 mm^2", "latency": "1 ms", "energy": "1 mJ", "power": "2 W", "lifetime": "5 years",
            "throughput": "1000 Hz", "arrays": "1000", LOSS: "1 %", ACCURACY: "85 %"}  # fmt: skip
"""Name of a quantity -> an example of a bound."""


def known_names() -> list[str]:
    """All names that an objective or a constraint may have."""
    return [ACCURACY, LOSS, *METRICS, *COSTS]


def is_measured(name: str) -> bool:
    """True if a quantity comes from the accuracy half."""
    return name not in COSTS


def check_goals(objectives: Sequence[str], constraints: Sequence[str]) -> None:
    """Refuse what no study can have as an objective or constraint.

    Raises:
        BadInput: a name is unknown or stands twice, a constraint cannot be read, or there is no objective.
    """
    if not objectives:
        raise BadInput("search.objectives: is missing or empty; name quantities, such as ['loss', 'energy', 'area']")
    for name in objectives:
        _check_name(name, f"search.objectives: {shown(name)}")
    if twice := next((name for name in objectives if objectives.count(name) > 1), ""):
        raise BadInput(f"search.objectives: {shown(twice)} stands twice; leave one out")
    measured = [name for name in objectives if is_measured(name)]
    if len(measured) > 1:
        raise BadInput(
            f"search.objectives: {' and '.join(measured)} say the same, since the loss is that of the "
            "metric; leave one out"
        )
    for text in constraints:
        split_constraint(text)


def _check_name(name: str, where: str) -> None:
    if name in SYNONYMS:
        raise BadInput(f"{where}: is called {SYNONYMS[name]} here; write that")
    if name not in known_names():
        raise BadInput(f"{where}: is not a quantity; {suggest(name, known_names())}")


def split_constraint(text: str) -> tuple[str, str, str]:
    """Name, `<=` or `>=`, and bound of a constraint.

    Raises:
        BadInput: it has another form, or bounds the loss on the side where it is best.
    """
    where = f"search.constraints: {shown(text)}"
    found = _BOUND.fullmatch(text) if len(text) <= 200 else None
    if found is None:
        raise BadInput(f"{where}: is not a constraint; write one such as 'area <= 100 mm^2' or 'loss <= 1 %'")
    name, relation, bound = found.groups()
    _check_name(name, where)
    if relation not in ("<=", ">="):
        raise BadInput(f"{where}: has {relation}; write <= or >=")
    if name in COSTS:
        _cost_bound(COSTS[name], bound, where)
    elif name == LOSS:
        _check_side("lower", relation, where)
    return name, relation, bound


def _check_side(better: Better, relation: str, where: str) -> None:
    """Refuse a measured quantity whose best side is bounded: the software model would be outside, and so all designs.

    Raises:
        BadInput: it is.
    """
    right = "<=" if better == "lower" else ">="
    if relation != right:
        raise BadInput(f"{where}: leaves out the best designs, since {better} values are better; write {right}")


@dataclass(frozen=True)
class Constraint:
    """A bound that a design must keep.

    Attributes:
        text: as written in the file.
        quantity: what is bounded.
        most: True for an upper bound.
        bound: in SI units.
    """

    text: str
    quantity: Quantity
    most: bool
    bound: float

    def violation(self, value: float) -> float:
        """By how much a value violates the bound, relative to it; at most 0 if the value is within it."""
        if math.isinf(value):
            return -1.0 if (value > 0) != self.most else 1.0
        excess = value - self.bound if self.most else self.bound - value
        return excess / abs(self.bound) if self.bound else excess


@dataclass(frozen=True)
class Goals:
    """The objectives and constraints of a search.

    Attributes:
        objectives: what is made as good as possible.
        constraints: what must hold.
        metric: the metric of the task; None if nothing is measured.
    """

    objectives: tuple[Quantity, ...]
    constraints: tuple[Constraint, ...]
    metric: Metric | None

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All quantities that objectives or constraints name, each once."""
        named = (*self.objectives, *(each.quantity for each in self.constraints))
        return tuple({quantity.name: quantity for quantity in named}.values())

    def violated(self, values: Mapping[str, float], *, costs_alone: bool = False) -> list[Constraint]:
        """The constraints that values violate; with `costs_alone`, those of the cost half."""
        return [
            each
            for each in self.constraints
            if not (costs_alone and each.quantity.measured) and each.violation(values[each.quantity.name]) > 0
        ]

    def point(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """The objectives of a design as numbers of which lower ones are better."""
        return tuple(each.sign * values[each.name] for each in self.objectives)


def needs_accuracy(objectives: Sequence[str], constraints: Sequence[str]) -> bool:
    """True if an objective or a constraint comes from the accuracy half."""
    return any(is_measured(name) for name in (*objectives, *(split_constraint(text)[0] for text in constraints)))


def goals_of(objectives: Sequence[str], constraints: Sequence[str], metric: Metric | None) -> Goals:
    """The goals of a study whose task has this metric.

    Raises:
        BadInput: another metric is named, or a bound cannot be read.
    """
    named = tuple(_quantity(name, metric, f"search.objectives: {shown(name)}") for name in objectives)
    return Goals(named, tuple(_constraint(text, metric) for text in constraints), metric)


def _quantity(name: str, metric: Metric | None, where: str) -> Quantity:
    if name in COSTS:
        return COSTS[name]
    assert metric is not None
    if name == LOSS:
        return Quantity(LOSS, f"loss of {metric.title}", "%", "lower", measured=True)
    if name not in (ACCURACY, metric.kind):
        raise BadInput(f"{where}: the metric of the task is {metric.kind}; write that, or 'accuracy' for any metric")
    return Quantity(name, metric.title, metric.unit, metric.better, measured=True)


def _constraint(text: str, metric: Metric | None) -> Constraint:
    name, relation, bound = split_constraint(text)
    where = f"search.constraints: {shown(text)}"
    quantity = _quantity(name, metric, where)
    if not quantity.measured:
        number = _cost_bound(quantity, bound, where)
    elif name == LOSS:
        assert metric is not None
        try:
            number = read_loss(bound, metric).most
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
    else:
        assert metric is not None
        _check_side(metric.better, relation, where)
        number = _metric_bound(metric, bound, where)
    return Constraint(text, quantity, relation == "<=", number)


def _cost_bound(quantity: Quantity, bound: str, where: str) -> float:
    plain = re.sub(r"m(2|²)$", "m^2", bound) if quantity.unit == "m^2" else bound
    try:
        number = units.parse(plain, quantity.unit) if quantity.unit else float(plain)
    except ValueError as error:
        said = (
            f"{shown(bound)} {error}" if quantity.unit else f"{shown(bound)} is not a number; write one without a unit"
        )
        raise BadInput(f"{where}: {said} (such as '{EXAMPLES[quantity.name]}')") from None
    if not math.isfinite(number) or number < 0:
        raise BadInput(f"{where}: {shown(bound)} must be a finite number that is not below 0; correct it")
    return number


def _metric_bound(metric: Metric, bound: str, where: str) -> float:
    try:
        number = units.parse(bound, "%") if metric.unit == "%" else float(bound) / metric.factor
    except ValueError:
        example = "85 %" if metric.unit == "%" else "25"
        raise BadInput(
            f"{where}: {shown(bound)} is no value of {metric.title}; write one such as '{example}'"
        ) from None
    if not math.isfinite(number):
        raise BadInput(f"{where}: {shown(bound)} must be a finite number; correct it")
    low, high = metric.limits or (-math.inf, math.inf)
    if not low <= number * metric.factor <= high:
        raise BadInput(f"{where}: {shown(bound)} is no value of {metric.title}, from {low:g} to {high:g}; correct it")
    return number


def counted(metric: Metric, software: float, mean: float) -> float:
    """The metric of a design as a search counts it: at best that of the software model."""
    return min(mean, software) if metric.better == "higher" else max(mean, software)


def loss_counted(metric: Metric, software: float, mean: float) -> float:
    """The loss as a search counts it, at least 0: a difference of shares, or a share of the software's value."""
    sign = 1.0 if metric.better == "higher" else -1.0
    loss = sign * (software - mean)
    scale = 1.0 if unit_of(metric) == "points" else abs(software)
    return max(0.0, loss / scale if scale else loss)


def measured_values(goals: Goals, software: float, mean: float) -> dict[str, float]:
    """The values of the measured quantities of a search."""
    assert goals.metric is not None
    return {
        each.name: (loss_counted if each.name == LOSS else counted)(goals.metric, software, mean)
        for each in goals.quantities
        if each.measured
    }


def kept_by_mean_alone(goals: Goals, software: float, ci95: tuple[float, float]) -> list[Constraint]:
    """The constraints on the metric or its loss that the worse end of a 95 % interval of the metric violates."""
    if goals.metric is None:
        return []
    worse = measured_values(goals, software, ci95[0] if goals.metric.better == "higher" else ci95[1])
    return [
        each for each in goals.constraints if each.quantity.measured and each.violation(worse[each.quantity.name]) > 0
    ]


def shown_quantity(name: str, unit: str, value: float) -> str:
    """A value for readers: '61.5 mm²', '3.2 years', '1.5 %'."""
    if math.isinf(value):
        return "unlimited"
    if unit == "m^2":
        return units.square_mm(value)
    if name == "lifetime":
        for length, word in ((YEAR, "years"), (86400.0, "days"), (3600.0, "h")):
            if value >= length:
                return f"{value / length:,.3g} {word}"
    if unit == "%":
        return f"{100 * value:.3g} %"
    return units.show(value, unit) if unit else f"{value:,.4g}"
