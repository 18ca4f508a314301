"""The software model of a study, scored sample by sample: what losses refer to."""

from __future__ import annotations

import numpy as np

from ohmformer.errors import BadInput, shown
from ohmformer.models.user_code import USERS_CODE, guarded
from ohmformer.study.loaded import loaded, one_thread
from ohmformer.study.requirements.loss import LossBound, read_loss
from ohmformer.study.results.part import made
from ohmformer.study.results.spec import Accuracy
from ohmformer.study.spec import Settings
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.task import Task


def software_accuracy(settings: Settings) -> Accuracy:
    """The metric of the software model, as if it were measured on as many chips as the study has.

    Raises:
        BadInput: model or data cannot be used, or there are too few samples.
    """
    chips = settings.trials.chips
    with guarded(USERS_CODE), one_thread():
        model, task = loaded(settings.model, settings.task)
        measured = scores(model, task, settings.simulation.batch)
        summary = task.summarize(np.stack([measured] * chips))
    by_sample = (chips * measured).tolist() if task.metric_kind.counts != "whole" else None
    if by_sample is not None and task.metric_kind.counts == "hit":
        by_sample = [int(hits) for hits in by_sample]
    return made(
        Accuracy,
        "software.",
        metric=task.metric,
        level=settings.simulation.level,
        kernels=settings.simulation.kernels,
        software=summary.mean,
        mean=summary.mean,
        ci95=(summary.mean, summary.mean),
        chips=summary.chips,
        samples=len(measured),
        score_sums=by_sample,
        left_out=summary.jackknife_means or None,
    )


def checked_bound(loss: str, settings: Settings, software: Accuracy) -> LossBound:
    """The bound that a user gives, if the metric of the software model leaves room for it.

    Raises:
        BadInput: the bound cannot be read; or a model that guesses is within it; or a relative loss refers to a metric
            that is not above 0.
    """
    metric = software.shown
    bound = read_loss(loss, metric)
    if bound.unit == "relative":
        if software.mean <= 0:
            raise BadInput(
                f"{metric.title} of the software model is {metric.text(software.mean)}: a relative loss needs a number "
                "above 0; choose another metric or model"
            )
        if metric.better == "higher" and bound.most >= 1:
            raise BadInput(f"loss = {shown(loss)}: leaves nothing of {metric.title}; give less than 100 %")
        return bound
    task = loaded(settings.model, settings.task)[1]
    chance = chance_level(task)
    if software.mean - bound.most <= chance:
        here, guess = (f"{metric.text(value)} {metric.unit}" for value in (software.mean, chance))
        raise BadInput(
            f"loss = {shown(loss)}: the software model has {here}, and guessing has {guess}, so that a model which "
            "guesses is within the loss; give a smaller loss, or a model that knows the task"
        )
    return bound


def chance_level(task: Task) -> float:
    """The share of right answers of a model that always gives the most frequent classes; 0 without classes."""
    if task.metric_kind.labels != "classes" or task.metric_kind.counts != "hit":
        return 0.0
    _, counts = np.unique(task.labels.numpy(), return_counts=True)
    answers = int(getattr(task.metric_kind, "k", 1))
    return float(np.sort(counts)[::-1][:answers].sum() / counts.sum())
