"""Joins both halves of a study: the accuracy and the cost of each point. Free of torch until a model is traced."""

from __future__ import annotations

from pathlib import Path

from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.study.cost import Price, price, study_costs
from ohmformer.study.cost import notes as notes_of
from ohmformer.study.results.spec import Chosen, MeasuredPoint, StudyCosts, StudyResults
from ohmformer.study.spec import CostSettings, Study, Whole
from ohmformer.workload.shapes import PREFIX


def has_accuracy(costs: Study[CostSettings] | Study[Whole]) -> bool:
    """True if the accuracy of at least one point can be measured, since it has a real model and a task."""
    return any(not no_accuracy(point.settings) for point in costs.points)


def no_accuracy(settings: CostSettings | Whole) -> str:
    """Reason why accuracy cannot be measured with these settings; empty if it can."""
    if settings.model.source.startswith(PREFIX):
        return f"no accuracy: {settings.model.source} is a table of dimensions; name a model to measure it"
    return "" if settings.task else "no accuracy: the study has no [task]; add one to measure it"


def costs_alone(costs: Study[CostSettings], *, price: Price = price, errors: Path | None = None) -> StudyCosts:
    """Compute the costs of a study without measurable accuracy.

    The notes say why accuracy is not measured, if the study has a task or a real model.

    Args:
        costs: the points.
        price: computes the cost of a point.
        errors: see `study_costs`.

    Raises:
        BadInput: a point has no price.
    """
    priced = study_costs(costs, price=price, errors=errors)
    settings = [point.settings for point in costs.points]
    reasons = [no_accuracy(each) for each in settings if each.task or not each.model.source.startswith(PREFIX)]
    return priced.model_copy(update={"notes": (*dict.fromkeys(reasons), *priced.notes)})


def with_costs(measured: StudyResults, costs: Study[CostSettings], *, price: Price = price) -> StudyResults:
    """Results with the cost of every point that has a price; `cost_notes` says why others have none.

    Args:
        measured: results of the accuracy half.
        costs: the cost half of the same study, so that its points are the same ones.
        price: computes the cost of a point.
    """
    points: list[MeasuredPoint] = []
    priced, refused = [], []
    for answer, point in zip(measured.points, costs.points, strict=True):
        settings = without_choice(point.settings, answer.accuracy.chosen)
        try:
            cost = price(settings, answer.accuracy.chosen)
        except BadInput as error:
            points.append(answer)
            refused.append(str(error))
        else:
            points.append(answer.model_copy(update={"cost": cost}))
            priced.append(settings)
    costs_found = [point.cost for point in points if point.cost is not None]
    notes = (*notes_of(priced, costs_found), *_refusals(refused, len(points)))
    return measured.model_copy(update={"points": tuple(points), "cost_notes": notes})


def _refusals(reasons: list[str], points: int) -> list[str]:
    """One line for each reason, with the number of its points if other points have a price."""
    lines = []
    for reason in dict.fromkeys(reasons):
        count = reasons.count(reason)
        lines.append(f"no cost{f' at {count} of {points} points' if count < points else ''}: {reason}")
    return lines


def without_choice(settings: CostSettings, chosen: Chosen | None) -> CostSettings:
    """Settings whose `mitigation` leaves no choice, if calibration has made it."""
    if chosen is None:
        return settings
    free: dict[str, object] = {"clip": "none", "kv": "none"}
    if chosen.weights is not None:  # what the study fixes for K and V stays
        given = settings.mitigation
        free = {
            "clip": given.clip if isinstance(given.clip, KVClip) else "none",
            "kv": given.kv if isinstance(given.kv, Conditioning) else "none",
            "weights": given.fixed_weights,
        }
    return settings.model_copy(update={"mitigation": settings.mitigation.model_copy(update=free)})
