"""Weights that do not fit into the arrays of an engine, and are loaded from the memory off the chip for every use."""

from __future__ import annotations

from math import ceil

from ohmformer.array.event_counter import Counts
from ohmformer.cost import array_costs
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.operands import chip_of
from ohmformer.cost.power.standing import tiles_at_work
from ohmformer.cost.stage import MEMORY, Stage
from ohmformer.cost.tiles import LayerArrays
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, SramEngine
from ohmformer.mapping.planning import Plan


def bytes_loaded(hardware: Accelerator, layers: list[LayerArrays]) -> float:
    """Bytes of the weights that are loaded into SRAM for every use; 0 if all weights fit, or for other arrays."""
    engine = hardware.projection
    if not isinstance(engine, SramEngine) or not engine.arrays:
        return 0.0
    if sum(layer.count * layer.limited_arrays for layer in layers) <= engine.arrays:
        return 0.0
    return sum(layer.count * _bytes_of(layer.limited) for layer in layers)


def _bytes_of(weights: list[Plan]) -> float:
    """Bytes of matrices."""
    return sum(plan.inputs * plan.outputs * plan.matrices * plan.array.bits / 8 for plan in weights)


def load_stage(hardware: Accelerator, arrays: LayerArrays, layers: list[LayerArrays], uses: int) -> Stage | None:
    """The stage that loads a layer's weights from off-chip memory, `uses` times; None if all weights fit.

    Products wait for it. Of a layer that needs more arrays than there are, one part after another is loaded.

    Raises:
        BadInput: weights must be loaded and the chip has no off-chip memory.
    """
    engine = hardware.projection
    if not isinstance(engine, SramEngine) or not engine.arrays:
        return None
    weights = arrays.limited
    if not weights or not bytes_loaded(hardware, layers):
        return None
    chip = chip_of(hardware)
    if chip.dram is None:
        raise BadInput("hardware.chip.dram: is missing, but the weights do not all fit and must be loaded; add it")
    size = _bytes_of(weights)
    writes = [array_costs.write_cost(plan, "projection", lines=engine.write_lines) for plan in weights]
    energy = sum_by_name({"dram": size * chip.dram.energy}, *(cost.energy for cost in writes))
    lines = engine.array.columns if engine.write_lines == "columns" else engine.array.rows
    turns = ceil(arrays.limited_arrays / engine.arrays)
    time = largest(size / chip.dram.bandwidth, turns * lines * writes[0].interval)
    energy = {name: uses * joules for name, joules in energy.items()}
    counts = sum((plan.writes(uses) for plan in weights), Counts())
    standing = tiles_at_work(hardware, min(engine.arrays, arrays.limited_arrays))
    return Stage("load", "projection", MEMORY, True, floor=time, energy=energy, counts=counts, standing=standing)
