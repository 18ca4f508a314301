"""What things cost, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.console import Group
from rich.table import Table

from ohmformer import units
from ohmformer.report.view import axis_name, setting
from ohmformer.tasks.metric_kinds import METRICS

Document = dict[str, Any]

YEAR, DAY, HOUR = 31557600.0, 86400.0, 3600.0

COMPARED = ("latency_s", "energy_J", "area_m2", "lifetime_s")
"""What points of one row have in common."""


def cost_tables(document: Document) -> Group:
    """A row for each point; for a single point also where its energy and its time go."""
    points = document["points"]
    caption = "\n".join([_caption(points), *document["notes"]])
    table = Table(title=document["study"], title_justify="left", caption_justify="left", caption=caption)
    for column in ("point", "latency", "energy", "power", "area", "arrays", "projection", "attention", "lifetime"):
        table.add_column(column, justify="left" if column == "point" else "right", overflow="fold")
    for point in points:
        table.add_row(_name(point), *_numbers(point["cost"]))
    if len(points) > 1:
        return Group(table)
    cost = points[0]["cost"]
    parts = [
        _shares("energy by component", cost["energy_by"]["component"], "J"),
        _shares("energy by operation", cost["energy_by"]["operation"], "J"),
        _shares("critical path", cost["critical_path_s"], "s"),
    ]
    return Group(table, *parts)


def costs_of_points(document: Document) -> Group:
    """Latency, energy, area and lifetime beside accuracy: one row for all points that cost the same; and notes."""
    points = [point for point in document["points"] if "cost" in point]
    if not points:
        return Group(*document["cost_notes"])
    groups: dict[tuple[Any, ...], list[Document]] = {}
    for point in points:
        groups.setdefault(tuple(point["cost"][key] for key in COMPARED), []).append(point)
    caption = "\n".join([*_wear_spans(points), *document["cost_notes"]])
    table = Table(title="cost of one pass", title_justify="left", caption_justify="left", caption=caption)
    table.add_column("point", overflow="fold")
    for column in ("latency", "energy", "area", "lifetime"):
        table.add_column(column, justify="right")
    for members in groups.values():
        cost = members[0]["cost"]
        shown = [units.show(cost["latency_s"], "s"), units.show(cost["energy_J"], "J"), square_mm(cost["area_m2"])]
        table.add_row("all points" if len(groups) == 1 else _members(members, points), *shown, duration(cost))
    return Group(table)


def _members(members: list[Document], points: list[Document]) -> str:
    """Points of a row by what sets them apart: those of plain sweeps, where there are some, or else by their labels."""
    plain = [point for point in members if not point.get("label")]
    if not plain:
        return "; ".join(map(_name, members))
    everywhere = [point for point in points if not point.get("label")]
    words = []
    for path in dict.fromkeys(path for point in plain for path in point["set"]):
        own = list(dict.fromkeys(_setting(path, point["set"].get(path)) for point in plain))
        if len(own) < len({_setting(path, point["set"].get(path)) for point in everywhere}):
            said = [_setting(path, point["set"][path]) for point in plain if path in point["set"]]
            first, *rest = dict.fromkeys(said)
            words.append(" / ".join([first, *(word.removeprefix(f"{axis_name(path)} = ") for word in rest)]))
    more = f" and {len(members) - len(plain)} labelled" if len(plain) < len(members) else ""
    return f"{'; '.join(words) or 'others'}{more}"


def _wear_spans(points: list[Document]) -> list[str]:
    """What the lifetimes of many points rest on: one line for cells and arrays of one kind."""
    kinds: dict[tuple[Any, ...], list[Document]] = {}
    for wear in (point["cost"]["lifetime"] for point in points):
        if wear and wear["endurance"] is not None and wear["role"]:
            key = wear["endurance"], wear["endurance_source"], wear["pulses_per_write"], wear["arrays"]
            kinds.setdefault(key, []).append(wear)
    spans = ("writes_per_cell_s", "rate_per_s")
    return [f"lifetime: {_wear_words(own[0], *(_span(own, key) for key in spans))}" for own in kinds.values()]


def _span(wears: list[Document], key: str) -> str:
    """'12.3', or '12.3 to 45.6'."""
    values = [wear[key] for wear in wears]
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))


def _wear_words(wear: Document, writes: str, rate: str) -> str:
    return (
        f"endurance {wear['endurance']:.3g} pulses ({wear['endurance_source'] or 'no source'}), "
        f"{wear['pulses_per_write']} to a write, {writes} writes of a cell per second at {rate} passes per second, "
        f"arrays {'shared by all layers' if wear['arrays'] == 'shared' else 'of each layer'}"
    )


def _name(point: Document) -> str:
    found = ", ".join(_setting(path, value) for path, value in point["set"].items())
    return ": ".join(part for part in (point.get("label", ""), found) if part) or "as written"


def _setting(path: str, value: Any) -> str:
    """One swept value in words; a table by its kind and what else it says."""
    if isinstance(value, dict) and "kind" in value:
        rest = [f"{name} {part}" for name, part in value.items() if name != "kind"]
        return ", ".join([str(value["kind"]).replace("_", " "), *rest])
    return setting(path, value)


def _numbers(cost: Document) -> list[str]:
    used = cost["utilization"]
    return [
        units.show(cost["latency_s"], "s"),
        units.show(cost["energy_J"], "J"),
        units.show(cost["power_W"], "W"),
        square_mm(cost["area_m2"]),
        f"{cost['counts']['arrays']:,}",
        *(f"{100 * used[engine]:.0f} %" if engine in used else "-" for engine in ("projection", "attention")),
        duration(cost),
    ]


def square_mm(area: float) -> str:
    """An area in mm^2, as people give it."""
    return f"{area * 1e6:.4g} mm²"


def duration(cost: Document) -> str:
    """A lifetime in words."""
    if cost["lifetime"] is None:
        return "not known"
    seconds = cost["lifetime_s"]
    if seconds is None:
        return "no wear"
    for name, size in (("years", YEAR), ("days", DAY), ("h", HOUR), ("s", 1.0)):
        if seconds >= size or name == "s":
            return f"{seconds / size:.3g} {name}"
    raise AssertionError(seconds)


def _caption(points: list[Document], names: Sequence[str] = ()) -> str:
    """What the lifetimes rest on; with names, also whose they are."""
    lines: dict[str, list[str]] = {}
    for name, point in zip_longest(names, points):
        wear = point["cost"]["lifetime"]
        if wear and wear["endurance"] is not None and wear["role"]:
            said = _wear_words(wear, f"{wear['writes_per_cell_s']:.3g}", f"{wear['rate_per_s']:.4g}")
            lines.setdefault(said, []).append(name)
    told = [f"lifetime{' of ' + ', '.join(whose) if names else ''}: {said}" for said, whose in lines.items()]
    return "\n".join(["projection and attention: share of the time in which at least one unit is at work", *told])


def _shares(title: str, parts: Mapping[str, float], unit: str) -> Table:
    """Parts of a sum, the largest first."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("share", justify="right")
    total = sum(parts.values())
    for name, value in sorted(parts.items(), key=lambda entry: -entry[1]):
        table.add_row(name, units.show(value, unit), f"{100 * value / total:.1f} %" if total else "-")
    return table


ROWS = (
    ("latency", "latency_s", "s"),
    ("energy", "energy_J", "J"),
    ("power", "power_W", "W"),
    ("area", "area_m2", "m^2"),
)
"""Rows of a comparison: name, key, unit."""


def compare_table(document: Document) -> Table:
    """One column for each platform; in brackets how many times the first platform's value it is."""
    points = document["points"]
    names = [point["set"]["hardware.base"] for point in points]
    caption = "\n".join([_caption(points, names), *document["notes"]])
    table = Table(title=document["study"], title_justify="left", caption_justify="left", caption=caption)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    if measured := next((point["accuracy"] for point in points if "accuracy" in point), None):
        table.add_row(METRICS[measured["metric"]].title, *(_accuracy(point, points[0]) for point in points))
    for name, key, unit in ROWS:
        values = [point["cost"][key] for point in points]
        shown = [square_mm(value) if unit == "m^2" else units.show(value, unit) for value in values]
        table.add_row(name, *(_ratio(text, value, values[0]) for text, value in zip(shown, values, strict=True)))
    for engine in ("projection", "attention"):
        shares = [point["cost"]["utilization"].get(engine) for point in points]
        table.add_row(f"{engine} at work", *("-" if share is None else f"{100 * share:.0f} %" for share in shares))
    first = points[0]["cost"]["lifetime_s"]
    lives = [(duration(point["cost"]), point["cost"]["lifetime_s"]) for point in points]
    table.add_row("lifetime", *(_ratio(text, value, first) for text, value in lives))
    return table


def _ratio(text: str, value: float | None, first: float | None) -> str:
    return f"{text} ({value / first:.3g}x)" if value is not None and first else text


def _accuracy(point: Document, first: Document) -> str:
    accuracy = point.get("accuracy")
    if accuracy is None:
        return "-"
    metric = METRICS[accuracy["metric"]]
    low, high = (metric.show(value) for value in accuracy["ci95"])
    unit = f" {metric.unit}" if metric.unit else ""
    return _ratio(f"{metric.show(accuracy['mean'])}{unit} [{low}, {high}]", accuracy["mean"], first["accuracy"]["mean"])
