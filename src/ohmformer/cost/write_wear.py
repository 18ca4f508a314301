"""How often the cells of keys and values are written in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from ohmformer.cost.attention.token_places import slots_of, tokens_written
from ohmformer.cost.operands import cells_written, windows_of, written_plan
from ohmformer.cost.tiles import KVArrays, KVUse, caches
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.workload.spec import DynamicMatMul, Workload


@dataclass(frozen=True)
class Wear:
    """Writes per cell in one pass of all samples, and the endurance of the cells.

    Attributes:
        role: attention.key or attention.value.
        max_writes: writes of the most used cell.
        mean_writes: mean writes of all these cells, with those that the pass leaves unwritten.
        cells: number of cells that can hold K or V; the rest of the arrays does not count.
        pulses: mean number of pulses per write that wear a cell, repetitions of verified writes included.
        endurance: number of pulses that a cell survives.
        shared: True if layers share the cells.
        engine: the engine whose arrays have these cells.
    """

    role: str
    max_writes: float
    mean_writes: float
    cells: int
    pulses: float
    endurance: float
    shared: bool
    engine: ArrayEngine

    def writes(self, *, leveling: bool) -> float:
        """Writes of the cell that decides: with wear leveling the mean cell, otherwise the most used one."""
        return self.mean_writes if leveling else self.max_writes

    def with_refreshes(self, times: float) -> Wear:
        """The wear if all cells are also written again `times` times."""
        return replace(self, max_writes=self.max_writes + times, mean_writes=self.mean_writes + times)


def wear(workload: Workload, arrays: list[KVArrays]) -> Iterator[Wear]:
    """The wear of the cells of keys and values, for each kind of array.

    A role is left out if one of its cells has no known endurance or number of pulses.

    Args:
        workload: phase and batch.
        arrays: the arrays of K and V.
    """
    for entry in worn(arrays):
        mean = sum(use.layers * use.op.batch * cells_of(use, entry) for use in entry.uses) / entry.cells
        yield wear_of(entry, max_writes(workload, entry), mean)


def worn(arrays: Sequence[KVArrays]) -> Iterator[KVArrays]:
    """The arrays whose cells have a known endurance and number of pulses, without roles of which some have not."""
    cells = [(entry.role, entry.engine.array.cell) for entry in arrays]
    unknown = {role for role, cell in cells if cell.endurance is None or cell.write_pulses is None}
    return (entry for entry in arrays if entry.role not in unknown)


def wear_of(entry: KVArrays, most: float, mean: float) -> Wear:
    """The wear of arrays from `worn`, from writes of their most used cell and mean writes of all their cells."""
    cell = entry.engine.array.cell
    assert cell.endurance is not None
    assert cell.write_pulses is not None
    pulses = cell.write_pulses * max(use.plan.effort.worn for use in entry.uses)
    return Wear(entry.role, most, mean, entry.cells, pulses, cell.endurance, entry.shared, entry.engine)


def max_writes(workload: Workload, entry: KVArrays) -> float:
    """Writes of the most written token slot, by all layers and all samples that share it."""
    slots = [slots_of(use.op, entry.engine, use.digital) for use in entry.uses]
    if entry.shared:
        writes = sum(use.layers * _slot_writes(workload, use, entry, max(slots)) for use in entry.uses)
        turns = workload.batch * sum(use.layers for use in entry.uses)
        share = ceil(turns / entry.sets) / turns if entry.sets > 1 else 1
        return workload.batch * writes * share
    return max(
        workload.batch / caches(workload, use.op, shared=False) * _slot_writes(workload, use, entry, count)
        for use, count in zip(entry.uses, slots, strict=True)
    )


def _slot_writes(workload: Workload, use: KVUse, entry: KVArrays, slots: int) -> float:
    """Writes of the most written slot by one layer and sample.

    In decoding, a cache that belongs to one layer is a ring whose slots take turns; otherwise slot 0 is always used.
    """
    writes_per_slot = tokens_written(use.op, entry.engine, use.digital, shared=entry.shared) / slots
    if workload.phase == "decode" and not entry.shared:
        return max(writes_per_slot, reference_writes(use.op, entry) * windows_of(use.op, workload.batch))
    return ceil(writes_per_slot) * windows_of(use.op, workload.batch)


def reference_writes(op: DynamicMatMul, entry: KVArrays) -> int:
    """Writes of a reference cell of Q or K by one layer and sample: 1, or 0 if tokens are appended to a cache."""
    engine = entry.engine
    appended = engine.written == "right" and op.written < op.tokens and not entry.shared
    return int(op.role == "attention.key" and engine.array.encoding == "offset" and not appended)


def cells_of(use: KVUse, entry: KVArrays) -> int:
    """Number of cells that are written for one sample, or for one of its attention windows."""
    tokens = tokens_written(use.op, entry.engine, use.digital, shared=entry.shared)
    plan = written_plan(use.op, entry.engine, use.plan.array, None, tokens)
    return (
        cells_written(use.op, entry.engine, replace(plan, slices=use.plan.slices), shared=entry.shared) if plan else 0
    )
