"""How often the cells of keys and values are written while requests are served on one machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil

from ohmformer.cost import write_wear
from ohmformer.cost.attention.token_places import slots_of, tokens_written
from ohmformer.cost.machine.machine import Machine, group_of
from ohmformer.cost.operands import windows_of
from ohmformer.cost.tiles import KVArrays, caches
from ohmformer.cost.write_wear import Wear
from ohmformer.workload.spec import Workload


@dataclass
class _Written:
    """Writes of one group of arrays so far.

    Attributes:
        cells: cells that were written, each write counted.
        slots: writes of the most written slot, of arrays that layers share, or whose cells are too few.
        tokens: name of a product -> tokens that one sample has written.
        references: name of a product -> writes of its reference cells, of arrays that belong to one layer.
    """

    cells: float = 0.0
    slots: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)
    references: dict[str, float] = field(default_factory=dict)


Writes = tuple[KVArrays, float, float]
"""Arrays, writes of their most written cell, and mean writes of all their cells."""


def request_writes(machine: Machine, passes: Iterable[tuple[Workload, list[KVArrays]]]) -> tuple[Writes, ...]:
    """The writes per cell of all passes of a batch of requests, for each kind of array.

    Arrays of a layer's own hold a cache as a ring whose slots take turns, so a slot is written once by the request if
    there are cells for all tokens. Arrays that layers share are written anew by every layer and pass.

    Args:
        machine: the arrays.
        passes: each pass with its arrays of K and V.
    """
    written = {group_of(entry): _Written() for entry in machine.kv}
    for workload, arrays in passes:
        for entry in arrays:
            _add(written[group_of(entry)], workload, entry)
    return tuple(
        (entry, sums.slots + _ring_writes(entry, sums), sums.cells / entry.cells)
        for entry in machine.kv
        for sums in [written[group_of(entry)]]
    )


def writes_of_chips(machine: Machine, passes: Sequence[tuple[Workload, list[list[KVArrays]]]]) -> tuple[Writes, ...]:
    """The `request_writes` of a chip of each group.

    Args:
        machine: the chips.
        passes: each pass with the arrays of K and V of a chip of each group.
    """
    found: list[Writes] = []
    for group, chip in enumerate(machine.by_chip):
        found += request_writes(chip, ((workload, arrays[group]) for workload, arrays in passes))
    return tuple(found)


def with_refreshes(machine: Machine, writes: Iterable[Writes], times: int, cell_writes: float) -> tuple[Writes, ...]:
    """The writes with those of refreshes.

    Args:
        machine: the chips.
        writes: see `writes_of_chips`.
        times: number of refreshes.
        cell_writes: cells that they write on all chips, each time counted.
    """
    chips = zip(machine.by_chip, machine.sharing, strict=True)
    mean = cell_writes / sum(count * entry.cells for chip, count in chips for entry in chip.kv)
    return tuple((entry, most + times, written + mean) for entry, most, written in writes)


def request_wear(writes: Iterable[Writes]) -> tuple[Wear, ...]:
    """The wear of cells from `request_writes`; roles with cells of unknown endurance are left out."""
    by_entry = {id(entry): (entry, most, mean) for entry, most, mean in writes}
    known = write_wear.worn([entry for entry, _, _ in by_entry.values()])
    return tuple(write_wear.wear_of(*by_entry[id(entry)]) for entry in known)


def _add(sums: _Written, workload: Workload, entry: KVArrays) -> None:
    sums.cells += sum(use.layers * use.op.batch * write_wear.cells_of(use, entry) for use in entry.uses)
    if entry.shared:
        sums.slots += write_wear.max_writes(workload, entry)
        return
    for use in entry.uses:
        in_turn = workload.batch / caches(workload, use.op, shared=False) * windows_of(use.op, workload.batch)
        count = round(in_turn * tokens_written(use.op, entry.engine, use.digital, shared=False))
        sums.tokens[use.op.name] = sums.tokens.get(use.op.name, 0) + count
        references = in_turn * write_wear.reference_writes(use.op, entry)
        sums.references[use.op.name] = sums.references.get(use.op.name, 0.0) + references


def _ring_writes(entry: KVArrays, sums: _Written) -> float:
    """Writes of the most written slot of arrays that belong to one layer."""
    if entry.shared:
        return 0.0
    slots = {use.op.name: slots_of(use.op, entry.engine, use.digital) for use in entry.uses}
    rings = (ceil(sums.tokens.get(name, 0) / count) for name, count in slots.items())
    return max(*sums.references.values(), *rings, 0)
