"""The answer of a study in a sentence or two, computed from its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ohmformer import units
from ohmformer.report.cost_table import point_name
from ohmformer.report.page.accuracy import metric_title, with_interval
from ohmformer.report.page.priced import Priced, priced_points
from ohmformer.report.page.scales import lifetime_text
from ohmformer.report.view import Series, axis_name, clip_name, view
from ohmformer.study.results.costs import CostResult, ServedResult
from ohmformer.study.results.spec import Accuracy, StudyCosts, StudyResults, StudyServed

MOST_LETTERS = 60
"""Length of the name of a point, from which on the answer leaves out its middle; tables have the whole name."""

Quantity = tuple[str, Callable[[CostResult], float], str]

QUANTITIES: tuple[Quantity, ...] = (
    ("Latency", lambda cost: cost.latency_s, "s"),
    ("energy", lambda cost: cost.energy_J, "J"),
)


def answer(document: StudyResults | StudyCosts | StudyServed) -> str:
    """The answer: what the metric does, and what points cost."""
    if isinstance(document, StudyServed):
        return _of_served(document)
    words = [_of_accuracy(document)] if isinstance(document, StudyResults) else [_of_measured(document)]
    return " ".join(filter(None, [*words, _of_costs(priced_points(document))]))


def _of_accuracy(results: StudyResults) -> str:
    seen = view(results)
    if seen.series:
        return _of_series(seen.series, axis_name(seen.x))
    found = [(name, point.accuracy) for name, point in seen.bars]
    return _of_points(found, metric_title(results))


def _of_measured(costs: StudyCosts) -> str:
    """The metric of a comparison of platforms."""
    found = [(point_name(point), point.accuracy) for point in costs.points if point.accuracy is not None]
    return _of_points(found, found[0][1].shown.title) if found else ""


def _of_points(found: Sequence[tuple[str, Accuracy]], title: str) -> str:
    best_name, best = max(found, key=lambda each: _rank(each[1]))
    software = f"{best.shown.text(best.software)}{_unit(best)}"
    if len(found) == 1:
        return f"The simulated hardware reaches {title} {with_interval(best)}; software has {software}."
    worst_name, worst = min(found, key=lambda each: _rank(each[1]))
    return (
        f"Of {len(found)} points, {_quoted(best_name)} is best with {title} {with_interval(best)} and "
        f"{_quoted(worst_name)} worst with {with_interval(worst)}; software has {software}."
    )


def _of_series(series: Sequence[Series], where: str) -> str:
    reference = next((each for each in series if each.name == clip_name("none")), series[0])
    x, point = reference.points[-1]
    accuracy = point.accuracy
    others = [(each.name, found) for each in series if (found := dict(each.points).get(x)) and each is not reference]
    name = f" with {reference.name}" if len(series) > 1 else ""
    verb = "is" if accuracy.ci95[0] <= accuracy.software <= accuracy.ci95[1] else "falls to"
    if verb == "falls to" and accuracy.mean > accuracy.software:
        verb = "rises to"
    word = "against" if verb == "is" else "from"
    text = (
        f"At {where} = {x:g}, {accuracy.shown.title} {verb} {with_interval(accuracy)}{name}, {word} "
        f"{accuracy.shown.text(accuracy.software)}{_unit(accuracy)} in software"
    )
    if not others:
        return f"{text}."
    best_name, best = max(others, key=lambda each: _rank(each[1].accuracy))
    if _rank(best.accuracy) > _rank(accuracy):
        return f"{text}; {best_name} gives {with_interval(best.accuracy)} there."
    return f"{text}; no other series does better there."


def at_most_noise(results: StudyResults) -> str:
    """One sentence: the metric in software and of each series, at the largest swept number. Empty without series."""
    seen = view(results)
    if not seen.series:
        return ""
    x, first = seen.series[0].points[-1]
    there = [(each.name, found.accuracy) for each in seen.series if (found := dict(each.points).get(x))]
    values = [f"{accuracy.shown.text(accuracy.mean)}{_unit(accuracy)} with {name}" for name, accuracy in there]
    title, software = first.accuracy.shown.title, first.accuracy.shown.text(first.accuracy.software)
    words = [f"{software}{_unit(first.accuracy)} in software", *values]
    return f"At {axis_name(seen.x)} = {x:g}, {title} is {', '.join(words[:-1])} and {words[-1]}."


def _rank(accuracy: Accuracy) -> float:
    """Larger is better."""
    return -accuracy.mean if accuracy.shown.better == "lower" else accuracy.mean


def _quoted(name: str) -> str:
    """The name of a point in quotes; of a long one the beginning and the end, by which points of a sweep differ."""
    return f"“{name}”" if len(name) <= MOST_LETTERS else f"“{name[:30].rstrip()} … {name[-27:].lstrip()}”"


def _unit(accuracy: Accuracy) -> str:
    return f" {accuracy.shown.unit}" if accuracy.shown.unit else ""


def _of_costs(priced: Sequence[Priced]) -> str:
    if not priced:
        return ""
    first = priced[0].cost
    if len(priced) == 1:
        return (
            f"One pass takes {units.show(first.latency_s, 's')} and {units.show(first.energy_J, 'J')} on "
            f"{units.square_mm(first.area_m2)}; {lifetime_words(first)}."
        )
    parts = []
    for title, amount, unit in QUANTITIES:
        least, most = (choose(priced, key=lambda each: amount(each.cost)) for choose in (min, max))
        low, high = (units.show(amount(each.cost), unit) for each in (least, most))
        parts.append(
            f"{title} is {low} at all points"
            if low == high
            else f"{title} goes from {low} ({_quoted(least.name)}) to {high} ({_quoted(most.name)})"
        )
    return f"{'; '.join(parts)}.{_longest_life(priced)}"


def _longest_life(priced: Sequence[Priced]) -> str:
    lives = [(each.cost.lifetime_s, each.name) for each in priced if each.cost.lifetime_s is not None]
    if not lives:
        return ""
    (short, short_name), (long, long_name) = min(lives), max(lives)
    if short == long:
        return f" The first cells wear out after {lifetime_text(short)}."
    return (
        f" The first cells wear out after {lifetime_text(short)} ({_quoted(short_name)}) to {lifetime_text(long)} "
        f"({_quoted(long_name)})."
    )


def lifetime_words(cost: CostResult | ServedResult) -> str:
    """When the first cells wear out, in words."""
    if cost.lifetime is None:
        return "how long its cells last is not known"
    if cost.lifetime_s is None:
        return "no cell wears out"
    return f"the first cells wear out after {lifetime_text(cost.lifetime_s)}"


def _of_served(served: StudyServed) -> str:
    cost = served.points[0].cost
    name = (
        f" ({_quoted(point_name(served.points[0]))}, the first of {len(served.points)} points)"
        if served.points[1:]
        else ""
    )
    each = f", each further one takes {units.show(cost.tpot_s, 's')}" if cost.tpot_s is not None else ""
    energy = units.show(cost.energy_per_token_J, "J")
    return (
        f"The first token comes after {units.show(cost.ttft_s, 's')}{each}, at {energy} a token{name}; "
        f"{lifetime_words(cost)}."
    )
