"""The points of a document that have a price, one for all points that cost the same."""

from __future__ import annotations

from dataclasses import dataclass

from ohmformer.report.cost_table import axis_sizes, member_words, point_name
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.spec import MeasuredPoint, StudyCosts, StudyResults


@dataclass(frozen=True)
class Priced:
    """Points with the same cost.

    Attributes:
        name: what sets them apart from others.
        cost: their cost.
    """

    name: str
    cost: CostResult


def priced_points(document: StudyResults | StudyCosts) -> list[Priced]:
    """Each different cost, with the name of its points."""
    if isinstance(document, StudyCosts):
        return [Priced(point_name(point), point.cost) for point in document.points]
    found = [(point, point.cost) for point in document.points if point.cost is not None]
    groups: dict[tuple[float | None, ...], list[tuple[MeasuredPoint, CostResult]]] = {}
    for point, cost in found:
        groups.setdefault((cost.latency_s, cost.energy_J, cost.area_m2, cost.lifetime_s), []).append((point, cost))
    sizes = axis_sizes([point for point, _ in found])
    return [
        Priced(
            "all points" if len(groups) == 1 else member_words([point for point, _ in members], sizes), members[0][1]
        )
        for members in groups.values()
    ]
