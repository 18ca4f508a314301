"""The price of a refresh: all cells of keys and values are written again, from the memory that keeps the values.

Cells that no token fills are left out. The machine stops computing for a refresh. All layers refresh at the same time,
and so do K and V, since each has its own arrays and drivers; the samples of a batch follow one another. A line of every
array is written at a time, as when tokens are written for the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from ohmformer import units
from ohmformer.cost import array_costs
from ohmformer.cost.attention.token_places import slots_of, tokens_for_cells
from ohmformer.cost.attention.write_lines import matrix_lines
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.memory.homes import KV, Homes
from ohmformer.cost.memory.residents import kv_in_memory
from ohmformer.cost.network.transfer import transfer_cost
from ohmformer.cost.operands import chip_of, written_plan
from ohmformer.cost.power.standing import tiles_at_work
from ohmformer.cost.stage import Stage
from ohmformer.cost.tiles import KVArrays, KVUse, caches
from ohmformer.errors import BadInput
from ohmformer.hardware.refresh import refresh_interval
from ohmformer.hardware.spec import Accelerator
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import Workload

REFRESH = "refresh"
"""Name of the work of writing keys and values again, in splits of time and energy and in traces."""

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
        static: energy of gated tiles, which are on during a refresh [J]; 0 if tiles are always on.
    """

    interval: float
    seconds: float
    energy: Mapping[str, float]
    cell_writes: int
    static: float = 0.0

    @property
    def work(self) -> float:
        """Time of computing between two refreshes, so that no value gets older than `interval` [s]."""
        return self.interval - self.seconds

    @property
    def joules(self) -> float:
        """Energy of a refresh, without standing power [J]."""
        return sum(self.energy.values())

    @property
    def stage(self) -> Stage:
        """A refresh as a stage of attention, whose energy is to be summed with that of other work."""
        return Stage(REFRESH, "attention", REFRESH, energy=self.energy)

    def count(self, work: float) -> int:
        """Number of refreshes during `work` seconds of computing; none is needed at its end."""
        return refreshes(work, self.work)

    def latency(self, work: float) -> float:
        """Time of `work` seconds of computing with their refreshes [s]."""
        return work + self.count(work) * self.seconds


def refreshes(work: float, between: float) -> int:
    """Number of refreshes during `work` seconds of computing, if there are `between` seconds between two of them."""
    return max(0, ceil(work / between * (1 - ROUNDING)) - 1)


def refresh_of(workload: Workload, arrays: list[KVArrays], hardware: Accelerator, homes: Homes) -> Refresh | None:
    """The refresh that an accelerator needs for a pass; None if its cells keep their values.

    Args:
        workload: phase and batch.
        arrays: the arrays of K and V.
        hardware: the accelerator.
        homes: what lives in which memory.

    Raises:
        BadInput: K and V are in no cells, or a refresh takes longer than its interval.
    """
    interval = refresh_interval(hardware.attention)
    if interval is None:
        return None
    if not arrays:
        raise BadInput("hardware.attention.refresh: K and V are in no cells on this accelerator; leave it out")
    seconds, cells, off_chip, energy = 0.0, 0, 0.0, dict[str, float]()
    for entry in arrays:
        for use, plan, count in _held(workload, entry):
            write = array_costs.write_cost(plan, entry.role, lines=use.engine.write_lines)
            in_turn = entry.sets if entry.shared else caches(workload, use.op, shared=False)
            lines = matrix_lines(plan, use.engine, tokens_in_columns=entry.role == "attention.key")
            seconds = largest(seconds, in_turn * lines * write.interval)
            size = plan.inputs * plan.outputs * plan.matrices * hardware.value_bytes
            moved = transfer_cost(chip_of(hardware), size, 0.0)
            energy = sum_by_name(
                energy, *({name: count * value for name, value in cost.energy.items()} for cost in (write, moved))
            )
            cells += count * plan.cells
            if kv_in_memory(use, use.op, homes.phase):
                off_chip += count * size * homes.shares.get(KV, 0.0)
    if homes.memory is not None and off_chip:
        seconds = largest(seconds, off_chip / homes.memory.bandwidth)
        energy = sum_by_name(energy, {"dram": off_chip * homes.memory.energy})
    if seconds >= interval:
        raise BadInput(
            f"{_field(hardware)} {units.show(interval, 's')}: writing all keys and values of "
            f"{workload.title} again takes {units.show(seconds, 's')}; raise it, or take a smaller batch or cells that "
            "are written faster"
        )
    return Refresh(
        interval, seconds, energy, cells, seconds * tiles_at_work(hardware, sum(each.arrays for each in arrays))
    )


def _field(hardware: Accelerator) -> str:
    """The field that says when cells are refreshed."""
    stated = hardware.attention.refresh_loss
    return "hardware.attention.refresh" + (" =" if stated is None else f"_loss = {stated:g}, an interval of")


def _held(workload: Workload, entry: KVArrays) -> list[tuple[KVUse, Plan, int]]:
    """The products whose cells are refreshed, with the filled part of the matrices of a sample and their number."""
    if entry.shared:
        ((plan, count),) = entry.plans
        held = [(next(use for use in entry.uses if use.plan is plan), count)]
    else:
        held = [(use, count) for use, (_, count) in zip(entry.uses, entry.plans, strict=True)]
    return [(use, _filled(use), count) for use, count in held]


def _filled(use: KVUse) -> Plan:
    """The matrices of a sample without the cells of tokens that the pass does not have."""
    op, engine = use.op, use.engine
    tokens = op.queries if engine.written == "left" else max(1, tokens_for_cells(op, use.digital))
    if tokens >= slots_of(op, engine, use.digital):
        return use.plan
    plan = written_plan(op, engine, use.plan.array, None, tokens)
    assert plan is not None
    return replace(plan, slices=use.plan.slices)
