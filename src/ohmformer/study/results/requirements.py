"""Types of the answer to `device require`: the limits of cells for one study. Free of torch.

All classes are frozen; `model_dump(by_alias=True)` gives the JSON values of a file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ohmformer.array.spec import Level
from ohmformer.streams.backends import Kernels
from ohmformer.study.results.part import Count, Finite, Part, Text
from ohmformer.tasks.metric_kinds import METRICS, Metric, MetricName

LossUnit = Literal["points", "relative"]
"""`points`: difference of the metric, such as 0.01 for one percentage point. `relative`: share of the metric of the
software model."""

QuantityUnit = Literal["%", "s", "pulses", ""]
"""Unit of the values of a quantity. Values in `%` are shares: 0.01 for 1 %."""

Verdict = Literal["limit", "no limit found", "never"]
"""`limit`: a limit was found. `no limit found`: the loss is within bounds at the end of the range. `never`: it is above
even at the mildest value."""


class MeasuredLoss(Part):
    """The loss of the metric against the software model: same chips, same samples.

    Attributes:
        mean: mean over chips and samples; positive if the hardware is worse.
        near: lower end of its 95 % interval.
        far: upper end; it decides whether the loss is within bounds.
    """

    mean: Finite
    near: Finite
    far: Finite


class EvaluatedValue(Part):
    """One evaluated value of a quantity.

    Attributes:
        value: the value; None if the quantity is switched off.
        loss: the loss there.
    """

    value: Finite | None
    loss: MeasuredLoss


class Requirement(Part):
    """The limit of one quantity, all else as in the study.

    Attributes:
        quantity: its name, such as `write_noise`.
        title: its name in words.
        meaning: what its number says.
        unit: unit of its values: `%` (values are shares), `s`, `pulses`, or empty.
        wanted: `largest` or `smallest` value that holds.
        on: roles of the arrays that it acts on, such as `projection` or `attention.key`.
        today: its value in the study; None if the cells do not have it.
        verdict: whether there is a limit.
        limit: the last value whose loss is within bounds, by the far end of its 95 % interval; None for `never`.
        fails_from: the first value whose loss is certainly above the bound, by the near end; None if there is none.
        searched: smallest and largest value that the search allows.
        parameters: role -> parameters of its cells at the limit.
        evaluations: number of evaluated points.
        points: the evaluated values, from mild to harsh.
        notes: sentences on doubts, such as a loss that does not rise, and on what else causes a loss.
    """

    quantity: Text
    title: Text
    meaning: Text
    unit: QuantityUnit
    wanted: Literal["largest", "smallest"]
    on: tuple[Text, ...]
    today: Finite | None
    verdict: Verdict
    limit: Finite | None
    fails_from: Finite | None
    searched: tuple[Finite, Finite]
    parameters: dict[Text, dict[Text, Any]]
    evaluations: Count
    points: tuple[EvaluatedValue, ...]
    notes: tuple[Text, ...] = ()


class FrontierRow(Part):
    """One point of a frontier: a fixed value of the first quantity (None if it is off), and the limit of the second."""

    value: Finite | None
    requirement: Requirement


class Frontier(Part):
    """The limit of one quantity over values of another one.

    Attributes:
        first: the quantity whose values are fixed, alone: its limit while the second one is off.
        second: name of the quantity whose limit is searched.
        rows: its limits.
    """

    first: Requirement
    second: Text
    rows: tuple[FrontierRow, ...]


class Requirements(Part):
    """The document of `device require`.

    Attributes:
        version: version of the format; the key in JSON is `schema`.
        study: name of the study.
        key: hash of the settings of the study, of the loss and of all options.
        versions: package -> version.
        loss: the bound: 0.01 for one percentage point, or for 1 % of the software metric.
        loss_unit: how the loss counts.
        metric: name of the metric.
        level: fidelity of the simulated hardware.
        kernels: what computed on the CPU.
        software: the metric without crossbars.
        chips: number of chips of each evaluation.
        samples: number of scored samples.
        step: ratio of neighboring values in the search, less 1.
        today: the loss of the study as it is.
        requirements: one for each quantity that was searched.
        frontier: limits of a pair of quantities; None if no map was requested.
        left_out: quantity -> why it was not searched.
        notes: sentences that a reader must know.
    """

    omitted_at_default = frozenset({"frontier", "kernels"})

    version: Literal[1] = Field(alias="schema")
    study: Text
    key: Text
    versions: dict[Text, Text]
    loss: Annotated[Finite, Field(gt=0)]
    loss_unit: LossUnit
    metric: MetricName
    level: Level
    kernels: Kernels = "torch"
    software: Finite
    chips: Annotated[Count, Field(ge=2)]
    samples: Annotated[Count, Field(ge=1)]
    step: Annotated[Finite, Field(gt=0)]
    today: MeasuredLoss
    requirements: tuple[Requirement, ...]
    frontier: Frontier | None = None
    left_out: dict[Text, Text] = Field(default_factory=dict)
    notes: tuple[Text, ...] = ()

    @property
    def shown(self) -> Metric:
        """The metric: its title, its unit, and how its values are shown."""
        return METRICS[self.metric]

    def requirement(self, quantity: str) -> Requirement:
        """The requirement of a quantity.

        Raises:
            KeyError: it was not searched.
        """
        found = {each.quantity: each for each in self.requirements}
        return found[quantity]
