"""Weights that do not fit into the arrays of an engine, and are loaded from the memory off the chip for every use."""

from __future__ import annotations

from ohmformer.array.event_counter import Counts
from ohmformer.cost import components
from ohmformer.cost.cost import add_energy
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.operands import chip_of
from ohmformer.cost.power.standing import tiles_at_work
from ohmformer.cost.stage import MEMORY, Stage
from ohmformer.cost.tiles import LayerArrays, projection_weights
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, SramEngine
from ohmformer.mapping.planning import Plan


def bytes_loaded(hardware: Accelerator, layers: list[LayerArrays]) -> float:
    """Bytes of the weights that are loaded into SRAM for every use; 0 if all weights fit, or for other arrays."""
    engine = hardware.projection
    if not isinstance(engine, SramEngine) or not engine.arrays:
        return 0.0
    weights = [(layer.count, projection_weights(hardware, layer)) for layer in layers]
    arrays = sum(count * plan.arrays for count, plans in weights for plan in plans)
    return sum(count * _bytes_of(plans) for count, plans in weights) if arrays > engine.arrays else 0.0


def _bytes_of(weights: list[Plan]) -> float:
    """Bytes of matrices."""
    return sum(plan.inputs * plan.outputs * plan.matrices * plan.array.bits / 8 for plan in weights)


def load_stage(hardware: Accelerator, arrays: LayerArrays, layers: list[LayerArrays], uses: int) -> Stage | None:
    """The stage that loads a layer's weights from off-chip memory, `uses` times; None if all weights fit.

    Products wait for it. A layer that is larger than the chip is loaded in parts, which takes the same time.

    Raises:
        BadInput: weights must be loaded and the chip has no off-chip memory.
    """
    engine = hardware.projection
    if not isinstance(engine, SramEngine) or not engine.arrays:
        return None
    weights = projection_weights(hardware, arrays)
    if not weights or not bytes_loaded(hardware, layers):
        return None
    chip = chip_of(hardware)
    if chip.dram is None:
        raise BadInput("hardware.chip.dram: is missing, but the weights do not all fit and must be loaded; add it")
    size = _bytes_of(weights)
    writes = [components.write_cost(plan, "projection", lines=engine.write_lines) for plan in weights]
    energy = add_energy({"dram": size * chip.dram.energy}, *(cost.energy for cost in writes))
    lines = engine.array.columns if engine.write_lines == "columns" else engine.array.rows
    time = largest(size / chip.dram.bandwidth, lines * writes[0].interval)
    energy = {name: uses * joules for name, joules in energy.items()}
    counts = sum((plan.writes(uses) for plan in weights), Counts())
    standing = tiles_at_work(hardware, min(engine.arrays, sum(plan.arrays for plan in weights)))
    return Stage("load", "projection", MEMORY, True, floor=time, energy=energy, counts=counts, standing=standing)
