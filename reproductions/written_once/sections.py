"""The tables and sentences of docs/rescue.md, computed from stored results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from common.curves import Curves
from common.pages import MISSING, NOTHING
from common.small_files import Point, load, stored_points
from judging import Found, met
from losses import COSTS, NO_PRICE, beside, loss, plain_cost
from methods import AUTO, CHANCE, CLIP, FIRST, SAME, STUDIES, TITLES, TWICE, title
from methods import NOTHING as PLAIN

from ohmformer import units

MEASURED = "measured noise"
"""Column of points whose write noise has no gamma."""

COSTED = {"vit_s_kv": 5.0, "vit_s_all": 5.0, "smollm2_news": 2.0}
"""Study whose prices stand on the page -> the noise at which its methods were chosen."""


def answer_block(found: Found) -> str:
    """What is brought, in a few sentences."""
    kv, every, text = (found.get(name) for name in ("vit_s_kv", "vit_s_all", "smollm2_news"))
    lines = [_kv_answer(kv), _every_answer(every), _text_answer(text)]
    good, measured, asked = met(found)
    count = f"Of {asked} differences that were set beforehand, {measured} are measured, and {good} of them hold."
    unknown = " A question mark stands for what is not measured yet." if any("?" in line for line in lines) else ""
    return "\n\n".join([*lines, f"{count}{unknown}"])


def _kv_answer(found: Curves | None) -> str:
    begin = "**K and V, written once, without training.**"
    if found is None:
        return f"{begin} {MISSING.capitalize()}."
    gammas = (3, 5, 7)
    return (
        f"{begin} At γσ = {_strengths(found, gammas)} the ViT-S classifier is {_losses(found, SAME, gammas)} points "
        f"from its software accuracy of {found.metric.show(found.software)} %, with the cells that it takes "
        f"unprotected, and {_losses(found, TWICE, gammas)} points with twice the cells. Unprotected it reaches "
        f"{_values(found, PLAIN, gammas)} %, with ClipFormer's clip {_values(found, CLIP, gammas)} %; conditioning "
        f"alone is {_losses(found, AUTO, gammas)} points from software."
    )


def _every_answer(found: Curves | None) -> str:
    begin = "**All operands, static weights included, no write verified.**"
    if found is None:
        return f"{begin} {MISSING.capitalize()}."
    gammas = (2, 3.5, 5)
    return (
        f"{begin} At γσ = {_strengths(found, gammas)} it is {_losses(found, SAME, gammas)} points from software, and "
        f"{_losses(found, TWICE, gammas)} points with twice the cells. Unprotected it reaches "
        f"{_values(found, PLAIN, gammas)} %; chance is {found.metric.show(CHANCE)} %."
    )


def _text_answer(found: Curves | None) -> str:
    begin = "**A language model through its cache.**"
    if found is None:
        return f"{begin} {MISSING.capitalize()}."
    gammas = (1, 2, 3)
    return (
        f"{begin} At γσ = {_strengths(found, gammas)} the perplexity of SmolLM2 on news changes by "
        f"{_losses(found, SAME + FIRST, gammas)} % with the same cells and the first 4 tokens digital, and by "
        f"{_losses(found, TWICE + FIRST, gammas)} % with twice the cells. Unprotected it is "
        f"{_values(found, PLAIN, gammas)}, in software {found.metric.show(found.software)}."
    )


def _strengths(found: Curves, gammas: Sequence[float]) -> str:
    return " / ".join(f"{found.sigma * gamma:.2g}" for gamma in gammas)


def _losses(found: Curves, method: str, gammas: Sequence[float]) -> str:
    """Mean differences from software at several noise levels."""
    lost = [loss(found, found.point(method, gamma)) for gamma in gammas]
    return _joined([None if one is None else one.text(one.sign * one.mean) for one in lost])


def _values(found: Curves, method: str, gammas: Sequence[float]) -> str:
    points = [found.point(method, gamma) for gamma in gammas]
    return _joined([None if point is None else found.metric.show(point.accuracy.mean) for point in points])


def _joined(values: Sequence[str | None]) -> str:
    """'-0.3 / -0.8 / -1.5'; a question mark where there is no value."""
    return " / ".join(value or "?" for value in values)


def study_block(found: Curves | None) -> str:
    """Methods as rows, noise as columns: the metric, and its difference from software."""
    if found is None:
        return NOTHING
    columns = {gamma: f"γσ = {found.strength(gamma):.2g}" for gamma in found.gammas}
    rows = {method: {columns[gamma]: point for gamma, point in column.items()}
            for method, column in found.found.items()}  # fmt: skip
    return _grid(found, list(columns.values()), rows)


def cells_block(name: str, results: Path) -> str:
    """A study of cells, whose labels are 'cell: method': methods as rows, cells as columns."""
    points, content = stored_points(name, results), load(name, results)
    if not points or content is None:
        return NOTHING
    rows: dict[str, dict[str, Point]] = {}
    for point in points:
        cell, _, method = point.label.rpartition(": ")
        rows.setdefault(method, {})[cell or MEASURED] = point
    columns = list(dict.fromkeys(cell for row in rows.values() for cell in row))
    software = {key: content.get(key) for key in ("software_hits", "software_left_out")}
    numbered = {method: {float(columns.index(cell)): point for cell, point in row.items()}
                for method, row in rows.items()}  # fmt: skip
    found = Curves(name, STUDIES[name], numbered, int(content.get("asked", 0)), **software)
    return _grid(found, columns, rows)


def _grid(found: Curves, columns: Sequence[str], rows: dict[str, dict[str, Point]]) -> str:
    known = {method: rows[method] for method in (*TITLES, *rows) if method in rows}
    lines = [
        _heading(found),
        "",
        f"| | {' | '.join(columns)} |",
        "|---" * (1 + len(columns)) + "|",
        *(f"| {title(method)} | {' | '.join(_cells(found, row, columns))} |" for method, row in known.items()),
    ]
    if found.stored < found.asked:
        lines += ["", f"{found.stored} of {found.asked} points are measured; the others are {MISSING}."]
    return "\n".join(lines)


def _cells(found: Curves, row: dict[str, Point], columns: Iterable[str]) -> list[str]:
    return [_cell(found, row[column]) if column in row else "-" for column in columns]


def _cell(found: Curves, point: Point) -> str:
    """The metric, and in parentheses the difference from software with its interval."""
    lost = loss(found, point)
    value = found.metric.show(point.accuracy.mean)
    return value if lost is None else f"{value} ({lost})"


def _heading(found: Curves) -> str:
    accuracy, metric = found.first.accuracy, found.metric
    unit = f" {metric.unit}" if metric.unit else ""
    sizes = f"{len(accuracy.chips)} chips, {accuracy.samples:,} samples, level {accuracy.level}"
    difference = "relative difference" if metric.better == "lower" else "difference"
    title = f"{metric.title.capitalize()}{' in percent' if unit else ''}"
    return (
        f"Software: {metric.show(found.software)}{unit}. {title}, and in parentheses the {difference} from software "
        f"with its 95 % interval; {sizes}."
    )


def cost_block(found: Found) -> str:
    """What each method costs: one table for each study of `COSTED`."""
    tables = [_cost_table(found.get(name), STUDIES[name], gamma) for name, gamma in COSTED.items()]
    return "\n\n".join(tables)


def _cost_table(found: Curves | None, name: str, gamma: float) -> str:
    plain = None if found is None else plain_cost(found)
    if found is None or plain is None:
        return f"{name}: {MISSING}."
    amounts = (units.show(plain.latency_s, "s"), units.show(plain.energy_J, "J"), units.square_mm(plain.area_m2))
    wear = "no cell is written again" if plain.wear is None else f"{plain.wear:.3g} pulses of the most worn cell"
    rows = [(method, found.point(method, gamma)) for method in found.found]
    return "\n".join([
        f"{name}, at γσ = {found.sigma * gamma:.2g}. Unprotected a pass takes {', '.join(amounts)} and {wear}:",
        "",
        f"| | difference from software | {' | '.join(COSTS.values())} | arrays |",
        "|---" * (3 + len(COSTS)) + "|",
        *(_cost_row(found, method, point) for method, point in rows if point is not None),
    ])  # fmt: skip


def _cost_row(found: Curves, method: str, point: Point) -> str:
    costs = beside(found, point)
    arrays = "-" if point.cost is None or costs[0] == NO_PRICE else f"{point.cost.arrays:,.0f}"
    return f"| {title(method)} | {loss(found, point) or MISSING} | {' | '.join(costs)} | {arrays} |"
