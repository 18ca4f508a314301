"""Both halves of a study: beside the accuracy of each point, what it costs. Free of torch until a model is traced."""

from __future__ import annotations

from glob import escape

from ohmformer.errors import BadInput
from ohmformer.hardware.operand_names import kv_rule_names
from ohmformer.hardware.rules import RuleBook
from ohmformer.mitigation.spec import Conditioning
from ohmformer.schema import replace
from ohmformer.study.cost import cost_document, price, remedy_notes
from ohmformer.study.spec import CostSettings, Study, Whole
from ohmformer.study.sweep import Document
from ohmformer.workload.shapes import PREFIX


def has_accuracy(costs: Study[CostSettings] | Study[Whole]) -> bool:
    """Whether there is anything to measure: a real model and a task, at one point at least."""
    return any(not no_accuracy(point.settings) for point in costs.points)


def no_accuracy(settings: CostSettings | Whole) -> str:
    """Why nothing can be measured with these settings; empty where it can."""
    if settings.model.source.startswith(PREFIX):
        return f"no accuracy: {settings.model.source} is a table of dimensions; name a model to measure it"
    return "" if settings.task else "no accuracy: the study has no [task]; add one to measure it"


def costs_alone(costs: Study[CostSettings]) -> Document:
    """The document of a study of which only the cost half can be computed; it says why, where a task is asked for.

    Raises:
        BadInput: a point has no price.
    """
    found = cost_document(costs)
    own = [point.settings for point in costs.points]
    told = [no_accuracy(each) for each in own if each.task or not each.model.source.startswith(PREFIX)]
    return {**found, "notes": [*dict.fromkeys(told), *found["notes"]]}


def with_costs(found: Document, costs: Study[CostSettings]) -> Document:
    """A document of accuracy, with the cost of every point that has prices; `cost_notes` says why others have none.

    Args:
        found: results of the accuracy half.
        costs: the cost half of the same study, so that its points are the same ones.
    """
    points, priced, refused = [], [], []
    for answer, point in zip(found["points"], costs.points, strict=True):
        settings = with_chosen(point.settings, answer["accuracy"].get("chosen"))
        try:
            points.append({**answer, "cost": price(settings, chosen_kv(answer["accuracy"].get("chosen")))})
            priced.append(settings)
        except BadInput as error:
            points.append(answer)
            refused.append(str(error))
    return {**found, "points": points, "cost_notes": [*remedy_notes(priced), *_refusals(refused, len(points))]}


def _refusals(reasons: list[str], points: int) -> list[str]:
    """One line for each reason, with how many points it is about where others have prices."""
    lines = []
    for reason in dict.fromkeys(reasons):
        count = reasons.count(reason)
        lines.append(f"no cost{f' at {count} of {points} points' if count < points else ''}: {reason}")
    return lines


def with_chosen(settings: CostSettings, chosen: Document | None) -> CostSettings:
    """The clips that calibration chose, as rules in front of those that there are; nothing is left to choose.

    Each new rule has everything else from the rule that holds for the operand.
    """
    if not chosen:
        return settings
    book, rules = RuleBook(settings.rules), []
    for name, clip in chosen["clips"].items():
        own = book.rule(kv_rule_names(name))
        rules.append((escape(name), replace(own, "clip", tuple(clip) if isinstance(clip, list) else clip)))
    free = settings.mitigation.model_copy(update={"clip": "none", "kv": "none"})
    return settings.model_copy(update={"rules": (*rules, *settings.rules), "mitigation": free})


def chosen_kv(chosen: Document | None) -> dict[str, Conditioning]:
    """The conditionings that calibration chose, by operand."""
    return {name: Conditioning.model_validate(spec) for name, spec in (chosen or {}).get("kv", {}).items()}
