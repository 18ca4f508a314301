"""The Pareto front of a search as a table for a terminal, as sentences, and as CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich.table import Table

from ohmformer.study.results.part import level_words
from ohmformer.study.results.search import SearchedDesign, SearchedQuantity, SearchResults
from ohmformer.study.search.goals import ACCURACY, LOSS, shown_quantity
from ohmformer.tasks.metric_kinds import METRICS
from ohmformer.terminal.plain import clean

MOST_ROWS = 40
"""Number of designs that the table shows; files have all."""

IN_FILES = {"latency": "s", "energy": "J", "power": "W", "area": "m2", "lifetime": "s", "throughput": "per_s"}
"""Quantity -> ending of its column in CSV files."""


def front_table(found: SearchResults) -> Table:
    """The designs on the front: their number, their choices and the values of all quantities."""
    best = found.front
    title = f"{clean(found.study)}: {len(best)} designs that no other one beats"
    table = Table(title=title, title_justify="left", caption=caption(found), caption_justify="left")
    table.add_column("no.", justify="right")
    for name in choice_names(found):
        table.add_column(clean(name), overflow="fold")
    for quantity in found.quantities:
        table.add_column(clean(quantity.name), justify="right")
    if found.measured:
        table.add_column("measured", justify="right")
    for design in best[:MOST_ROWS]:
        chosen = [clean(str(design.choices.get(name, ""))) for name in choice_names(found)]
        values = [value_text(found, quantity, design) for quantity in found.quantities]
        measured = [measured_text(design)] if found.measured else []
        table.add_row(str(design.number), *chosen, *values, *measured)
    return table


def choice_names(found: SearchResults) -> list[str]:
    """The names of all choices that some design makes, in the order in which they occur."""
    return list(dict.fromkeys(name for design in found.designs for name in design.choices))


def value_text(found: SearchResults, quantity: SearchedQuantity, design: SearchedDesign) -> str:
    """A value of a design for readers."""
    value = design.values.get(quantity.name)
    if value is None:
        return "unlimited"
    if quantity.name == LOSS:
        return shown_quantity(LOSS, "%", value)
    if design.accuracy is not None and quantity.name in (ACCURACY, design.accuracy.metric):
        metric = METRICS[design.accuracy.metric]
        return f"{metric.text(value)} {metric.unit}".strip()
    return shown_quantity(quantity.name, quantity.unit, value)


def measured_text(design: SearchedDesign) -> str:
    """The measured metric with its interval: '85.3 [82.1, 88.5]'."""
    if design.accuracy is None:
        return ""
    metric = METRICS[design.accuracy.metric]
    low, high = (metric.text(value) for value in design.accuracy.ci95)
    return f"{metric.text(design.accuracy.mean)} [{low}, {high}]"


def caption(found: SearchResults) -> str:
    """What was searched, and how far."""
    aims = ", ".join(f"{'least' if each.better == 'lower' else 'most'} {each.name}" for each in found.objectives)
    bounds = f"; {'; '.join(map(clean, found.constraints))}" if found.constraints else ""
    size = f" of {found.size:,}" if found.size is not None else ""
    lines = [f"{aims}{bounds}. {len(found.designs):,}{size} designs tried, {found.measured:,} measured."]
    if measured := next((each.accuracy for each in found.designs if each.accuracy is not None), None):
        metric = METRICS[measured.metric]
        lines.append(
            f"measured: {metric.title}{f' in {metric.unit}' if metric.unit else ''} with its 95 % interval, "
            f"{measured.chips} chips, {measured.samples} samples, "
            f"{level_words(measured.level, measured.kernels)}; "
            f"software: {metric.text(measured.software)}"
        )
    return "\n".join(lines)


def search_sentences(found: SearchResults) -> list[str]:
    """What became of the other designs, and what a reader must know."""
    counts = Counter(str(design.state) for design in found.designs)
    words = {
        "dominated": "beaten by others",
        "infeasible": "outside the constraints",
        "skipped": "not measured, since others are better even so",
        "impossible": "without a price or valid settings",
    }
    said = [f"{counts[state]} {text}" for state, text in words.items() if counts[state]]
    lines = [f"other designs: {', '.join(said)}"] if said else []
    if (more := len(found.front) - MOST_ROWS) > 0:
        lines.append(f"{more} more designs of the front are in front.csv")
    if impossible := next((design for design in found.designs if design.state == "impossible"), None):
        lines.append(f"design {impossible.number} is impossible: {impossible.why}")
    return [*lines, *found.notes]


def front_csv(found: SearchResults) -> str:
    """The front as CSV, in SI units; accuracies and losses are shares."""
    return _csv(found, found.front)


def designs_csv(found: SearchResults) -> str:
    """All designs as CSV, in the order of the search."""
    return _csv(found, found.designs)


def _csv(found: SearchResults, designs: Sequence[SearchedDesign]) -> str:
    names = choice_names(found)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [
        f"{each.name}_{IN_FILES[each.name]}" if each.name in IN_FILES else each.name for each in found.quantities
    ]
    measured = ["mean", "ci95_low", "ci95_high", "software", "chips", "samples"] if found.measured else []
    writer.writerow(["number", "state", *map(_plain, names), *columns, *measured, "why"])
    for design in designs:
        row: list[Any] = [design.number, design.state]
        row += [_plain(design.choices.get(name, "")) for name in names]
        row += [_in_csv(each.name, design) for each in found.quantities]
        if found.measured and (got := design.accuracy) is not None:
            row += [got.mean, *got.ci95, got.software, got.chips, got.samples]
        elif found.measured:
            row += [""] * len(measured)
        writer.writerow([*row, _plain(design.why)])
    return text.getvalue()


def _in_csv(name: str, design: SearchedDesign) -> Any:
    if name not in design.values:
        return ""
    value = design.values[name]
    return "inf" if value is None else value


def _plain(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
