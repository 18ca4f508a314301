"""Arrays, tiles and area: how many arrays layers fill, how many tiles hold these arrays, and their area.

A tile holds arrays of one kind. Weights take whole tiles per layer; keys and values of all layers share tiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Literal

from ohmformer import units
from ohmformer.array.spec import Crossbar
from ohmformer.cost.attention.array_sides import second_set_area
from ohmformer.cost.attention.token_places import slots_of
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.memory.gpu_memory import stays_cached
from ohmformer.cost.memory.limited_arrays import limit_of
from ohmformer.cost.operands import array_reads, chip_of, written_plan
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.cost.vector.units import lanes_for_all, lanes_of_a_layer
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, ArrayEngine, ExactEngine, SimdEngine, SramEngine
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import DynamicMatMul, Workload


@dataclass(frozen=True)
class KVUse:
    """A product whose K or V (or Q or P) lies in cells.

    Attributes:
        op: the product.
        engine: the engine whose arrays hold the operand.
        shared: True if all layers use the same arrays.
        plan: the matrices of one sample.
        layers: number of layers with an equal product.
        digital: the largest number of tokens of a sample that are digital, see `PlacedOp`.
    """

    op: DynamicMatMul
    engine: ArrayEngine
    shared: bool
    plan: Plan
    layers: int
    digital: int = 0


@dataclass(frozen=True)
class LayerArrays:
    """The matrices that each of `count` equal layers has in arrays.

    Attributes:
        count: number of equal layers.
        weights: its weights, without those that lie in the cells of an earlier product.
        kv: its K and V.
        limited: its further weights, for which the engine has a limited number of arrays.
        lanes: vector lanes of engines that every layer has for itself.
    """

    count: int
    weights: list[Plan]
    kv: list[KVUse]
    limited: list[Plan] = field(default_factory=list)
    lanes: int = 0

    @cached_property
    def arrays(self) -> int:
        """Number of arrays that the weights of one layer need."""
        return self.limited_arrays + sum(plan.arrays for plan in self.weights)

    @cached_property
    def limited_arrays(self) -> int:
        """Number of arrays that the weights need for which the engine has a limited number."""
        return sum(plan.arrays for plan in self.limited)

    @cached_property
    def kinds(self) -> list[tuple[Crossbar, int]]:
        """Number of arrays of unlimited number for the weights of one layer, by kind of array."""
        return _by_kind((plan.array, plan.arrays) for plan in self.weights)

    def at_once(self, hardware: Accelerator) -> list[tuple[Crossbar, int]]:
        """Number of arrays that hold weights of one layer at the same time, by kind of array."""
        most = array_limit(hardware)
        if most is None or not self.limited:
            return self.kinds
        return [*self.kinds, (self.limited[0].array, min(most, self.limited_arrays))]


@dataclass(frozen=True)
class KVArrays:
    """K or V in arrays of one kind.

    Attributes:
        role: attention.key or attention.value.
        engine: the engine with these arrays.
        shared: True if all layers use the same arrays.
        uses: the products that use the arrays.
        plans: the matrices that have cells, each with their number.
        sets: number of sets of the arrays, which layers use in turn.
    """

    role: str
    engine: ArrayEngine
    shared: bool
    uses: tuple[KVUse, ...]
    plans: tuple[tuple[Plan, int], ...]
    sets: int = 1

    @cached_property
    def arrays(self) -> int:
        """Number of arrays, counting both of a differential pair."""
        return sum(plan.arrays * count for plan, count in self.plans)

    @cached_property
    def arrays_per_polarity(self) -> int:
        """Number of arrays, counting a differential pair once."""
        return sum(plan.arrays_per_polarity * count for plan, count in self.plans)

    @cached_property
    def cells(self) -> int:
        """Number of cells that can hold K or V; the rest of the arrays does not count."""
        return sum(plan.cells * count for plan, count in self.plans)


@dataclass(frozen=True)
class Tiles:
    """Number of tiles by what fills them.

    Attributes:
        kinds: (role, kind of array, number of tiles); the array is None for tiles without arrays.
        transposable: kind of array, number of tiles among those whose arrays are transposable.
    """

    kinds: list[tuple[str, Crossbar | None, int]]
    transposable: list[tuple[Crossbar, int]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of all tiles."""
        return sum(count for _, _, count in self.kinds)


def layer_arrays(ops: Iterable[LayerOp], count: int) -> LayerArrays:
    """The matrices that one of `count` equal layers has in arrays."""
    weights: list[Plan] = []
    limited: list[Plan] = []
    kv: list[KVUse] = []
    own: dict[SimdEngine, int] = {}
    for placed in ops:
        if isinstance(placed, PlacedOp) and isinstance(placed.engine, SimdEngine) and placed.engine.shared == "layer":
            own[placed.engine] = lanes_of_a_layer(placed.engine)
        if not isinstance(placed, PlacedOp) or not isinstance(placed.engine, ArrayEngine):
            continue
        op, engine = placed.op, placed.engine
        if isinstance(op, DynamicMatMul):
            slots = slots_of(op, engine, placed.digital)
            plan = written_plan(op, engine, placed.array, placed.max_code, slots)
            assert plan is not None
            kv.append(KVUse(op, engine, placed.shared, plan, count, placed.digital))
        elif placed.holds_cells:
            held = weights if limit_of(placed) is None else limited
            held.append(array_reads(placed).matrices)
    return LayerArrays(count, weights, kv, limited, sum(own.values()))


def kv_arrays(workload: Workload, layers: list[LayerArrays], sets: int = 1) -> list[KVArrays]:
    """The arrays of K and V, grouped by role, kind of array and stored side.

    Arrays that layers share have the size of the largest layer. A layer with two attentions has a set for each.

    Args:
        workload: phase and batch.
        layers: the matrices of the layers.
        sets: number of sets of the arrays that layers share.
    """
    arrays: list[Crossbar] = []
    groups: dict[tuple[object, ...], list[KVUse]] = {}
    for use in (use for layer in layers for use in layer.kv):
        attention = use.op.stage if use.shared else ""
        kind = _index_of(use.engine.array, arrays)
        engine = (kind, use.engine.written, use.engine.write_lines)
        groups.setdefault((use.op.role, *engine, use.shared, attention), []).append(use)
    result = []
    for uses in groups.values():
        first = uses[0]
        if first.shared:
            plans = [(max((use.plan for use in uses), key=_arrays), sets)]
        else:
            plans = [(use.plan, use.layers * caches(workload, use.op, shared=False)) for use in uses]
        number = sets if first.shared else 1
        result.append(KVArrays(first.op.role, first.engine, first.shared, tuple(uses), tuple(plans), number))
    return result


def caches(workload: Workload, op: DynamicMatMul, *, shared: bool) -> int:
    """Number of samples whose keys and values stay in cells at the same time."""
    return workload.batch if stays_cached(workload.phase, op) and not shared else 1


def _arrays(plan: Plan) -> int:
    return plan.arrays


def _by_kind(parts: Iterable[tuple[Crossbar, int]]) -> list[tuple[Crossbar, int]]:
    """Kinds of arrays with the sum of their counts."""
    arrays: list[Crossbar] = []
    counts: list[int] = []
    for array, count in parts:
        kind = _index_of(array, arrays)
        if kind == len(counts):
            counts.append(0)
        counts[kind] += count
    return list(zip(arrays, counts, strict=True))


def _index_of(array: Crossbar, kinds: list[Crossbar]) -> int:
    """The position of an equal array in a short list; if there is none, the array is appended."""
    for index, other in enumerate(kinds):
        if other is array or other == array:
            return index
    kinds.append(array)
    return len(kinds) - 1


def array_limit(hardware: Accelerator) -> int | None:
    """The number of arrays for weights; None if it is not limited."""
    engine = hardware.projection
    return engine.arrays if isinstance(engine, SramEngine) else None


def weight_arrays(hardware: Accelerator, layers: list[LayerArrays]) -> list[tuple[Crossbar, int]]:
    """Number of arrays for the weights of all layers by kind, at most `array_limit`."""
    counts = _by_kind((array, layer.count * count) for layer in layers for array, count in layer.kinds)
    return [*counts, *_limited_arrays(hardware, layers)]


def _limited_arrays(hardware: Accelerator, layers: list[LayerArrays]) -> list[tuple[Crossbar, int]]:
    """The arrays of limited number that hold weights of all layers, with their number; empty if there are none."""
    most, needed = array_limit(hardware), sum(layer.count * layer.limited_arrays for layer in layers)
    if most is None or not needed:
        return []
    assert isinstance(hardware.projection, ArrayEngine)
    return [(hardware.projection.array, min(most, needed))]


def tiles_of_chip(hardware: Accelerator) -> int | None:
    """Number of tiles of one chip, or of a node where several chips are nodes; None for as many as needed."""
    chip = hardware.chip
    if chip is None or hardware.system is None:
        return None if chip is None else chip.tiles
    return chip.tiles or chip.tiles_per_node


def turns_of(hardware: Accelerator, layer: LayerArrays, layers: list[LayerArrays]) -> Literal["", "layers", "stages"]:
    """What takes turns in arrays of limited number, see `LayerContext.turns`.

    Args:
        hardware: the accelerator.
        layer: the matrices of the layer.
        layers: those of all layers of its chip.
    """
    most, needed = array_limit(hardware), layer.limited_arrays
    if most is None or not needed or sum(each.count * each.limited_arrays for each in layers) <= most:
        return ""
    return "stages" if needed > most else "layers" if 2 * needed > most else ""


def allocate_tiles(hardware: Accelerator, layers: list[LayerArrays], kv: list[KVArrays]) -> Tiles:
    """The tiles for weights, keys and values, with spare tiles up to the size of the chip.

    Raises:
        BadInput: the chip has fewer tiles.
    """
    weights = weight_arrays(hardware, layers)
    double = [entry for entry in kv if entry.engine.write_lines == "transposable"]
    transposable = _by_kind((entry.engine.array, entry.arrays) for entry in double) if double else []
    single = [entry for entry in kv if entry.engine.write_lines != "transposable"] if double else kv
    in_attention = [*_by_kind((entry.engine.array, entry.arrays) for entry in single), *transposable]
    total, attention = sum(count for _, count in weights), sum(count for _, count in in_attention)
    fixed = given_lanes(hardware, layers)
    if not total and not attention and not fixed:
        return Tiles([])
    chip = chip_of(hardware)
    per_tile = chip.arrays_per_core * chip.cores_per_tile
    whole = [(array, layer.count * ceil(count / per_tile)) for layer in layers for array, count in layer.kinds]
    whole += [(array, ceil(count / per_tile)) for array, count in _limited_arrays(hardware, layers)]
    kinds: list[tuple[str, Crossbar | None, int]] = [("projection", *entry) for entry in _by_kind(whole)]
    kinds += [("attention", array, ceil(count / per_tile)) for array, count in in_attention]
    without = ceil(fixed / (chip.cores_per_tile * chip.vector.lanes_per_core)) - sum(count for _, _, count in kinds)
    kinds.append(("projection", None, max(0, without)))
    needed = used = sum(count for _, _, count in kinds)
    size = tiles_of_chip(hardware)
    if chip.granularity == "node" and size is None:
        if chip.tiles_per_node is None:
            raise BadInput("hardware.chip.tiles_per_node: is missing; add it, or take granularity = 'layer'")
        needed = ceil(needed / chip.tiles_per_node) * chip.tiles_per_node
    if size is not None and needed > size:
        stored = units.show(_weight_bytes(layers), "B")
        per_tile_lanes = chip.cores_per_tile * chip.vector.lanes_per_core
        lanes = f"; {fixed} lanes, {per_tile_lanes} per tile" if without > 0 else ""
        raise BadInput(
            f"hardware.chip.{'tiles' if chip.tiles else 'tiles_per_node'} = {size}: "
            f"{'the model' if hardware.system is None else 'a chip'} needs {needed} tiles ({total} arrays of weights, "
            f"{attention} of keys and values, {per_tile} per tile; weights of {stored}{lanes}); "
            f"raise it{', or leave it out to take as many as needed' if hardware.system is None else ''}"
        )
    spare = hardware.projection.array if isinstance(hardware.projection, ArrayEngine) else None
    kinds.append(("projection", spare, (size or needed) - used))
    return Tiles(kinds, [(array, ceil(count / per_tile)) for array, count in transposable])


def _weight_bytes(layers: list[LayerArrays]) -> float:
    """Bytes of all weights in arrays."""
    plans = ((layer.count, plan) for layer in layers for plan in (*layer.weights, *layer.limited))
    return sum(count * plan.inputs * plan.outputs * plan.matrices * plan.array.bits / 8 for count, plan in plans)


def given_lanes(hardware: Accelerator, layers: Iterable[LayerArrays] = ()) -> int:
    """Number of vector lanes that engines and the chip specify, regardless of arrays; 0 if none do.

    Args:
        hardware: the accelerator.
        layers: the layers of a chip, each of which may have lanes of its own.
    """
    own = sum(layer.count * layer.lanes for layer in layers)
    units = hardware.chip.vector.units if hardware.chip else None
    return lanes_for_all(hardware) + own + (units or 0) * lanes_of_unit(hardware)


def lanes_of_unit(hardware: Accelerator) -> int:
    """Lanes of one of the vector units that all layers share; 0 if lanes belong to layers."""
    chip = hardware.chip
    return 0 if chip is None or chip.vector.units is None else chip.vector.lanes_per_core


def layer_lanes(hardware: Accelerator, layer: LayerArrays) -> int:
    """Number of vector lanes in the tiles that hold a layer's weights."""
    if hardware.chip is None or not (layer.weights or layer.limited):
        return 0
    chip = hardware.chip
    per_tile = chip.arrays_per_core * chip.cores_per_tile
    whole_tiles = sum(ceil(count / per_tile) for _, count in layer.at_once(hardware))
    return whole_tiles * chip.cores_per_tile * chip.vector.lanes_per_core


def share_filled(hardware: Accelerator, layer: LayerArrays, lanes: int) -> float:
    """Share of the arrays in the tiles of a layer's weights that hold its weights; 1 without such tiles.

    Args:
        hardware: the accelerator.
        layer: the matrices of the layer.
        lanes: see `layer_lanes`.
    """
    chip = hardware.chip
    if chip is None or not lanes:
        return 1.0
    arrays = sum([count for _, count in layer.at_once(hardware)])  # which, unlike `layer.arrays`, is known by now
    return arrays * chip.vector.lanes_per_core / (lanes * chip.arrays_per_core)


def chip_area(hardware: Accelerator, used: Tiles, heads: int, softmax_sets: int = 1) -> float:
    """Area of tiles with their arrays, nodes, softmax units of `heads` heads, exact engines, a GPU's die [m^2]."""
    exact = dict.fromkeys(engine for engine in hardware.engines.values() if isinstance(engine, ExactEngine))
    exact_area = sum(engine.checked_area() for engine in exact)
    die = largest(0.0, *(gpu.area for gpu in hardware.gpus.values()))
    if die and not used.total:
        return die + exact_area
    chip = chip_of(hardware)
    shell = chip.tile_area + chip.cores_per_tile * chip.core_area
    per_tile = chip.arrays_per_core * chip.cores_per_tile
    total = 0.0
    for role, array, count in used.kinds:
        arrays_area = per_tile * priced(array, role).area if count and array is not None else 0.0
        total += count * (shell + arrays_area)
    for array, count in used.transposable:
        total += count * per_tile * second_set_area(array, "attention")
    units = softmax_sets * heads * chip.softmax.area_per_head if chip.softmax else 0.0
    nodes = ceil(used.total / (chip.tiles_per_node or used.total or 1))
    return total + nodes * chip.node_area + (units + exact_area) + die
