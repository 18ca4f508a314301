"""How often a pass writes the cells of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from ohmformer.cost.operands import cells_written, tokens_written, windows_of, written_plan
from ohmformer.cost.tiles import KVArrays, KVUse, caches, slots_of
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.mapping.write_effort import effort
from ohmformer.workload.spec import Workload


@dataclass(frozen=True)
class Wear:
    """Writes of one cell in one pass of all samples, and what the cell endures.

    Attributes:
        role: attention.key or attention.value.
        writes: of the most used cell.
        mean_writes: of all cells on average, those that stay unused included.
        cells: cells that are written at all.
        pulses: that wear the cell in one write; with all repetitions where writes are verified, on average.
        endurance: pulses that a cell survives.
        shared: whether layers share them.
        engine: that has these cells.
    """

    role: str
    writes: float
    mean_writes: float
    cells: int
    pulses: float
    endurance: float
    shared: bool
    engine: ArrayEngine


def wear(workload: Workload, arrays: list[KVArrays]) -> Iterator[Wear]:
    """How often the cells of keys and values are written in one pass; none of a role with cells that nobody knows."""
    unknown = {s.role for s in arrays if None in (s.engine.array.cell.endurance, s.engine.array.cell.write_pulses)}
    for entry in arrays:
        cell = entry.engine.array.cell
        if entry.role in unknown or cell.endurance is None or cell.write_pulses is None:
            continue
        mean = sum(use.layers * use.op.batch * _cells(use, entry) for use in entry.uses) / entry.cells
        worn = max(effort(use.plan.array, use.plan.slices).worn for use in entry.uses)
        yield Wear(
            entry.role,
            _most(workload, entry),
            mean,
            entry.cells,
            cell.write_pulses * worn,
            cell.endurance,
            entry.shared,
            entry.engine,
        )


def _most(workload: Workload, entry: KVArrays) -> float:
    """Writes of the most written slot: of all layers that share it, and of all samples that have none of their own."""
    slots = [slots_of(use.op, entry.engine) for use in entry.uses]
    if entry.shared:
        return workload.batch * sum(use.layers * _hottest(workload, use, entry, max(slots)) for use in entry.uses)
    return max(
        workload.batch / caches(workload, use.op, shared=False) * _hottest(workload, use, entry, own)
        for use, own in zip(entry.uses, slots, strict=True)
    )


def _hottest(workload: Workload, use: KVUse, entry: KVArrays, slots: int) -> float:
    """Of one layer and sample. Slots of a decoder's own cache take turns; otherwise the first is always used."""
    share = tokens_written(use.op, entry.engine, shared=entry.shared) / slots
    if workload.phase == "decode" and not entry.shared:
        return share
    return ceil(share) * windows_of(use.op, workload.batch)


def _cells(use: KVUse, entry: KVArrays) -> int:
    """Cells that are written for one sample, or for one of its windows."""
    tokens = tokens_written(use.op, entry.engine, shared=entry.shared)
    plan = written_plan(use.op, entry.engine, use.plan.array, None, tokens)
    return cells_written(use.op, entry.engine, replace(plan, slices=use.plan.slices), tokens) if plan else 0
