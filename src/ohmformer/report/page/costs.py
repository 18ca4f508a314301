"""The cost half of a page: what points cost, where energy goes, and how long cells last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ohmformer import units
from ohmformer.report.cost_table import caption_of, point_name
from ohmformer.report.page.accuracy import with_interval
from ohmformer.report.page.content import Axis, Chart, Section, Table, Trace
from ohmformer.report.page.priced import Priced, priced_points
from ohmformer.report.page.scales import amount_text, lifetime_of, scale, scale_of_times, spread
from ohmformer.study.results.costs import EnergyBy, ServedResult
from ohmformer.study.results.spec import StudyCosts, StudyResults, StudyServed

MOST_BARS = 12
"""Most points that a chart of bars shows; tables show all."""

MOST_PARTS = 6
"""Most parts of a bar with a color of their own; the smaller ones are one part."""

REST = "all others"


def cost_sections(document: StudyResults | StudyCosts) -> list[Section]:
    """Costs, energy and lifetime of the points that have a price; why others have none."""
    priced = priced_points(document)
    notes = tuple(document.cost_notes or () if isinstance(document, StudyResults) else document.notes)
    if not priced:
        return [Section("cost", "Cost", notes=notes)] if notes else []
    caption = "Latency, energy, area and lifetime of each point"
    table = _platform_table(document, caption) if isinstance(document, StudyCosts) else _cost_table(priced, caption)
    sections = [
        Section("cost", "Cost of one pass", tables=(table,), notes=notes),
        energy_section([(each.name, each.cost.energy_by) for each in priced]),
    ]
    return [*sections, *lifetime_sections(priced)]


def _cost_table(priced: Sequence[Priced], caption: str, metrics: Sequence[str] = ()) -> Table:
    """Costs of each point.

    Args:
        priced: the points.
        caption: of the table.
        metrics: the metric of each point in words; empty where none was measured.
    """
    columns = ("latency", "energy", "power", "area", "arrays", "projection at work", "attention at work", "lifetime")
    rows = []
    for number, each in enumerate(priced):
        cost, used = each.cost, each.cost.utilization
        amounts = [units.show(cost.latency_s, "s"), units.show(cost.energy_J, "J"), units.show(cost.power_W, "W")]
        at_work = [f"{100 * used[name]:.0f} %" if name in used else "-" for name in ("projection", "attention")]
        arrays = f"{cost.counts['arrays']:,}" if "arrays" in cost.counts else "-"
        cells = (*amounts, units.square_mm(cost.area_m2), arrays, *at_work, lifetime_of(cost))
        rows.append((each.name, *metrics[number : number + 1], *cells))
    return Table(caption, ("point", *(["mean [95 % interval]"] if metrics else []), *columns), tuple(rows))


def _platform_table(costs: StudyCosts, caption: str) -> Table:
    """Costs of the points of a document of costs, with the metric where it was measured."""
    measured = [with_interval(point.accuracy) if point.accuracy else "-" for point in costs.points]
    metrics = measured if any(point.accuracy for point in costs.points) else []
    return _cost_table(priced_points(costs), caption, metrics)


def comparison_section(comparisons: Sequence[StudyCosts]) -> Section:
    """The same or other models on several accelerators: a table for each comparison."""
    tables = tuple(_platform_table(each, each.study) for each in comparisons)
    notes = dict.fromkeys(note for each in comparisons for note in each.notes)
    return Section("platforms", "On other machines", tables=tables, notes=tuple(notes))


def energy_section(points: Sequence[tuple[str, EnergyBy]]) -> Section:
    """Where energy goes, by component and by operation."""
    by_component = [(name, energy.component) for name, energy in points]
    by_operation = [(name, energy.operation) for name, energy in points]
    charts = [
        parts_chart("energy", "Energy by component", by_component, "J", "energy"),
        parts_chart("operations", "Energy by operation", by_operation, "J", "energy"),
    ]
    return Section("energy", "Where energy goes", charts=tuple(charts))


Parts = Mapping[str, float]
"""Part -> amount."""


def parts_chart(name: str, title: str, points: Sequence[tuple[str, Parts]], unit: str, quantity: str) -> Chart:
    """Parts of a sum: one bar for each part of a single point, or a stacked bar for each of several points."""
    table = _parts_table(title, points, unit)
    drawn = _chosen(points)
    if len(points) == 1:
        parts = _largest(drawn[0][1])
        size, unit_name = scale(parts.values(), unit)
        first = next(iter(parts), "")
        summary = (
            f"The largest part: {first} has {_percent(parts[first], sum(parts.values()))}." if first else "Nothing."
        )
        traces: tuple[Trace, ...] = (_single(parts, size, unit),)
    else:
        size, unit_name = scale([sum(parts.values()) for _, parts in drawn], unit)
        traces = tuple(_stacked(drawn, size, unit))
        some = ", from the smallest to the largest" if len(drawn) < len(points) else ""
        summary = f"The largest part over all points: {traces[0].name}." if traces else "Nothing."
        summary += f" The chart shows {len(drawn)} of {len(points)} points{some}." if some else ""
    return Chart(name, title, summary, Axis(f"{quantity} ({unit_name})"), Axis(""), traces, table)


def _single(parts: Parts, size: float, unit: str) -> Trace:
    """The parts of one point."""
    total = sum(parts.values())
    notes = tuple(f"{part}: {units.show(value, unit)}, {_percent(value, total)}" for part, value in parts.items())
    return Trace("", "bar", tuple(value / size for value in parts.values()), tuple(parts), notes=notes)


def _stacked(drawn: Sequence[tuple[str, Parts]], size: float, unit: str) -> list[Trace]:
    """One trace for each of the largest parts of several points, and one for all others."""
    order = list(_largest(_sums(drawn)))
    kept = order[:MOST_PARTS]
    traces = []
    for color, part in enumerate([*kept, *([REST] if len(order) > len(kept) else [])]):
        of_part = [
            sum(value for each, value in parts.items() if each not in kept) if part == REST else parts.get(part, 0.0)
            for _, parts in drawn
        ]
        notes = [f"{point}: {part} {units.show(value, unit)}" for (point, _), value in zip(drawn, of_part, strict=True)]
        lengths, names = tuple(value / size for value in of_part), tuple(point for point, _ in drawn)
        traces.append(Trace(part, "bar", lengths, names, notes=tuple(notes), color=color))
    return traces


def _sums(points: Sequence[tuple[str, Parts]]) -> dict[str, float]:
    """Part -> its amount over all points."""
    found: dict[str, float] = {}
    for _, parts in points:
        for part, value in parts.items():
            found[part] = found.get(part, 0.0) + value
    return found


def _chosen(points: Sequence[tuple[str, Mapping[str, float]]]) -> list[tuple[str, Mapping[str, float]]]:
    """All points, or as many as bars have room for: those with the smallest and largest sums, and evenly between."""
    if len(points) <= MOST_BARS:
        return list(points)
    ordered = sorted(points, key=lambda each: sum(each[1].values()))
    places = sorted({round(step * (len(ordered) - 1) / (MOST_BARS - 1)) for step in range(MOST_BARS)})
    return [ordered[place] for place in places]


def _parts_table(title: str, points: Sequence[tuple[str, Mapping[str, float]]], unit: str) -> Table:
    """Each part of a single point with its share; or all parts of each point."""
    if len(points) == 1:
        parts = _largest(points[0][1])
        total = sum(parts.values())
        rows = [(part, units.show(value, unit), _percent(value, total)) for part, value in parts.items()]
        return Table(title, ("part", "amount", "share"), (*rows, ("all", units.show(total, unit), "100 %")))
    names = list(_largest(_sums(points)))
    rows_of_points = tuple(
        (point, *(units.show(parts[part], unit) if parts.get(part) else "-" for part in names))
        for point, parts in points
    )
    return Table(title, ("point", *names), rows_of_points)


def _largest(parts: Mapping[str, float]) -> dict[str, float]:
    """The parts that are not 0, the largest first."""
    return dict(sorted(((part, value) for part, value in parts.items() if value), key=lambda each: -each[1]))


def _percent(value: float, total: float) -> str:
    return f"{100 * value / total:.1f} %" if total else "-"


def lifetime_sections(priced: Sequence[Priced]) -> list[Section]:
    """How long cells last, where some wear out; a sentence where none does."""
    wears = [each for each in priced if each.cost.lifetime is not None]
    if not wears:
        return []
    worn = [(each.name, each.cost.lifetime_s) for each in wears if each.cost.lifetime_s is not None]
    if not worn:
        return [Section("lifetime", "Lifetime", text=("No cell wears out.",))]
    several = len({each.cost.lifetime for each in wears}) > 1
    about = caption_of([(f"“{each.name}”" if several else "", each.cost.lifetime) for each in wears])
    charts = (_lifetime_chart(worn),) if len(worn) > 1 else ()
    return [Section("lifetime", "Lifetime", charts=charts, tables=(_wear_table(wears),), notes=tuple(about))]


def _lifetime_chart(worn: Sequence[tuple[str, float]]) -> Chart:
    """Lifetime of each point; of many, those between the shortest and the longest."""
    drawn = [(name, parts["life"]) for name, parts in _chosen([(name, {"life": life}) for name, life in worn])]
    size, unit = scale_of_times([life for _, life in drawn])
    log = spread([life for _, life in drawn])
    values = tuple(life / size for _, life in drawn)
    kind_of_axis = Axis(f"lifetime ({unit})", log=log)
    notes = tuple(f"{name}: {amount_text(value)} {unit}" for (name, _), value in zip(drawn, values, strict=True))
    trace = Trace("", "points" if log else "bar", values, tuple(name for name, _ in drawn), notes=notes)
    shortest = min(worn, key=lambda each: each[1])
    rows = tuple((name, amount_text(life / size)) for name, life in worn)
    table = Table("Lifetime of each point", ("point", f"lifetime ({unit})"), rows)
    summary = f"Cells of “{shortest[0]}” wear out first, after {amount_text(shortest[1] / size)} {unit}."
    return Chart("lifetime", "Time until the first cells wear out", summary, kind_of_axis, Axis(""), (trace,), table)


def _wear_table(wears: Sequence[Priced]) -> Table:
    rows = []
    for each in wears:
        wear = each.cost.lifetime
        assert wear is not None
        endurance = f"{wear.endurance:.3g}" if wear.endurance is not None else "without end"
        writes = amount_text(wear.writes_per_cell_s)
        rows.append(
            (each.name, lifetime_of(each.cost), wear.role or "none", endurance, f"{wear.pulses_per_write:.3g}", writes)
        )
    columns = ("point", "lifetime", "cells", "endurance (pulses)", "pulses of a write", "writes of a cell per second")
    return Table("What decides the lifetime", columns, tuple(rows), words=frozenset({2}))


def served_sections(served: StudyServed) -> list[Section]:
    """What requests take, where energy goes, and how long cells last."""
    rows = tuple((point_name(point), *_served_cells(point.cost)) for point in served.points)
    columns = ("point", "first token", "further token", "tokens/s", "energy of a token", "power", "area", "lifetime")
    table = Table("What requests take", columns, rows)
    energies = [(point_name(point), point.cost.energy_by) for point in served.points]
    wears = [(point_name(point) if served.points[1:] else "", point.cost.lifetime) for point in served.points]
    cost = Section("cost", "Cost of requests", tables=(table, *_request_parts(served)), notes=served.notes)
    lifetime = Section("lifetime", "Lifetime", notes=tuple(caption_of(wears)) or ("No cell wears out.",))
    return [cost, energy_section(energies), lifetime]


def _served_cells(cost: ServedResult) -> list[str]:
    return [
        units.show(cost.ttft_s, "s"),
        "-" if cost.tpot_s is None else units.show(cost.tpot_s, "s"),
        f"{cost.output_tokens_per_s:,.4g}",
        units.show(cost.energy_per_token_J, "J"),
        units.show(cost.power_W, "W"),
        units.square_mm(cost.area_m2),
        lifetime_of(cost),
    ]


def _request_parts(served: StudyServed) -> tuple[Table, ...]:
    """Prefill and steps of a single point."""
    if len(served.points) > 1:
        return ()
    cost = served.points[0].cost
    rows = tuple(
        (part.name, units.show(part.latency_s, "s"), units.show(part.energy_J, "J"), f"{part.tokens:,}")
        for part in cost.parts
    )
    requests = "1 request" if cost.batch == 1 else f"{cost.batch:,} requests"
    caption = f"Parts of {requests}: prompt {cost.prompt:,}, {cost.generate:,} generated"
    return (Table(caption, ("part", "time", "energy", "tokens"), rows),)
