"""Full load: the peak rate of a chip, and the power and area of its parts if all of them work all the time.

Every array of the projection engine is read without a pause. Each matrix of one array takes as many values as the array
has rows from the memory of its tile, and gives as many as it has columns, which also leave the tile. All vector lanes
compute. This is how ISAAC and PUMA give the power of their parts. No workload reaches it.

    rate of vectors r = 1 / (time for which a vector occupies the arrays)
    operations per second = 2 rows columns matrices r,   matrices = arrays / (slices * polarities)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from ohmformer.array.spec import Crossbar
from ohmformer.cost import array_costs
from ohmformer.cost.network.transfer import transfer_cost
from ohmformer.cost.operands import chip_of
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.price_notes import machine_notes
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import plan


@dataclass(frozen=True)
class FullLoad:
    """A number of tiles at full load.

    Attributes:
        tiles: number of tiles.
        rate: operations per second [op/s]; a multiply-accumulate is two operations.
        power: part -> power [W]: array, dac, adc, sample, shift_add, register, buffer, bus, network, vector, static
            (standing power), links.
        area: part -> area [m^2]: array (cells and their drivers), dac, adc, sample, shift_add, core and tile (without
            what is in them), node (without its tiles).
        notes: what the reader of these numbers must know, such as a rate above that of the converters.
    """

    tiles: int
    rate: float
    power: Mapping[str, float]
    area: Mapping[str, float]
    notes: tuple[str, ...] = ()


def full_load(hardware: Accelerator, tiles: int | None = None) -> FullLoad:
    """Rate, power and area of an accelerator whose projection engine is at full load.

    Args:
        hardware: an accelerator with arrays for its weights.
        tiles: number of tiles; by default those of the chip, or of one node, or one tile.

    Raises:
        BadInput: it has no arrays for weights, `tiles` is below 1, or a price is missing.
    """
    chip, engine = chip_of(hardware), hardware.projection
    if not isinstance(engine, ArrayEngine):
        raise BadInput(
            f"full_load: hardware.projection.kind = {engine.kind!r}: computes without arrays; take 'crossbar' or 'sram'"
        )
    if tiles is not None and tiles < 1:
        raise BadInput(f"full_load: tiles = {tiles}: must be 1 or more")
    array, count = engine.array, tiles or chip.tiles or chip.tiles_per_node or 1
    arrays = chip.arrays_per_core * chip.cores_per_tile
    matrices = arrays / (array.slices() * array.polarities)
    cost = array_costs.mvm_cost(plan(array.columns, array.rows, array), 1, "projection")
    vectors = matrices / cost.interval
    moved = transfer_cost(chip, *(size * array.inputs.bits / 8 for size in (array.rows, array.columns)))
    lanes = chip.vector.lanes_per_core * chip.cores_per_tile
    power = {name: joules * vectors for name, joules in {**cost.energy, **moved.energy}.items()}
    power |= {"vector": lanes * chip.clock * chip.vector.energy_per_op, "static": chip.tile_power}
    nodes = ceil(count / (chip.tiles_per_node or count))
    links = {"links": nodes * chip.link_power} if chip.link_power else {}
    return FullLoad(
        count,
        count * 2 * array.rows * array.columns * vectors,
        {**{name: count * watts for name, watts in power.items()}, **links},
        _area(chip, array, count, nodes),
        tuple(machine_notes(hardware)),
    )


def _area(chip: Chip, array: Crossbar, tiles: int, nodes: int) -> dict[str, float]:
    """Part -> area [m^2] of tiles whose places for arrays are all taken."""
    prices, arrays = priced(array, "projection"), tiles * chip.arrays_per_core * chip.cores_per_tile
    sets = array.column_circuits
    each = {
        "array": prices.cell_area,
        "dac": array.rows * prices.dac_area,
        "adc": sets * ceil(array.columns / array.adc.columns_per_adc) * prices.adc_area,
        "sample": sets * array.columns * prices.sample_area,
        "shift_add": sets * prices.shift_add_area,
    }
    outside = {
        "core": tiles * chip.cores_per_tile * chip.core_area,
        "tile": tiles * chip.tile_area,
        "node": nodes * chip.node_area,
    }
    return {**{name: arrays * size for name, size in each.items()}, **outside}
