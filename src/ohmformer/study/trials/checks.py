"""Checks `[trials]` against the task, which is known once its data are loaded."""

from __future__ import annotations

from ohmformer.errors import BadInput
from ohmformer.quantities import Percentage
from ohmformer.study.spec import Settings
from ohmformer.tasks.task import Task


def check_trials(settings: Settings, task: Task) -> None:
    """Refuse bounds that do not fit the metric, and more samples than there are.

    Raises:
        BadInput: one line with field, value and remedy.
    """
    trials, metric = settings.trials, task.metric_kind
    bounds = {name: getattr(trials, name) for name in ("ci_halfwidth", "yield_above", "yield_below")}
    for name, value in bounds.items():
        if value is not None and metric.counts == "hit" and not 0 <= value <= 1:
            raise BadInput(f"trials.{name} = {value:g}: {task.metric} lies between 0 and 1; write '{value:g} %'")
        if isinstance(value, Percentage) and metric.unit != "%":
            raise BadInput(
                f"trials.{name} = '{100 * value:g} %': {task.metric} is no share; write a number in its own unit, such "
                "as 0.5"
            )
    wrong, right = ("above", "below") if metric.better == "lower" else ("below", "above")
    if (value := bounds[f"yield_{wrong}"]) is not None:
        raise BadInput(
            f"trials.yield_{wrong} = {value:g}: {metric.better} values of {task.metric} are better; write yield_{right}"
        )
    if trials.samples is not None and trials.samples > len(task):
        raise BadInput(
            f"trials.samples = {trials.samples}: {task.name} has only {len(task)} samples; lower it, or "
            "raise task.limit"
        )
