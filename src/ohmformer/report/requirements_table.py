"""Limits of cells as tables for a terminal, as sentences, and as CSV."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

from rich.console import Group
from rich.table import Table

from ohmformer import units
from ohmformer.study.requirements.quantity import shown_value
from ohmformer.study.results.part import level_words
from ohmformer.study.results.requirements import Frontier, MeasuredLoss, Requirement, Requirements
from ohmformer.terminal.plain import clean

ROLES = {"projection": "static weights", "attention.key": "K", "attention.value": "V"}
"""Role -> what its arrays hold, in words."""

TIMES = ("tau", "tau_now", "t0", "age", "t_read")
"""Parameters of cells that are times [s]."""


def requirements_tables(found: Requirements) -> Group:
    """A table of the limits, and one of the map."""
    tables = []
    if found.requirements:
        table = Table(title=f"{clean(found.study)}: loss up to {loss_bound(found)}", title_justify="left")
        table.caption, table.caption_justify = caption(found), "left"
        for column in ("quantity", "today", "limit", "certainly too much from", "at the limit", "points"):
            table.add_column(column, overflow="fold")
        for each in found.requirements:
            table.add_row(*_row(each))
        tables.append(table)
    if found.frontier is not None:
        tables.append(_map(found, found.frontier))
    return Group(*tables)


def _row(each: Requirement) -> tuple[str, ...]:
    today = "none" if each.today is None else shown_value(each.today, each.unit)
    certain = "not found" if each.fails_from is None else shown_value(each.fails_from, each.unit)
    return each.title, today, limit_text(each), certain, at_limit(each), str(each.evaluations)


def limit_text(each: Requirement) -> str:
    """The limit in words: 'at most 3.1 %'."""
    end = "up to" if each.wanted == "largest" else "down to"
    if each.limit is None:
        return "no value holds"
    value = shown_value(each.limit, each.unit)
    if each.verdict == "no limit found":
        return f"no limit found {end} {value}"
    return f"at {'most' if each.wanted == 'largest' else 'least'} {value}"


def at_limit(each: Requirement) -> str:
    """The parameters of the cells at the limit: 'sqrt_range, gamma 0.7, sigma 0.2 (K, V)'."""
    places: dict[str, list[str]] = {}
    for place, parameters in each.parameters.items():
        places.setdefault(_parameters(parameters), []).append(ROLES.get(place, clean(place)))
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in places.items())


def _parameters(parameters: dict[str, Any]) -> str:
    """Names and values; lists are cut to their length."""
    parts = []
    for name, value in parameters.items():
        match value:
            case None | [] | ():
                continue
            case float() if name in TIMES:
                parts.append(f"{name} {units.show(value, 's')}")
            case float():
                parts.append(f"{name} {value:.3g}")
            case list() | tuple():
                parts.append(f"{name} of {len(value)}")
            case _:
                parts.append(str(value) if name in ("kind", "encoding") else f"{name} {value}")
    return ", ".join(parts)


def loss_bound(found: Requirements) -> str:
    """'1 point of accuracy', '1 % of perplexity'."""
    number = f"{100 * found.loss:.4g}"
    if found.loss_unit == "points":
        return f"{number} {'point' if number == '1' else 'points'} of {found.shown.title}"
    return f"{number} % of {found.shown.title}"


def loss_text(loss: MeasuredLoss, found: Requirements) -> str:
    """A loss with its interval: '1.2 [0.8, 1.6] points'."""
    mean, near, far = (f"{100 * value:.3g}" for value in (loss.mean, loss.near, loss.far))
    return f"{mean} [{near}, {far}] {'points' if found.loss_unit == 'points' else '%'}"


def caption(found: Requirements) -> str:
    """How the limits were measured."""
    software = f"{found.shown.text(found.software)} {found.shown.unit}".strip()
    within = "within" if found.today.far <= found.loss else "beyond"
    return (
        f"software: {software}; the study as it is loses {loss_text(found.today, found)}, {within} the bound.\n"
        f"A value holds if the far end of the 95 % interval of the loss is within the bound; it is certainly too much "
        f"if the near end is beyond. {found.chips} chips, {found.samples} samples, "
        f"{level_words(found.level, found.kernels)}; neighboring values differ by {100 * found.step:.3g} %"
    )


def _map(found: Requirements, frontier: Frontier) -> Table:
    """The limit of the second quantity at each value of the first one."""
    first, second = frontier.first, frontier.rows[0].requirement
    table = Table(title=f"{first.title} and {second.title} together", title_justify="left")
    if not found.requirements:
        table.caption, table.caption_justify = caption(found), "left"
    for column in (first.title, second.title, "certainly too much from", "at the limit", "points"):
        table.add_column(column, overflow="fold")
    for row in frontier.rows:
        _, _, *rest = _row(row.requirement)
        table.add_row("none" if row.value is None else shown_value(row.value, first.unit), *rest)
    return table


def requirement_sentences(found: Requirements) -> list[str]:
    """Doubts, causes, and quantities that were left out."""
    said = [*found.notes]
    for each in found.requirements:
        said += [f"{each.title}: {note}" for note in each.notes]
    if found.frontier is not None:
        first = found.frontier.first
        said += [f"{first.title}: {note}" for note in first.notes]
        for row in found.frontier.rows:
            at = "none" if row.value is None else shown_value(row.value, first.unit)
            said += [f"{row.requirement.title} at {first.title} {at}: {note}" for note in row.requirement.notes]
    said += [
        f"left out: {reason if reason.startswith(name) else f'{name}: {reason}'}"
        for name, reason in found.left_out.items()
    ]
    return said


COLUMNS = (
    *("table", "first", "first_value", "quantity", "unit", "wanted", "today", "verdict", "limit", "fails_from"),
    *("evaluations", "at_limit"),
)
"""Columns of the CSV file; numbers are shares, seconds or counts."""


def requirements_csv(found: Requirements) -> str:
    """All limits as CSV: those of single quantities, then those of the map."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in found.requirements:
        writer.writerow(("single", "", "", *_values(each)))
    if found.frontier is not None:
        for row in found.frontier.rows:
            value = "off" if row.value is None else row.value
            writer.writerow(("map", found.frontier.first.quantity, value, *_values(row.requirement)))
    return text.getvalue()


def _values(each: Requirement) -> tuple[Any, ...]:
    numbers = (each.today, each.verdict, each.limit, each.fails_from, each.evaluations)
    return each.quantity, each.unit, each.wanted, *("" if value is None else value for value in numbers), at_limit(each)
