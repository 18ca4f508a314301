"""Joins both halves of a study: the accuracy and the cost of each point. Free of torch until a model is traced."""

from __future__ import annotations

from collections.abc import Mapping
from glob import escape

from ohmformer.errors import BadInput
from ohmformer.hardware.operand_names import kv_rule_names, weight_rule_names
from ohmformer.hardware.rules import OrderedRules, RuleBook
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.schema import replace
from ohmformer.study.cost import notes as notes_of
from ohmformer.study.cost import price, study_costs
from ohmformer.study.results.spec import Chosen, MeasuredPoint, OperandClip, StudyCosts, StudyResults
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


def costs_alone(costs: Study[CostSettings]) -> StudyCosts:
    """Compute the costs of a study without measurable accuracy.

    The notes say why accuracy is not measured, if the study has a task or a real model.

    Raises:
        BadInput: a point has no price.
    """
    priced = study_costs(costs)
    settings = [point.settings for point in costs.points]
    reasons = [no_accuracy(each) for each in settings if each.task or not each.model.source.startswith(PREFIX)]
    return priced.model_copy(update={"notes": (*dict.fromkeys(reasons), *priced.notes)})


def with_costs(measured: StudyResults, costs: Study[CostSettings]) -> StudyResults:
    """Results with the cost of every point that has a price; `cost_notes` says why others have none.

    Args:
        measured: results of the accuracy half.
        costs: the cost half of the same study, so that its points are the same ones.
    """
    points: list[MeasuredPoint] = []
    priced, refused = [], []
    for answer, point in zip(measured.points, costs.points, strict=True):
        settings = with_chosen(point.settings, answer.accuracy.chosen)
        try:
            cost = price(settings, chosen_kv(answer.accuracy.chosen))
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


def with_chosen(settings: CostSettings, chosen: Chosen | None) -> CostSettings:
    """Settings with what calibration chose for clips and weights, as rules in front of the rules of the study.

    Each new rule keeps the other settings of the rule that holds for the operand. `mitigation` leaves no choice.
    """
    if chosen is None:
        return settings
    book = RuleBook(settings.rules)
    weights = chosen.weights.weights if chosen.weights else {}
    mitigated = tuple(
        (escape(name), replace(book.rule(weight_rule_names(name)), "weights", weights[name]))
        for name in sorted(weights, key=len, reverse=True)  # the name of a whole parameter also matches its parts
    )
    free = settings.mitigation.model_copy(update=_left_alone(settings, chosen))
    return settings.model_copy(
        update={"rules": (*mitigated, *with_clips(settings.rules, chosen.clips)), "mitigation": free}
    )


def with_clips(rules: OrderedRules, clips: Mapping[str, OperandClip]) -> OrderedRules:
    """Rules with one in front for each operand that has a clip."""
    book = RuleBook(rules)
    new = ((escape(name), replace(book.rule(kv_rule_names(name)), "clip", clip)) for name, clip in clips.items())
    return (*new, *rules)


def _left_alone(settings: CostSettings, chosen: Chosen) -> dict[str, object]:
    """The fields of `mitigation` that leave no choice."""
    if chosen.weights is None:
        return {"clip": "none", "kv": "none"}
    fixed = settings.mitigation.kv if isinstance(settings.mitigation.kv, Conditioning) else "none"
    clip = settings.mitigation.clip if isinstance(settings.mitigation.clip, KVClip) else "none"
    return {"clip": clip, "kv": fixed, "weights": settings.mitigation.fixed_weights}


def chosen_kv(chosen: Chosen | None) -> dict[str, Conditioning]:
    """Operand -> the conditioning that calibration chose for it."""
    return dict(chosen.kv) if chosen else {}
