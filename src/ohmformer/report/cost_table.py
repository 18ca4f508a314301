"""Costs as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from rich.console import Group
from rich.table import Table

from ohmformer import units
from ohmformer.report.view import MOST_ROWS, axis_name, more_rows, setting, table_words
from ohmformer.study.results.costs import CostResult, ServedResult, Wear
from ohmformer.study.results.spec import (
    Accuracy,
    MeasuredPoint,
    PricedPoint,
    ServedPoint,
    StudyCosts,
    StudyResults,
)

YEAR, DAY, HOUR = 31557600.0, 86400.0, 3600.0

MOST_WEARS = 12
"""Lines on assumptions behind lifetimes, and names in one of them; where points need more, lines name spans."""


def cost_tables(costs: StudyCosts, *, stored: bool = True) -> Group:
    """A row for each point; for a single point also where its energy and its time go.

    Args:
        costs: the points.
        stored: as in `more_rows`.
    """
    points = costs.points
    caption = "\n".join([_caption(named_wears(points)), *costs.notes])
    table = Table(title=costs.study, title_justify="left", caption_justify="left", caption=caption)
    for column in ("point", "latency", "energy", "power", "area", "arrays", "projection", "attention", "lifetime"):
        table.add_column(column, justify="left" if column == "point" else "right", overflow="fold")
    for point in points[:MOST_ROWS]:
        table.add_row(point_name(point), *_numbers(point.cost))
    if len(points) > 1:
        return Group(table, *more_rows(len(points), stored=stored))
    (only,) = points
    return Group(
        table,
        shares("energy by component", only.cost.energy_by.component, "J"),
        shares("energy by operation", only.cost.energy_by.operation, "J"),
        shares("critical path", only.cost.critical_path_s, "s"),
    )


def costs_of_points(results: StudyResults) -> Group:
    """Latency, energy, area and lifetime beside accuracy: one row for all points that cost the same; and notes."""
    priced = [(point, point.cost) for point in results.points if point.cost is not None]
    cost_notes = results.cost_notes or ()
    if not priced:
        return Group(*cost_notes)
    groups: dict[tuple[float | None, ...], list[tuple[MeasuredPoint, CostResult]]] = {}
    for point, cost in priced:
        groups.setdefault((cost.latency_s, cost.energy_J, cost.area_m2, cost.lifetime_s), []).append((point, cost))
    caption = "\n".join([*_wear_spans([cost.lifetime for _, cost in priced]), *cost_notes])
    table = Table(title="cost of one pass", title_justify="left", caption_justify="left", caption=caption)
    table.add_column("point", overflow="fold")
    for column in ("latency", "energy", "area", "lifetime"):
        table.add_column(column, justify="right")
    sizes = axis_sizes([point for point, _ in priced])
    for members in list(groups.values())[:MOST_ROWS]:
        cost = members[0][1]
        amounts = [units.show(cost.latency_s, "s"), units.show(cost.energy_J, "J"), units.square_mm(cost.area_m2)]
        name = "all points" if len(groups) == 1 else member_words([point for point, _ in members], sizes)
        table.add_row(name, *amounts, duration(cost))
    return Group(table, *more_rows(len(groups)))


def axis_sizes(points: Sequence[MeasuredPoint]) -> dict[str, int]:
    """Path -> number of its different values in points without a label, for `member_words`."""
    plain = [point for point in points if not point.label]
    paths = dict.fromkeys(path for point in plain for path in point.set)
    return {path: len({_setting(path, point.set.get(path)) for point in plain}) for path in paths}


def member_words(members: list[MeasuredPoint], sizes: Mapping[str, int]) -> str:
    """Points of a row by what sets them apart: those of plain sweeps, where there are some, or else by their labels.

    Args:
        members: the points.
        sizes: see `axis_sizes`, of all points.
    """
    plain = [point for point in members if not point.label]
    if not plain:
        return "; ".join(map(point_name, members))
    words = []
    for path in dict.fromkeys(path for point in plain for path in point.set):
        in_row = {_setting(path, point.set.get(path)) for point in plain}
        if len(in_row) < sizes[path]:
            first, *rest = dict.fromkeys(_setting(path, point.set[path]) for point in plain if path in point.set)
            words.append(" / ".join([first, *(word.removeprefix(f"{axis_name(path)} = ") for word in rest)]))
    more = f" and {len(members) - len(plain)} labeled" if len(plain) < len(members) else ""
    return f"{'; '.join(words) or 'others'}{more}"


def _wear_spans(wears: Sequence[Wear | None]) -> list[str]:
    """Assumptions behind the lifetimes of many points: one line for each kind of cells and arrays, up to some."""
    kinds: dict[tuple[Any, ...], list[Wear]] = {}
    for wear in wears:
        if _wears_out(wear):
            key = wear.endurance, wear.endurance_source, wear.pulses_per_write, wear.arrays
            kinds.setdefault(key, []).append(wear)
    lines = [
        "lifetime: "
        + _wear_words(
            same[0], _span([wear.writes_per_cell_s for wear in same]), _span([wear.rate_per_s for wear in same])
        )
        for same in list(kinds.values())[:MOST_WEARS]
    ]
    more = len(kinds) - MOST_WEARS
    return [*lines, f"lifetime: {more:,} more kinds of cells or endurances"] if more > 0 else lines


def _wears_out(wear: Wear | None) -> TypeGuard[Wear]:
    """True if cells are rewritten whose endurance has an end."""
    return wear is not None and wear.endurance is not None and bool(wear.role)


def _span(values: Sequence[float]) -> str:
    """'12.3', or '12.3 to 45.6'."""
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))


def _wear_words(wear: Wear, writes: str, rate: str) -> str:
    return (
        f"endurance {wear.endurance:.3g} pulses ({wear.endurance_source or 'no source'}), "
        f"{wear.pulses_per_write:.4g} to a write, {writes} writes of a cell per second at {rate} passes per second, "
        f"arrays {'shared by all layers' if wear.arrays == 'shared' else 'of each layer'}"
    )


def point_name(point: MeasuredPoint | PricedPoint | ServedPoint) -> str:
    """The label of a point, and what was set."""
    settings = ", ".join(_setting(path, value) for path, value in point.set.items())
    return ": ".join(filter(None, (point.label, settings))) or "as written"


def _setting(path: str, value: Any) -> str:
    """One swept value in words; a table by its kind and what else it says."""
    if isinstance(value, dict) and "kind" in value:
        return table_words(value)
    return setting(path, value)


def _numbers(cost: CostResult) -> list[str]:
    """The cells of a point's row."""
    used = cost.utilization
    return [
        units.show(cost.latency_s, "s"),
        units.show(cost.energy_J, "J"),
        units.show(cost.power_W, "W"),
        units.square_mm(cost.area_m2),
        f"{cost.counts['arrays']:,}",
        *(f"{100 * used[engine]:.0f} %" if engine in used else "-" for engine in ("projection", "attention")),
        duration(cost),
    ]


def duration(cost: CostResult | ServedResult) -> str:
    """A lifetime in words."""
    if cost.lifetime is None:
        return "not known"
    return "no wear" if cost.lifetime_s is None else duration_text(cost.lifetime_s)


def duration_text(seconds: float) -> str:
    """A time in years, days, hours or seconds."""
    for name, size in (("years", YEAR), ("days", DAY), ("h", HOUR)):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


def _caption(wears: Sequence[tuple[str, Wear | None]]) -> str:
    """What the shares of engines mean, and the assumptions behind the lifetimes, as lines of a caption."""
    about = "projection and attention: share of the time in which at least one unit is at work"
    return "\n".join([about, *caption_of(wears)])


def named_wears(points: Sequence[PricedPoint | ServedPoint]) -> list[tuple[str, Wear | None]]:
    """Name and wear of each point, for `caption_of`; without names where all points wear out alike."""
    wears = [point.cost.lifetime for point in points]
    alike = all(wear == wears[0] for wear in wears)
    return [("" if alike else f"'{point_name(point)}'", wear) for point, wear in zip(points, wears, strict=True)]


def caption_of(wears: Sequence[tuple[str, Wear | None]]) -> list[str]:
    """Assumptions behind the lifetimes, as lines of a caption; spans of them where many points differ.

    Args:
        wears: name of the platform or point, and its wear; the name is empty where the line needs none.
    """
    lines: dict[str, list[str]] = {}
    for name, wear in wears:
        if _wears_out(wear):
            words = _wear_words(wear, f"{wear.writes_per_cell_s:.3g}", f"{wear.rate_per_s:.4g}")
            lines.setdefault(words, []).extend([name] if name else [])
    if len(lines) > MOST_WEARS:
        return _wear_spans([wear for _, wear in wears])
    return [f"lifetime{' of ' + _names(names) if names else ''}: {words}" for words, names in lines.items()]


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_WEARS
    return ", ".join(names[:MOST_WEARS]) + (f" and {more:,} more" if more > 0 else "")


def shares(title: str, parts: Mapping[str, float], unit: str) -> Table:
    """Parts of a sum, the largest first."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("share", justify="right")
    total = sum(parts.values())
    for name, value in sorted(parts.items(), key=lambda entry: -entry[1]):
        table.add_row(name, units.show(value, unit), f"{100 * value / total:.1f} %" if total else "-")
    return table


def compare_table(costs: StudyCosts) -> Table:
    """One column for each platform; in brackets how many times the first platform's value it is."""
    points, priced = costs.points, [point.cost for point in costs.points]
    names = [str(point.set["hardware.base"]) for point in points]
    wears = [(name, cost.lifetime) for name, cost in zip(names, priced, strict=True)]
    table = Table(title=costs.study, title_justify="left", caption_justify="left")
    table.caption = "\n".join([_caption(wears), *costs.notes])
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    if measured := next((point.accuracy for point in points if point.accuracy), None):
        table.add_row(measured.shown.title, *(_accuracy(point.accuracy, points[0].accuracy) for point in points))
    table.add_row("latency", *_with_ratios([(units.show(cost.latency_s, "s"), cost.latency_s) for cost in priced]))
    table.add_row("energy", *_with_ratios([(units.show(cost.energy_J, "J"), cost.energy_J) for cost in priced]))
    table.add_row("power", *_with_ratios([(units.show(cost.power_W, "W"), cost.power_W) for cost in priced]))
    table.add_row("area", *_with_ratios([(units.square_mm(cost.area_m2), cost.area_m2) for cost in priced]))
    for engine in ("projection", "attention"):
        shares = [cost.utilization.get(engine) for cost in priced]
        table.add_row(f"{engine} at work", *("-" if share is None else f"{100 * share:.0f} %" for share in shares))
    table.add_row("lifetime", *_with_ratios([(duration(cost), cost.lifetime_s) for cost in priced]))
    return table


def _with_ratios(values: Sequence[tuple[str, float | None]]) -> list[str]:
    """Shown values with their ratios to the first one."""
    return [_ratio(text, value, values[0][1]) for text, value in values]


def _ratio(text: str, value: float | None, first: float | None) -> str:
    return f"{text} ({value / first:.3g}x)" if value is not None and first else text


def _accuracy(accuracy: Accuracy | None, first: Accuracy | None) -> str:
    """An accuracy with its interval, and its ratio to the first one."""
    if accuracy is None:
        return "-"
    metric = accuracy.shown
    low, high = (metric.text(value) for value in accuracy.ci95)
    unit = f" {metric.unit}" if metric.unit else ""
    return _ratio(f"{metric.text(accuracy.mean)}{unit} [{low}, {high}]", accuracy.mean, first.mean if first else None)
