"""The cells that hold keys and values: how many there are, and how often a pass writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from ohmformer.arch.operands import cells_written, tokens_written, windows_of, written_plan
from ohmformer.hardware.spec import Accelerator, ArrayEngine, Engine
from ohmformer.mapping.plan import Plan
from ohmformer.mapping.spec import KVClip
from ohmformer.workload.spec import DynamicMatMul, Workload


@dataclass(frozen=True)
class Stored:
    """Matrices of keys, or of values, that have cells: each with how many there are of it."""

    plans: tuple[tuple[Plan, int], ...]

    @cached_property
    def arrays(self) -> int:
        """Counting both of a differential pair."""
        return sum(plan.arrays * count for plan, count in self.plans)

    @cached_property
    def cells(self) -> int:
        """Cells that are written at all."""
        return sum(plan.cells * count for plan, count in self.plans)


@dataclass(frozen=True)
class Wear:
    """Writes of one cell in one pass of all samples, and what the cell endures.

    Attributes:
        role: attention.key or attention.value.
        writes: of the most used cell.
        mean_writes: of all cells on average, those that stay unused included.
        cells: cells that are written at all.
        pulses: that wear the cell in one write.
        endurance: pulses that a cell survives.
    """

    role: str
    writes: float
    mean_writes: float
    cells: int
    pulses: int
    endurance: float


def engine_of(role: str, hardware: Accelerator) -> Engine:
    """The engine of a role of attention."""
    return hardware.attention.key if role == "attention.key" else hardware.attention.value


def caches(workload: Workload, hardware: Accelerator) -> int:
    """How many samples have keys and values of their own in cells: all that come back for them in a later pass."""
    if hardware.attention.arrays == "shared" or workload.batch == 1:
        return 1
    return workload.batch if any(op.written < op.tokens for op in workload.dynamic) else 1


def wear(
    workload: Workload, hardware: Accelerator, stored: Mapping[str, Stored], clip: KVClip | None
) -> Iterator[Wear]:
    """How often the cells of keys and values are written in one pass; of cells whose endurance is known."""
    shared = hardware.attention.arrays == "shared"
    passes = workload.batch / caches(workload, hardware)
    for role, held in stored.items():
        engine = engine_of(role, hardware)
        assert isinstance(engine, ArrayEngine)
        cell = engine.array.cell
        if cell.endurance is None or cell.write_pulses is None:
            continue
        uses = [op for op in workload.dynamic if op.role == role]
        written = sum(op.batch * _cells(op, engine, hardware, clip) for op in uses)
        sets = [[op for op in uses if op.stage == stage] for stage in {op.stage for op in uses}] if shared else [uses]
        most = passes * max(_most(each, engine, workload, hardware) for each in sets)
        yield Wear(role, most, written / held.cells, held.cells, cell.write_pulses, cell.endurance)


def _most(uses: list[DynamicMatMul], engine: ArrayEngine, workload: Workload, hardware: Accelerator) -> float:
    """Writes of the most written slot for one sample: all layers write it where they share it."""
    if hardware.attention.arrays == "shared":
        slots = max(_slots(op, engine) for op in uses)
        return sum(_hottest(op, engine, workload, hardware, slots) for op in uses)
    return max(_hottest(op, engine, workload, hardware, _slots(op, engine)) for op in uses)


def _slots(op: DynamicMatMul, engine: ArrayEngine) -> int:
    """For how many tokens of a sample there are cells."""
    return engine.resident or (op.queries if engine.written == "left" else op.tokens)


def _hottest(op: DynamicMatMul, engine: ArrayEngine, workload: Workload, hardware: Accelerator, slots: int) -> float:
    """Writes of the most written slot for one sample.

    The slots of a decoder's own cache form a ring, so each has its turn; otherwise the first slot is always used.
    """
    share = tokens_written(op, engine, hardware.attention.arrays) / slots
    if workload.phase == "decode" and hardware.attention.arrays == "per_layer":
        return share
    return ceil(share) * windows_of(op, workload.batch)


def _cells(op: DynamicMatMul, engine: ArrayEngine, hardware: Accelerator, clip: KVClip | None) -> int:
    """Cells that are written for one sample, or for one of its windows."""
    tokens = tokens_written(op, engine, hardware.attention.arrays)
    plan = written_plan(op, engine, clip, tokens)
    return cells_written(op, engine, plan, tokens) if plan else 0
