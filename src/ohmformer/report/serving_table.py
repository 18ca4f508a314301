"""What served requests take, as tables for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from ohmformer import units
from ohmformer.report.cost_table import caption_of, duration, named_wears, point_name, shares
from ohmformer.report.view import MOST_ROWS, more_rows
from ohmformer.study.results.costs import ServedResult
from ohmformer.study.results.spec import StudyServed

COLUMNS = (
    *("point", "first token", "per token", "tokens/s", "energy of a token", "power", "area", "lifetime"),
    "steady tokens/s",
)


def serving_tables(results: StudyServed) -> Group:
    """A row for each point; for a single point also its parts, its steady state and where its energy goes."""
    points = results.points
    caption = "\n".join([*caption_of(named_wears(points)), *results.notes])
    table = Table(title=results.study, title_justify="left", caption_justify="left", caption=caption)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "point" else "right", overflow="fold")
    for point in points[:MOST_ROWS]:
        table.add_row(point_name(point), *_numbers(point.cost))
    if len(points) > 1:
        return Group(table, *more_rows(len(points), stored=False))
    cost = points[0].cost
    tables = [table, _parts(cost), _steady(cost), shares("energy by component", cost.energy_by.component, "J")]
    return Group(*filter(None, tables), shares("energy by operation", cost.energy_by.operation, "J"))


def _numbers(cost: ServedResult) -> list[str]:
    return [
        units.show(cost.ttft_s, "s"),
        _seconds(cost.tpot_s),
        f"{cost.output_tokens_per_s:,.4g}",
        units.show(cost.energy_per_token_J, "J"),
        units.show(cost.power_W, "W"),
        units.square_mm(cost.area_m2),
        duration(cost),
        f"{cost.steady.output_tokens_per_s:,.4g}" if cost.steady else "-",
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else units.show(value, "s")


def _parts(cost: ServedResult) -> Table:
    """Prefill, decoding steps, and all."""
    requests = "1 request" if cost.batch == 1 else f"{cost.batch:,} requests"
    title = f"{requests}: prompt {cost.prompt:,}, {cost.generate:,} generated"
    table = Table(title=title, title_justify="left")
    for column in ("", "time", "energy", "power", "tokens/s", "energy of a token"):
        table.add_column(column, justify="right" if column else "left")
    for part in cost.parts:
        table.add_row(
            part.name,
            units.show(part.latency_s, "s"),
            units.show(part.energy_J, "J"),
            units.show(part.energy_J / part.latency_s, "W"),
            f"{part.tokens / part.latency_s:,.4g}",
            units.show(part.energy_J / part.tokens, "J"),
        )
    return table


def _steady(cost: ServedResult) -> Table | None:
    """Rates with as many requests in flight all the time."""
    steady = cost.steady
    if steady is None:
        return None
    chunks = f", prompts in chunks of {steady.chunk:,}" if steady.chunk else ""
    title = f"steady state, {steady.requests:,} in flight{chunks}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_row("requests/s", f"{steady.requests_per_s:,.4g}")
    table.add_row("tokens/s", f"{steady.output_tokens_per_s:,.4g}")
    table.add_row("first token", _seconds(steady.ttft_s))
    table.add_row("decoding step", _seconds(steady.step_s))
    table.add_row("per token, with prefills of others", _seconds(steady.tpot_s))
    table.add_row("energy of a token", units.show(steady.energy_per_token_J, "J"))
    table.add_row("power", units.show(steady.power_W, "W"))
    return table
