"""The sections that rest on the record of a study: what ran where and when, what numbers rest on, how to repeat it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, takewhile

from ohmformer import units
from ohmformer.report.page.content import Axis, Chart, Section, Table, Trace
from ohmformer.report.page.costs import parts_chart
from ohmformer.report.page.scales import scale
from ohmformer.study.results.record import (
    Basis,
    HardwareRecord,
    PassRecord,
    Ran,
    Record,
    Roofline,
    TimelineRecord,
    Work,
)
from ohmformer.study.results.spec import Capture

OLD = (
    "These results were stored by a version that kept no record of hardware, timeline and sources. Run the study again "
    "to add them; what is stored is not computed again."
)

MOST_UNITS = 20
"""Most rows of a timeline."""

ORIGINS = {
    "published": "a source states them",
    "derived": "follow from a source by stated arithmetic",
    "reconstructed": "chosen so that published totals come out",
    "assumed": "no source; assumed, with a reason",
    "user": "set in the study or by its author",
    "default": "defaults of the program",
}


def pass_sections(found: PassRecord, point: str) -> list[Section]:
    """Area, timeline, roofline and engines of the first point with a price."""
    about = f"Of the first point with a price, “{point}”: {found.workload}."
    sections = []
    if found.area_m2:
        chart = parts_chart("area", "Area by part", [(point, found.area_m2)], "m^2", "area")
        sections.append(Section("area", "Where area goes", text=(about,), charts=(chart,)))
    if found.timeline is not None and found.timeline.work:
        sections.append(Section("timeline", "Pipeline timeline", text=(about,), charts=(_timeline(found.timeline),)))
    if found.roofline is not None and found.roofline.points:
        sections.append(Section("roofline", "Roofline", text=(about,), charts=(_roofline(found.roofline),)))
    return sections


def _counted(counts: Sequence[Mapping[str, int]], place: str) -> list[tuple[str, ...]]:
    """A row for each product that runs in a place: '34', or '0 to 34' where points differ."""
    found = {name: [each.get(name, 0) for each in counts] for name in dict.fromkeys(chain(*counts))}
    spans = {name: dict.fromkeys(f"{count:,}" for count in (min(each), max(each))) for name, each in found.items()}
    return [(name, place, " to ".join(span)) for name, span in spans.items()]


def ran_section(captures: Iterable[Capture], found: PassRecord | None) -> Section | None:
    """What ran where: each operation with its engine where costs know it, or kinds of products on crossbars."""
    if found is not None and found.ran:
        text = f"All operations of one pass; “*” stands for the numbers of layers. {found.workload}."
        return Section("ran", "What ran where", text=(text,), tables=(_ran_table(found.ran),))
    found_captures = list(captures)
    if not found_captures:
        return None
    rows = _counted([each.crossbars for each in found_captures], "crossbars")
    rows += _counted([Counter(each.digital) for each in found_captures], "digital units")
    rows.append(("softmax, normalization, activations", "digital units", "all"))
    table = Table("Products by where they ran", ("product", "runs on", "count"), tuple(rows), words=frozenset({1}))
    return Section(
        "ran", "What ran where", tables=(table,), notes=("Layer by layer it is stored for runs with costs.",)
    )


def _ran_table(ran: Iterable[Ran]) -> Table:
    rows = tuple(
        (
            each.name,
            each.what,
            each.engine or "digital units",
            f"{each.count:,}",
            f"{each.macs:,}" if each.macs else "-",
        )
        for each in ran
    )
    columns = ("operation", "what it computes", "runs on", "count", "multiply-accumulates")
    return Table("Operations and their engines", columns, rows, words=frozenset({1, 2}))


def _timeline(record: TimelineRecord) -> Chart:
    """One bar for each stretch of work, one row for each unit; stages in the colors of the palette."""
    work_shown = _beginning(record.work)
    shown_s = max(work.start_s + work.seconds for work in work_shown)
    size, unit = scale([shown_s], "s")
    stages = list(dict.fromkeys(work.stage for work in work_shown))
    units_in_order = list(dict.fromkeys(work.unit for work in work_shown))
    traces = []
    for color, stage in enumerate(stages):
        bars = sorted(
            (work for work in work_shown if work.stage == stage), key=lambda work: units_in_order.index(work.unit)
        )
        notes = tuple(
            f"{stage}, {work.layer}, block {work.block}: from {units.show(work.start_s, 's')}, "
            f"{units.show(work.seconds, 's')}"
            for work in bars
        )
        lengths, starts = tuple(bar.seconds / size for bar in bars), tuple(bar.start_s / size for bar in bars)
        traces.append(
            Trace(stage, "span", lengths, tuple(bar.unit for bar in bars), notes=notes, start=starts, color=color)
        )
    traces.sort(key=lambda trace: min(units_in_order.index(str(name)) for name in trace.y))
    whole = len(work_shown) == record.jobs
    part = "The whole pass" if whole else f"The first {len(work_shown)} of {record.jobs:,} jobs"
    times = f"{units.show(shown_s, 's')} of {units.show(record.latency_s, 's')}"
    summary = f"{part}: {times}, on {len(units_in_order)} units."
    rows = tuple(
        (
            work.unit,
            work.stage,
            work.layer,
            str(work.block),
            units.show(work.start_s, "s"),
            units.show(work.seconds, "s"),
        )
        for work in work_shown
    )
    columns = ("unit", "stage", "layer", "block", "start", "duration")
    table = Table("When each unit works", columns, rows, words=frozenset({1, 2}))
    return Chart("timeline", "When each unit works", summary, Axis(f"time ({unit})"), Axis(""), tuple(traces), table)


def _beginning(work: tuple[Work, ...]) -> tuple[Work, ...]:
    """The bars before one unit more than a chart has rows for begins to work."""
    known = list(dict.fromkeys(each.unit for each in work))
    return tuple(takewhile(lambda each: each.unit in known[:MOST_UNITS], work))


def _roofline(record: Roofline) -> Chart:
    """Rate of each stage over its operations per byte, below the peak rate and the bandwidths."""
    size, unit = scale([record.peak_op_s], "op/s")
    intensities = [point.operations / point.moved_B for point in record.points]
    knees = [record.peak_op_s / width for width in record.bandwidth_B_s.values()]
    left, right = 0.5 * min([*intensities, *knees]), 2 * max([*intensities, *knees])
    traces = []
    roofs = [("peak rate", 0.0), *record.bandwidth_B_s.items()]
    for color, (name, width) in enumerate(roofs):
        knee = record.peak_op_s / width if width else right
        ends = (left, min(knee, right)) if width else (left, right)
        label = f"{name}: {units.show(width, 'B/s')}" if width else f"{name}: {units.show(record.peak_op_s, 'op/s')}"
        heights = tuple((width * x if width else record.peak_op_s) / size for x in ends)
        traces.append(Trace(label, "limit", ends, heights, notes=(label, label), color=color))
    rates = [point.operations / point.seconds for point in record.points]
    rows = []
    for color, (point, intensity, rate) in enumerate(zip(record.points, intensities, rates, strict=True)):
        words = f"{point.stage}: {units.show(rate, 'op/s')} at {intensity:.3g} operations per byte"
        traces.append(Trace(point.stage, "points", (intensity,), (rate / size,), notes=(words,), color=color))
        share = f"{100 * rate / record.peak_op_s:.2g} %"
        rows.append((point.stage, f"{intensity:.4g}", units.show(rate, "op/s"), share))
    best = max(zip(rates, record.points, strict=True), key=lambda each: each[0])
    none = "" if record.bandwidth_B_s else " The hardware states no bandwidth: memories are taken to suffice."
    summary = (
        f"“{best[1].stage}” is fastest, with {100 * best[0] / record.peak_op_s:.2g} % of the peak rate of the placed "
        f"tiles.{none}"
    )
    table = Table(
        "Rate of each stage while it works", ("stage", "operations per byte", "rate", "share of the peak"), tuple(rows)
    )
    x, y = Axis("operations per byte moved", log=True), Axis(f"rate ({unit})", log=True)
    return Chart(
        "roofline", "Rate of each stage beside the limits of the hardware", summary, x, y, tuple(traces), table
    )


def hardware_section(record: Record) -> Section:
    """Every number of the hardware with its source, and what energy and area rest on."""
    basis = record.priced.basis if record.priced else None
    tables = tuple(_basis_tables(basis)) if basis else ()
    return Section(
        "hardware",
        "The hardware, and what its numbers rest on",
        text=tuple(_basis_words(basis, record.hardware)),
        tables=tables,
        folded=tuple(_hardware_table(each) for each in record.hardware),
        notes=(
            "Sources are keys of the library's bibliography (sources.bib). The last column says how derived and "
            "reconstructed values came about.",
        ),
    )


def _basis_words(basis: Basis | None, hardware: Iterable[HardwareRecord]) -> list[str]:
    """Shares of energy and area that rest on assumed or default numbers, and how many numbers are assumed."""
    numbers = [number for each in hardware for number in each.numbers]
    assumed = sum(number.kind == "assumed" for number in numbers)
    words = []
    if basis is not None:
        energy, area = (
            sum(shares.get(kind, 0.0) for kind in ("assumed", "default")) for shares in (basis.energy, basis.area)
        )
        words.append(
            f"{100 * energy:.3g} % of the energy and {100 * area:.3g} % of the area rest on assumed or default numbers "
            "in J, W or m²: they would change in proportion to them."
        )
    if numbers:
        words.append(
            f"{assumed} of {len(numbers)} values of the hardware are assumed. Those that are counts, times, factors or "
            "an endurance act on results in other ways; the tables mark them."
        )
    return words


def _basis_tables(basis: Basis) -> list[Table]:
    kinds = [kind for kind in ORIGINS if kind in basis.energy or kind in basis.area]
    rows = tuple((kind, _share(basis.energy.get(kind)), _share(basis.area.get(kind)), ORIGINS[kind]) for kind in kinds)
    columns = ("origin", "of the energy", "of the area", "what it means")
    tables = [Table("What energy and area rest on", columns, rows, words=frozenset({3}))]
    uncertain = list(dict.fromkeys([*basis.energy_of, *basis.area_of]))
    if uncertain:
        counting = tuple(
            (path, _share(basis.energy_of.get(path)), _share(basis.area_of.get(path))) for path in uncertain
        )
        tables.append(
            Table("Assumed and default numbers that count", ("number", "of the energy", "of the area"), counting)
        )
    return tables


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _hardware_table(record: HardwareRecord) -> Table:
    rows = tuple((each.field, each.value, each.kind or "choice", each.source, each.where) for each in record.numbers)
    caption = f"{record.name}: {record.title}" if record.title else record.name or "hardware of the study"
    return Table(caption, ("number", "value", "origin", "source", "where and how"), rows, words=frozenset({1, 2, 3, 4}))


def repeat_section(record: Record | None, versions: dict[str, str], key: str) -> Section:
    """Versions, seed, settings, and the key of the settings."""
    seed = [("seed", str(record.seed))] if record and record.seed is not None else []
    rows = (
        *(("version of " + name, version) for name, version in versions.items()),
        *seed,
        ("key of all settings", key),
    )
    tables = [Table("Versions, seed and key", ("", "value"), rows, words=frozenset({1}))]
    settings = (
        (Table("The study as its file has it", ("setting", "value"), record.settings, words=frozenset({1})),)
        if record
        else ()
    )
    return Section("repeat", "How to repeat it", tables=tuple(tables), folded=settings)
