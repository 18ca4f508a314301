"""Results as tables for a terminal, in the units of their metrics, with 95 % intervals."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from ohmformer.report.view import Document, Point, View, axis_name, metric_of, metric_titles, sigma, view
from ohmformer.study.noise_labels import gamma_sigma
from ohmformer.tasks.metric_kinds import METRICS

ROW = 4
"""So many points fit beside one another."""


def study_tables(document: Document) -> Group:
    """All points of a results document: a table over the swept number, and one for points beside it."""
    seen = view(document)
    tables = [_grid(document, seen)] if seen.series else []
    if seen.bars:
        tables.append(_bars(document, seen))
    return Group(*tables)


def _grid(document: Document, seen: View) -> Table:
    """Rows: values of x. Columns: series."""
    table = Table(title=document["study"], caption=_caption(document), title_justify="left", caption_justify="left")
    scale = sigma(seen)
    table.add_column(axis_name(seen.x), justify="right")
    if scale is not None:
        table.add_column("γσ", justify="right")
    for series in seen.series:
        table.add_column(series.name, justify="right")
    columns = [dict(series.points) for series in seen.series]
    for x in sorted({x for column in columns for x in column}):
        cells = [entry(column[x]) if x in column else "" for column in columns]
        table.add_row(f"{x:g}", *([] if scale is None else [f"{x * scale:.3g}"]), *cells)
    return table


def _bars(document: Document, seen: View) -> Table:
    """Points that stand for themselves: one row, or one column where they are many."""
    table = Table(title_justify="left", caption_justify="left")
    if not seen.series:
        table.title, table.caption = document["study"], _caption(document)
    names, entries = [name for name, _ in seen.bars], [entry(point) for _, point in seen.bars]
    if len(names) <= ROW:
        for name in names:
            table.add_column(name, justify="right", overflow="fold")
        table.add_row(*entries)
        return table
    table.add_column("")
    table.add_column(", ".join(metric_titles(document)), justify="right")
    for name, text in zip(names, entries, strict=True):
        table.add_row(name, text)
    return table


def _caption(document: Document) -> str:
    return "\n".join(filter(None, (software_line(document), static_line(document))))


def entry(point: Point) -> str:
    """'85.3 [82.1, 88.5]' in the unit of the metric, and the recipe where one was chosen."""
    accuracy = point["accuracy"]
    low, high = accuracy["ci95"]
    chosen = f" ({accuracy['chosen']['recipe']})" if "chosen" in accuracy else ""
    show = metric_of(point).show
    return f"{show(accuracy['mean'])} [{show(low)}, {show(high)}]{chosen}"


def software_line(document: Document) -> str:
    """What the same model does without crossbars, and how the rest was measured."""
    found = [point["accuracy"] for point in document["points"]]
    software = sorted({_with_unit(point) for point in document["points"]})
    chips = _span([len(accuracy["chips"]) for accuracy in found])
    samples = _span([accuracy["samples"] for accuracy in found])
    levels = ", ".join(sorted({accuracy["level"] for accuracy in found}))
    how = f"{chips} {'chip' if chips == '1' else 'chips'}, {samples} samples, level {levels}"
    if any(len(accuracy["chips"]) == 1 for accuracy in found):
        how += "; one chip: intervals cover samples only"
    return f"software: {', '.join(software)}. Entries: {_metrics(document)} [95 % interval]; {how}"


def _with_unit(point: Point) -> str:
    metric = metric_of(point)
    return " ".join(filter(None, (metric.show(point["accuracy"]["software"]), metric.unit)))


def _metrics(document: Document) -> str:
    """'top1 in percent', or 'perplexity, where lower is better'."""
    names = sorted({point["accuracy"]["metric"] for point in document["points"]})
    units = {METRICS[name].unit for name in names}
    worse = [name for name in names if METRICS[name].better == "lower"]
    return ", ".join(names) + (" in percent" if units == {"%"} else "") + (", where lower is better" if worse else "")


def static_line(document: Document) -> str:
    """Write noise of static weights in the points of a sweep; empty where none is on crossbars."""
    products = {
        gamma_sigma(point["write_noise"]["projection"]) for point in document["points"] if not point.get("label")
    }
    known = sorted(product for product in products if product is not None)
    notes = document.get("notes", [])
    parts = [f"static weights: γσ {', '.join(f'{product:.3g}' for product in known)}"] if known else []
    return "; ".join([*parts, *notes])


def capture_lines(document: Document) -> list[str]:
    """What ran on crossbars and what stayed digital, once for all points that agree on it."""
    lines = []
    for point in document["points"]:
        held = ", ".join(f"{count} {product}" for product, count in point["capture"]["crossbars"].items()) or "nothing"
        digital = ", ".join(point["capture"]["digital"]) or "nothing"
        lines.append(
            f"Products on crossbars: {held}. Digital: {digital}, beside softmax, normalisation and activations."
        )
    return list(dict.fromkeys(lines))


def _span(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)}-{max(values)}"
