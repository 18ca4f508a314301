"""The map of a pair: the limit of one quantity at several values of another one."""

from __future__ import annotations

from dataclasses import replace

from ohmformer.errors import BadInput
from ohmformer.study.requirements.evaluations import Evaluations
from ohmformer.study.requirements.quantity import DIGITS
from ohmformer.study.requirements.search import QuantitySearch
from ohmformer.study.results.requirements import Frontier, FrontierRow, Requirement


def map_pair(first: QuantitySearch, second: QuantitySearch, grid: int, evaluations: Evaluations) -> Frontier:
    """Search the first quantity with the second one off, then the second one at values of the first up to its limit.

    A second quantity that cannot be switched off keeps its value of the study.

    Args:
        first: the quantity whose values are fixed.
        second: the quantity whose limit is searched at each of them.
        grid: number of values.
        evaluations: measures the losses.

    Raises:
        BadInput: not even the mildest value of the first quantity holds.
    """
    off = second.at(None) if second.can_be_off else None
    alone = replace(first, whole=off.whole, fixed=off.set) if off else first
    name, other = first.quantity.name, second.quantity.name
    limits = evaluations.run({name: alone.run()})[name]
    if limits.limit is None:
        raise BadInput(f"map: {name} has no value that holds{f' without {other}' if off else ''}. {limits.notes[-1]}")
    rows = {}
    for value in fixed_values(first, limits, grid):
        there = first.at(value)
        rows[value] = replace(second, whole=there.whole, fixed=there.set)
    found = evaluations.run({value: search.run() for value, search in rows.items()})
    pairs = tuple(FrontierRow(value=value, requirement=requirement) for value, requirement in found.items())
    return Frontier(first=limits, second=other, rows=pairs)


def fixed_values(search: QuantitySearch, alone: Requirement, grid: int) -> list[float | None]:
    """Values of the first quantity, from mild to its limit; None switches it off.

    A largest value is approached in equal steps from 0, a smallest one by factors of two.
    """
    limit = alone.limit if alone.limit is not None else alone.searched[1]
    off: list[float | None] = [None] if search.can_be_off else []
    count = grid - len(off)
    if alone.wanted == "largest":
        values = [limit * (index + 1) / count for index in range(count)]
    else:
        values = [limit * 2.0**power for power in reversed(range(count)) if limit * 2.0**power <= alone.searched[1]]
    return [*off, *(float(f"{value:.{DIGITS}g}") for value in values)]
