"""A few numbers of a study that stand out at the top of its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ohmformer import units
from ohmformer.report.page.accuracy import shown
from ohmformer.report.page.priced import priced_points
from ohmformer.report.page.scales import lifetime_of, lifetime_text
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.spec import Accuracy, StudyCosts, StudyResults, StudyServed


def key_figures(document: StudyResults | StudyCosts | StudyServed) -> tuple[tuple[str, str], ...]:
    """What and how much: the metric in software and on hardware, latency, energy, area, lifetime; ranges of several."""
    if isinstance(document, StudyServed):
        cost = document.points[0].cost
        further = [("further token", units.show(cost.tpot_s, "s"))] if cost.tpot_s is not None else []
        energy = ("energy of a token", units.show(cost.energy_per_token_J, "J"))
        return (("first token", units.show(cost.ttft_s, "s")), *further, energy, ("lifetime", lifetime_of(cost)))
    measured = [point.accuracy for point in document.points if point.accuracy is not None]
    costs = [each.cost for each in priced_points(document)]
    return (*(_of_metric(measured) if measured else ()), *(_of_costs(costs) if costs else ()))


def _of_metric(measured: list[Accuracy]) -> list[tuple[str, str]]:
    metrics = {accuracy.metric for accuracy in measured}
    if len(metrics) > 1:
        return []
    metric = measured[0].shown
    unit = f" {metric.unit}" if metric.unit else ""
    software = sorted({metric.text(accuracy.software) for accuracy in measured})
    means = sorted((accuracy.mean for accuracy in measured), key=lambda mean: shown(measured[0], mean))
    span = _span([metric.text(mean) for mean in (means[0], means[-1])])
    return [
        (f"{metric.title} in software", f"{' / '.join(software)}{unit}"),
        (f"{metric.title} on the hardware", f"{span}{unit}"),
    ]


def _of_costs(costs: list[CostResult]) -> list[tuple[str, str]]:
    rows: list[tuple[str, Sequence[float], Callable[[float], str]]] = [
        ("latency", [cost.latency_s for cost in costs], lambda value: units.show(value, "s")),
        ("energy", [cost.energy_J for cost in costs], lambda value: units.show(value, "J")),
        ("area", [cost.area_m2 for cost in costs], units.square_mm),
    ]
    found = [(name, _span([show(min(values)), show(max(values))])) for name, values, show in rows]
    lives = [cost.lifetime_s for cost in costs if cost.lifetime_s is not None]
    if not lives:
        return [*found, ("lifetime", lifetime_of(costs[0]))]
    return [*found, ("lifetime", _span([lifetime_text(min(lives)), lifetime_text(max(lives))]))]


def _span(ends: Sequence[str]) -> str:
    """'3 ms', or '3 ms to 5 ms'."""
    return " to ".join(dict.fromkeys(ends))
