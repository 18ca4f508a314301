"""The candidates for K and V of each point with a budget, as tables for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from ohmformer import units
from ohmformer.report.cost_table import duration_text, point_name
from ohmformer.study.results.candidates import CandidateResult, ComparisonResult
from ohmformer.study.results.spec import MeasuredPoint, StudyResults
from ohmformer.terminal.plain import clean

MOST = 6
"""Number of points whose candidates are shown; results files hold those of all points."""

CAPTION = (
    "loss: of the answers on calibration inputs, above that of the original. Expected: closed-form error of products "
    "with K and V, over that of no mitigation. Costs: change against no mitigation"
)
"""What the columns hold."""


def comparisons(results: StudyResults) -> list[tuple[MeasuredPoint, ComparisonResult]]:
    """The points whose candidates a budget compared, each with its candidates."""
    pairs = [(point, point.accuracy.chosen and point.accuracy.chosen.comparison) for point in results.points]
    return [(point, comparison) for point, comparison in pairs if comparison]


def candidate_tables(results: StudyResults) -> Group:
    """A table for each of the first points with a budget; empty if there is none."""
    found = comparisons(results)
    tables = [_table(point, comparison) for point, comparison in found[:MOST]]
    more = len(found) - MOST
    return Group(*tables, *([f"results.json has the candidates of {more} more points"] if more > 0 else []))


def limits_text(comparison: ComparisonResult) -> str:
    """The limits in words: 'latency +10 %, cells +0 %'."""
    return ", ".join(f"{name} {change(limit)}" for name, limit in comparison.limits.items()) or "no limit"


def change(ratio: float | None) -> str:
    """A factor as a change: '+10 %'; empty if it is not known."""
    return "" if ratio is None else f"{round(100 * (ratio - 1), 4) + 0.0:+.3g} %"  # adding 0.0 makes +0 of -0


def _table(point: MeasuredPoint, comparison: ComparisonResult) -> Table:
    table = Table(title=f"candidates for K and V, {clean(point_name(point))}: {limits_text(comparison)}")
    table.title_justify = table.caption_justify = "left"
    reasons: dict[str, list[str]] = {}
    for name, reason in comparison.left_out.items():
        reasons.setdefault(reason, []).append(name)
    lines = [f"left out, without a price: {'; '.join(names)}: {reason}" for reason, names in reasons.items()]
    table.caption = "\n".join([CAPTION, *map(clean, lines)])
    table.add_column("candidate", overflow="fold")
    for column in ("loss", "expected", "latency", "energy", "cells", "area", "lifetime"):
        table.add_column(column, justify="right")
    table.add_column("budget")
    for each in comparison.candidates:
        table.add_row(*_row(comparison, each))
    return table


def _row(comparison: ComparisonResult, each: CandidateResult) -> tuple[str, ...]:
    expected = "" if each.expected is None else f"{each.expected:.3g}"
    first = each is comparison.candidates[0]
    if first and each.cost is not None:
        costs = [units.show(each.cost.latency, "s"), units.show(each.cost.energy, "J")]
        costs += [f"{each.cost.cells:,}", units.square_mm(each.cost.area)]
    else:
        costs = [change(comparison.ratio(each, name)) for name in ("latency", "energy", "cells", "area")]
    lifetime = "" if each.cost is None or each.cost.lifetime is None else duration_text(each.cost.lifetime)
    within = "chosen" if each.chosen else "within" if each.within else "beyond"
    return clean(each.name), f"{comparison.excess(each):.3g}", expected, *costs, lifetime, within
