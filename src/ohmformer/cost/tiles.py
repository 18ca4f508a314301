"""Room: the arrays that layers fill, the tiles around them, and their area.

Tiles hold arrays of one kind. Weights take whole tiles for each layer; keys and values of all layers stand together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from ohmformer.array.spec import Crossbar
from ohmformer.cost import components
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.operands import array_reads, chip_of, written_plan
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, ArrayEngine, ExactEngine, GpuEngine, SimdEngine, SramEngine
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import DynamicMatMul, Workload


@dataclass(frozen=True)
class KVUse:
    """A product whose K or V (or Q or P) lies in cells.

    Attributes:
        op: the product.
        engine: whose arrays hold it.
        shared: True if all layers use the same arrays.
        plan: its matrices of one sample.
        layers: how many layers have such a product.
    """

    op: DynamicMatMul
    engine: ArrayEngine
    shared: bool
    plan: Plan
    layers: int


@dataclass(frozen=True)
class LayerArrays:
    """What each of `count` equal layers has in arrays: its weights, and its K and V.

    Weights that an earlier product stores are not there again.
    """

    count: int
    weights: list[Plan]
    kv: list[KVUse]

    @cached_property
    def arrays(self) -> int:
        """Of the weights of one layer."""
        return sum(plan.arrays for plan in self.weights)

    @cached_property
    def kinds(self) -> list[tuple[Crossbar, int]]:
        """Arrays of the weights of one layer, by kind."""
        return _by_kind((plan.array, plan.arrays) for plan in self.weights)


@dataclass(frozen=True)
class KVArrays:
    """K or V in arrays of one kind: what uses them, and the matrices that have cells, with how many of each."""

    role: str
    engine: ArrayEngine
    shared: bool
    uses: tuple[KVUse, ...]
    plans: tuple[tuple[Plan, int], ...]

    @cached_property
    def arrays(self) -> int:
        """Counting both of a differential pair."""
        return sum(plan.arrays * count for plan, count in self.plans)

    @cached_property
    def arrays_per_polarity(self) -> int:
        """Counting a differential pair once."""
        return sum(plan.arrays_per_polarity * count for plan, count in self.plans)

    @cached_property
    def cells(self) -> int:
        """Cells that are written at all."""
        return sum(plan.cells * count for plan, count in self.plans)


@dataclass(frozen=True)
class Tiles:
    """Tiles by the arrays that fill them; None for those without arrays."""

    kinds: list[tuple[str, Crossbar | None, int]]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(count for _, _, count in self.kinds)


def layer_arrays(ops: Iterable[LayerOp], count: int) -> LayerArrays:
    """What one of `count` equal layers has in arrays."""
    weights: list[Plan] = []
    kv: list[KVUse] = []
    for placed in ops:
        if not isinstance(placed, PlacedOp) or not isinstance(placed.engine, ArrayEngine):
            continue
        op, engine = placed.op, placed.engine
        if isinstance(op, DynamicMatMul):
            plan = written_plan(op, engine, placed.array, placed.max_code, slots_of(op, engine))
            assert plan is not None
            kv.append(KVUse(op, engine, placed.shared, plan, count))
        elif placed.holds_cells:
            weights.append(array_reads(placed).matrices)
    return LayerArrays(count, weights, kv)


def kv_arrays(workload: Workload, layers: list[LayerArrays]) -> list[KVArrays]:
    """The arrays of K and V: those of one role and kind, which are written from the same side, stand together.

    Where layers share arrays they are those of the largest one; a layer with two attentions has a set for each.
    """
    arrays: list[Crossbar] = []
    groups: dict[tuple[object, ...], list[KVUse]] = {}
    for use in (use for layer in layers for use in layer.kv):
        attention = use.op.stage if use.shared else ""
        kind = _index_of(use.engine.array, arrays)
        groups.setdefault((use.op.role, kind, use.engine.written, use.shared, attention), []).append(use)
    found = []
    for uses in groups.values():
        first = uses[0]
        if first.shared:
            plans = [(max((use.plan for use in uses), key=_arrays), 1)]
        else:
            plans = [(use.plan, use.layers * caches(workload, use.op, shared=False)) for use in uses]
        found.append(KVArrays(first.op.role, first.engine, first.shared, tuple(uses), tuple(plans)))
    return found


def slots_of(op: DynamicMatMul, engine: ArrayEngine) -> int:
    """For how many tokens of a sample there are cells."""
    return engine.resident or (op.queries if engine.written == "left" else op.tokens)


def caches(workload: Workload, op: DynamicMatMul, *, shared: bool) -> int:
    """How many samples have keys and values of their own in cells: all whose later tokens come back for them.

    A prefill fills the cells that decoding finds; an encoder's own keys and values are done with when it has run.
    """
    kept = workload.phase == "decode" or (workload.phase == "prefill" and (op.causal or op.across))
    return workload.batch if kept and not shared else 1


def _arrays(plan: Plan) -> int:
    return plan.arrays


def _by_kind(parts: Iterable[tuple[Crossbar, int]]) -> list[tuple[Crossbar, int]]:
    """Counts of equal arrays added."""
    arrays: list[Crossbar] = []
    counts: list[int] = []
    for array, count in parts:
        kind = _index_of(array, arrays)
        if kind == len(counts):
            counts.append(0)
        counts[kind] += count
    return list(zip(arrays, counts, strict=True))


def _index_of(array: Crossbar, known: list[Crossbar]) -> int:
    """The position of an equal array in a short list, which is extended by it if there is none."""
    for index, other in enumerate(known):
        if other is array or other == array:
            return index
    known.append(array)
    return len(known) - 1


def limit(hardware: Accelerator) -> int | None:
    """How many arrays there are for weights, where that is limited."""
    engine = hardware.projection
    return engine.arrays if isinstance(engine, SramEngine) else None


def weight_arrays(hardware: Accelerator, layers: list[LayerArrays]) -> list[tuple[Crossbar, int]]:
    """Arrays of weights of all layers by kind; of those of which there are so many, no more."""
    found = _by_kind((array, layer.count * count) for layer in layers for array, count in layer.kinds)
    most = limit(hardware)
    return found if most is None else [(a, min(n, most) if _is_projection(a, hardware) else n) for a, n in found]


def of_projection(hardware: Accelerator, layer: LayerArrays) -> list[Plan]:
    """The weights that lie in the arrays for weights, and not in arrays that rules name."""
    return [plan for plan in layer.weights if _is_projection(plan.array, hardware)]


def _is_projection(array: Crossbar, hardware: Accelerator) -> bool:
    return isinstance(hardware.projection, ArrayEngine) and array is hardware.projection.array


def tiles(hardware: Accelerator, layers: list[LayerArrays], kv: list[KVArrays]) -> Tiles:
    """Tiles of weights (spare ones included), and of keys and values.

    Raises:
        BadInput: there are fewer.
    """
    weights = weight_arrays(hardware, layers)
    in_attention = _by_kind((entry.engine.array, entry.arrays) for entry in kv)
    total, attention = sum(count for _, count in weights), sum(count for _, count in in_attention)
    fixed = fixed_lanes(hardware)
    if not total and not attention and not fixed:
        return Tiles([])
    chip = chip_of(hardware)
    per_tile = chip.arrays_per_core * chip.cores_per_tile
    whole = [
        (array, layer.count * ceil(count / per_tile))
        for layer in layers
        for array, count in layer.kinds
        if limit(hardware) is None or not _is_projection(array, hardware)
    ]
    if limit(hardware) is not None:
        whole += [(array, ceil(count / per_tile)) for array, count in weights if _is_projection(array, hardware)]
    kinds: list[tuple[str, Crossbar | None, int]] = [("projection", *entry) for entry in _by_kind(whole)]
    kinds += [("attention", array, ceil(count / per_tile)) for array, count in in_attention]
    without = ceil(fixed / (chip.cores_per_tile * chip.vector.lanes_per_core)) - sum(count for _, _, count in kinds)
    kinds.append(("projection", None, max(0, without)))
    needed = used = sum(count for _, _, count in kinds)
    if chip.granularity == "node":
        if chip.tiles_per_node is None:
            raise BadInput("hardware.chip.tiles_per_node: is missing; add it, or take granularity = 'layer'")
        needed = ceil(needed / chip.tiles_per_node) * chip.tiles_per_node
    if chip.tiles is not None and needed > chip.tiles:
        raise BadInput(
            f"hardware.chip.tiles = {chip.tiles}: the model needs {needed} tiles ({total} arrays of weights, "
            f"{attention} of keys and values, {per_tile} to a tile); raise it, or leave it out to take as many as are "
            "needed"
        )
    own = hardware.projection.array if isinstance(hardware.projection, ArrayEngine) else None
    return Tiles([*kinds, ("projection", own, (chip.tiles or needed) - used)])


def fixed_lanes(hardware: Accelerator) -> int:
    """Vector lanes that there have to be whatever lies on arrays: a number that an engine asks for."""
    engines = (hardware.projection, hardware.attention.key, hardware.attention.value)
    numbers = [engine.lanes for engine in engines if isinstance(engine, SimdEngine)]
    return max((number for number in numbers if not isinstance(number, str)), default=0)


def lanes(hardware: Accelerator, layer: LayerArrays) -> int:
    """Vector lanes of the tiles that hold a layer's weights."""
    if not layer.weights or hardware.chip is None:
        return 0
    chip = hardware.chip
    per_tile = chip.arrays_per_core * chip.cores_per_tile
    return sum(ceil(count / per_tile) for _, count in layer.kinds) * chip.cores_per_tile * chip.vector.lanes_per_core


def area(hardware: Accelerator, used: Tiles, workload: Workload) -> float:
    """Tiles full of arrays, or of none, nodes around them, and units for softmax [m^2]; that of a GPU is its die."""
    if isinstance(hardware.projection, GpuEngine):
        return hardware.projection.area
    chip = chip_of(hardware)
    shell = chip.tile_area + chip.cores_per_tile * chip.core_area
    per_tile = chip.arrays_per_core * chip.cores_per_tile
    total = 0.0
    for role, array, count in used.kinds:
        inside = per_tile * components.array_area(array, role) if count and array is not None else 0.0
        total += count * (shell + inside)
    heads = max((op.heads for op in workload.dynamic), default=0)
    units = heads * chip.softmax.area_per_head if chip.softmax else 0.0
    engines = dict.fromkeys((hardware.projection, hardware.attention.key, hardware.attention.value))
    units += sum(engine.own_area() for engine in engines if isinstance(engine, ExactEngine))
    return total + ceil(used.total / (chip.tiles_per_node or used.total or 1)) * chip.node_area + units
