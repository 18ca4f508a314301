"""Standing power: what tiles draw whether they work or not, all the time or, if idle tiles are gated, only at work.

A gated tile is off while its arrays and lanes are idle. So a stage adds

    P = tile_power * max(arrays / arrays of a tile, lanes / lanes of a tile)

for as long as it occupies its unit. Waking up takes no time and no energy. PUMA's simulator (src/hw_stats.py) gates
more coarsely: a tile is on until its program ends, waiting included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ohmformer.cost.chips.exchange import on_chips
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.memory.limited_arrays import arrays_at_once
from ohmformer.cost.operands import LayerContext, chip_of
from ohmformer.cost.stage import Stage
from ohmformer.cost.vector.lanes import lanes_of_engine
from ohmformer.hardware.spec import Accelerator, SimdEngine

STATIC = "static"
"""Component, operation and engine of the energy of standing power."""


def chip_power(hardware: Accelerator, tiles: int) -> float:
    """Power that the tiles of a chip draw all the time [W]; 0 if idle tiles are gated."""
    if not tiles:
        return 0.0
    chip = chip_of(hardware)
    return 0.0 if chip.idle_tiles == "gated" else chip.tile_power * tiles


def powered(stage: Stage, ops: Iterable[LayerOp], context: LayerContext) -> Stage:
    """A stage with the power that its tiles draw while it works.

    Args:
        stage: the stage; it is returned as it is if tiles are always on.
        ops: the operations of the stage, or the products whose operands it writes.
        context: chip, and the lanes of the layer.
    """
    if context.hardware.chip is None or context.chip.idle_tiles == "on":
        return stage
    chip, products = context.chip, [op for op in ops if isinstance(op, PlacedOp)]
    arrays = arrays_at_once(products)
    lanes = max((_lanes(placed, context) for placed in products), default=context.working_lanes)
    arrays_per_tile = chip.arrays_per_core * chip.cores_per_tile
    lanes_per_tile = chip.vector.lanes_per_core * chip.cores_per_tile
    return replace(stage, standing=chip.tile_power * max(arrays / arrays_per_tile, lanes / lanes_per_tile))


def on_powered_chips(stage: Stage, ops: Iterable[LayerOp], context: LayerContext) -> Stage:
    """A stage as all chips that share its layer do it, with the power that their tiles draw while it works.

    Args:
        stage: the stage on one chip.
        ops: see `powered`.
        context: chip, lanes of the layer, and number of chips that share it.
    """
    return on_chips(powered(stage, ops, context), context.sharing)


def standing_stage(joules: float) -> Stage:
    """The energy of standing power [J] as a stage, to be summed with that of work."""
    return Stage(STATIC, STATIC, STATIC, energy={STATIC: joules})


def tiles_at_work(hardware: Accelerator, arrays: int) -> float:
    """Power that gated tiles draw while this number of their arrays is written [W]; 0 if tiles are always on."""
    chip = chip_of(hardware)
    return 0.0 if chip.idle_tiles == "on" else chip.tile_power * arrays / (chip.arrays_per_core * chip.cores_per_tile)


def _lanes(placed: PlacedOp, context: LayerContext) -> int:
    """Number of vector lanes that compute a product; 0 if no lanes compute it."""
    if not isinstance(placed.engine, SimdEngine):
        return 0
    return lanes_of_engine(placed.engine, context).number
