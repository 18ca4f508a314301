"""The price of a refresh: all cells of keys and values are written again, from the memory that keeps the values.

The machine stops computing for it. All layers refresh at the same time, and so do K and V, since each has its own
arrays and drivers; the samples of a batch follow one another. A line of every array is written at a time, as when
tokens are written for the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from ohmformer import units
from ohmformer.cost import components
from ohmformer.cost.attention.write_lines import matrix_lines
from ohmformer.cost.cost import add_energy
from ohmformer.cost.operands import chip_of
from ohmformer.cost.tiles import KVArrays, KVUse, caches
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import Workload

ROUNDING = 1e-12
"""Relative difference up to which a pass that ends when a refresh is due ends before it."""


@dataclass(frozen=True)
class Refresh:
    """A refresh of all cells of keys and values of a pass.

    Attributes:
        interval: time after which every cell must have been written again [s].
        seconds: time of a refresh, in which nothing is computed [s].
        energy: component -> energy of a refresh [J].
        cell_writes: number of cells.
    """

    interval: float
    seconds: float
    energy: Mapping[str, float]
    cell_writes: int

    @property
    def work(self) -> float:
        """Time of computing between two refreshes, so that no value gets older than `interval` [s]."""
        return self.interval - self.seconds

    @property
    def joules(self) -> float:
        """Energy of a refresh [J]."""
        return sum(self.energy.values())

    def count(self, work: float) -> int:
        """Number of refreshes during `work` seconds of computing; none is needed at its end."""
        return refreshes(work, self.work)

    def latency(self, work: float) -> float:
        """Time of `work` seconds of computing with their refreshes [s]."""
        return work + self.count(work) * self.seconds


def refreshes(work: float, between: float) -> int:
    """Number of refreshes during `work` seconds of computing, if there are `between` seconds between two of them."""
    return max(0, ceil(work / between * (1 - ROUNDING)) - 1)


def refresh_of(workload: Workload, arrays: list[KVArrays], hardware: Accelerator) -> Refresh | None:
    """The refresh that an accelerator needs for a pass; None if its cells keep their values.

    Args:
        workload: phase and batch.
        arrays: the arrays of K and V.
        hardware: the accelerator.

    Raises:
        BadInput: K and V are in no cells, or a refresh takes longer than its interval.
    """
    interval = hardware.attention.refresh
    if interval is None:
        return None
    if not arrays:
        raise BadInput("hardware.attention.refresh: K and V are in no cells on this accelerator; leave it out")
    seconds, cells, energy = 0.0, 0, dict[str, float]()
    for entry in arrays:
        for use, plan, count in _held(workload, entry):
            write = components.write_cost(plan, entry.role, lines=use.engine.write_lines)
            in_turn = entry.sets if entry.shared else caches(workload, use.op, shared=False)
            lines = matrix_lines(plan, use.engine, tokens_in_columns=entry.role == "attention.key")
            seconds = max(seconds, in_turn * lines * write.interval)
            size = plan.inputs * plan.outputs * plan.matrices * _bytes_per_value(hardware)
            moved = components.transfer_cost(chip_of(hardware), size, 0.0)
            energy = add_energy(
                energy, *({name: count * value for name, value in cost.energy.items()} for cost in (write, moved))
            )
            cells += count * plan.cells
    if seconds >= interval:
        raise BadInput(
            f"hardware.attention.refresh = {units.show(interval, 's')}: writing all keys and values of "
            f"{workload.title} again takes {units.show(seconds, 's')}; raise it, or take a smaller batch or cells that "
            "are written faster"
        )
    return Refresh(interval, seconds, energy, cells)


def _held(workload: Workload, entry: KVArrays) -> list[tuple[KVUse, Plan, int]]:
    """The products whose cells are refreshed, with the matrices of a sample and their number."""
    if entry.shared:
        ((plan, count),) = entry.plans
        return [(next(use for use in entry.uses if use.plan is plan), plan, count)]
    return [(use, plan, count) for use, (plan, count) in zip(entry.uses, entry.plans, strict=True)]


def _bytes_per_value(hardware: Accelerator) -> float:
    engine = hardware.projection
    return engine.array.inputs.bits / 8 if isinstance(engine, ArrayEngine) else 1.0
