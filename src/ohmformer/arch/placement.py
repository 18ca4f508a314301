"""Puts a workload on an accelerator: every layer as priced stages, the arrays and tiles it takes, and the area.

Weights of a layer stay where they are; keys and values go to arrays that all layers share, or to arrays of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

from ohmformer.arch import components
from ohmformer.arch.cells import Stored, Wear, caches, engine_of, wear
from ohmformer.arch.cost import add_energy
from ohmformer.arch.operands import Pricing, chip_of, used_arrays, written_plan
from ohmformer.arch.products import layer_stages
from ohmformer.arch.stage import Stage
from ohmformer.array.counts import Counts
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, Engine, GpuEngine, SramEngine
from ohmformer.mapping.plan import Plan
from ohmformer.mapping.spec import KVClip
from ohmformer.workload.spec import DynamicMatMul, Layer, StaticMatMul, Workload


@dataclass(frozen=True)
class PlacedLayer:
    """One layer on the hardware.

    Attributes:
        name: of the layer.
        tokens: of one sample, that flow through its stages.
        stages: in order.
        join: the stage that needs all tokens of the stages before it, since every query sees every key; None where a
            query needs none that come after it.
        setup: what has to end before the first stage begins, such as loading weights; None for nothing.
        scores: heads, queries and keys of its attention (the largest, where it has several); None without one.
    """

    name: str
    tokens: int
    stages: tuple[Stage, ...]
    join: int | None
    setup: Stage | None
    scores: tuple[int, int, int] | None

    def named(self, name: str) -> PlacedLayer:
        """The same under another name."""
        return PlacedLayer(name, self.tokens, self.stages, self.join, self.setup, self.scores)

    def all_stages(self) -> tuple[Stage, ...]:
        """Its stages, and its setup before them."""
        return self.stages if self.setup is None else (self.setup, *self.stages)


@dataclass(frozen=True)
class Placement:
    """A workload on an accelerator.

    Attributes:
        arrays: of weights, and of keys and values.
        arrays_per_polarity: the same, counting a differential pair once.
        tiles: that they take; 0 for a GPU.
        area: of the chip [m^2].
        power: drawn whatever happens [W].
    """

    workload: Workload
    hardware: Accelerator
    layers: tuple[PlacedLayer, ...]
    arrays: Mapping[str, int]
    arrays_per_polarity: int
    tiles: int
    area: float
    power: float
    wear: tuple[Wear, ...]

    @cached_property
    def energy(self) -> dict[str, float]:
        """Energy of all operations by component [J]; without what is drawn all the time."""
        found: dict[str, float] = {}
        for layer, count in self.distinct():
            for stage in layer.all_stages():
                for name, value in stage.energy.items():
                    found[name] = found.get(name, 0.0) + count * value
        return found

    @property
    def counts(self) -> Counts:
        """Events on arrays, of all samples."""
        parts = (stage.counts.times(count) for layer, count in self.distinct() for stage in layer.all_stages())
        return sum(parts, Counts())

    def stages(self) -> list[Stage]:
        """All stages of all layers, setups included."""
        return [stage for layer in self.layers for stage in layer.all_stages()]

    def distinct(self) -> list[tuple[PlacedLayer, int]]:
        """Layers that differ in more than their name, and how many there are of each."""
        keys = [(layer.tokens, layer.join, id(layer.stages), id(layer.setup)) for layer in self.layers]
        times = Counter(keys)
        return [(layer, times[key]) for key, layer in dict(zip(keys, self.layers, strict=True)).items()]


def place(workload: Workload, hardware: Accelerator, *, clip: KVClip | None = None) -> Placement:
    """Price a workload on an accelerator.

    Args:
        workload: the products.
        hardware: its engines and chip need prices.
        clip: of K and V in memristive cells, which leaves out slices that are not needed any more; SRAM stays as it is.

    Raises:
        BadInput: a price is missing, the chip is too small, or the clip does not go with the arrays; one line with the
            field and the remedy.
    """
    _check_clip(hardware, clip)
    layers = workload.layers()
    held = {
        first: _held(layers[first], count, hardware, clip) for first, count in Counter(workload.kinds).items()
    }  # fmt: skip
    stored = _stored(workload, hardware, list(held.values()))
    tiles = _tiles(hardware, list(held.values()), stored)
    placed = {}
    for first, matrices in held.items():
        layer = layers[first]
        pricing = Pricing(hardware, workload.batch, layer.tokens, _lanes(hardware, matrices), clip)
        setup = _load(hardware, matrices, list(held.values()))
        placed[first] = _placed(layer, tuple(layer_stages(layer, pricing)), setup)
    arrays = {
        "projection": _count(hardware, list(held.values())),
        **{role: found.arrays for role, found in stored.items()},
    }
    return Placement(
        workload,
        hardware,
        tuple(placed[kind].named(layer.name) for kind, layer in zip(workload.kinds, layers, strict=True)),
        arrays,
        _per_polarity(hardware, arrays),
        sum(tiles),
        _area(hardware, tiles, stored, workload),
        hardware.chip.tile_power * sum(tiles) if hardware.chip else 0.0,
        tuple(wear(workload, hardware, stored, clip)),
    )


@dataclass(frozen=True)
class _Held:
    """What layers of equal work hold: how many there are, and of each the weights, keys and values (by role and stage).

    Weights that other modules hold already are not there again.
    """

    count: int
    weights: list[Plan]
    stored: list[tuple[str, str, Plan]]

    @cached_property
    def arrays(self) -> int:
        """Of the weights of one layer."""
        return sum(plan.arrays for plan in self.weights)


def _held(layer: Layer, count: int, hardware: Accelerator, clip: KVClip | None) -> _Held:
    pricing = Pricing(hardware, 1, 1, 0, clip)
    weights: list[Plan] = []
    stored: list[tuple[str, str, Plan]] = []
    for op in layer.ops:
        if not isinstance(op, (StaticMatMul, DynamicMatMul)):
            continue
        engine = pricing.engine(op)
        if not isinstance(engine, ArrayEngine):
            continue
        if isinstance(op, DynamicMatMul):
            tokens = engine.resident or (op.queries if engine.written == "left" else op.tokens)
            plan = written_plan(op, engine, pricing.max_code(op), tokens)
            assert plan is not None
            stored.append((op.role, op.stage, plan))
        elif not op.shared_with:
            weights.append(used_arrays(op, engine, pricing).reads)
    return _Held(count, weights, stored)


def _check_clip(hardware: Accelerator, clip: KVClip | None) -> None:
    for engine in (hardware.attention.key, hardware.attention.value):
        if clip is not None and isinstance(engine, CrossbarEngine):
            clip.check(engine.array)


def _placed(layer: Layer, stages: tuple[Stage, ...], setup: Stage | None) -> PlacedLayer:
    keys = [op for op in layer.ops if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
    scores = max(((op.heads, op.queries, op.tokens) for op in keys), key=prod, default=None)
    names = [stage.name.split("+") for stage in stages]
    waits = bool(keys) and not keys[0].causal and not keys[0].across and keys[0].written == keys[0].queries
    join = next((i for i, parts in enumerate(names) if keys and keys[0].stage in parts), None) if waits else None
    return PlacedLayer(layer.name, layer.tokens, stages, join or None, setup, scores)


def _stored(workload: Workload, hardware: Accelerator, held: list[_Held]) -> dict[str, Stored]:
    """Role -> the matrices of keys or values that need cells: of all layers and caches, or of one layer.

    Where layers share arrays they are those of the largest one; a layer with two attentions has a set for each.
    """
    found: dict[str, list[tuple[Plan, int]]] = {}
    largest: dict[tuple[str, str], Plan] = {}
    copies = caches(workload, hardware)
    for layer in held:
        for role, stage, plan in layer.stored:
            found.setdefault(role, []).append((plan, layer.count * copies))
            largest[role, stage] = max(largest.get((role, stage), plan), plan, key=_arrays)
    if hardware.attention.arrays == "shared":
        sets = {role: [(plan, 1) for (other, _), plan in largest.items() if other == role] for role in found}
        return {role: Stored(tuple(plans)) for role, plans in sets.items()}
    return {role: Stored(tuple(plans)) for role, plans in found.items()}


def _arrays(plan: Plan) -> int:
    return plan.arrays


def _count(hardware: Accelerator, held: list[_Held]) -> int:
    needed = sum(layer.count * layer.arrays for layer in held)
    engine = hardware.projection
    return min(needed, engine.arrays) if isinstance(engine, SramEngine) and engine.arrays else needed


def _per_polarity(hardware: Accelerator, arrays: Mapping[str, int]) -> int:
    engines: dict[str, Engine] = {
        "projection": hardware.projection,
        "attention.key": hardware.attention.key,
        "attention.value": hardware.attention.value,
    }
    return sum(
        count // engine.array.polarities
        for role, count in arrays.items()
        if isinstance(engine := engines[role], ArrayEngine)
    )


def _tiles(hardware: Accelerator, layers: list[_Held], stored: Mapping[str, Stored]) -> tuple[int, int]:
    """Tiles of weights (spare ones included), and of keys and values.

    Raises:
        BadInput: there are fewer.
    """
    arrays = [(layer.arrays, layer.count) for layer in layers]
    total = sum(each * count for each, count in arrays)
    held = sum(cells.arrays for cells in stored.values())
    if not total and not held:
        return 0, 0
    chip = chip_of(hardware)
    room = chip.arrays_per_core * chip.cores_per_tile
    if isinstance(hardware.projection, SramEngine) and hardware.projection.arrays:
        total = min(total, hardware.projection.arrays)
        arrays = [(total, 1)]
    attention = ceil(held / room)
    needed = sum(ceil(each / room) * count for each, count in arrays) + attention
    if chip.granularity == "node":
        if chip.tiles_per_node is None:
            raise BadInput("hardware.chip.tiles_per_node: is missing; add it, or take granularity = 'layer'")
        needed = ceil(needed / chip.tiles_per_node) * chip.tiles_per_node
    if chip.tiles is not None and needed > chip.tiles:
        raise BadInput(
            f"hardware.chip.tiles = {chip.tiles}: the model needs {needed} tiles ({total} arrays of weights, "
            f"{held} of keys and values, {room} to a tile); raise it, or leave it out to take as many as are needed"
        )
    return (chip.tiles or needed) - attention, attention


def _lanes(hardware: Accelerator, held: _Held) -> int:
    """Vector lanes of the tiles that hold a layer's weights."""
    if not held.weights or hardware.chip is None:
        return 0
    chip = hardware.chip
    tiles = ceil(held.arrays / (chip.arrays_per_core * chip.cores_per_tile))
    return tiles * chip.cores_per_tile * chip.vector.lanes_per_core


def _load(hardware: Accelerator, held: _Held, layers: list[_Held]) -> Stage | None:
    """Loading a layer's weights from memory off the chip, where not all find room; once for all samples.

    Products wait for it; a layer that is larger than the chip goes through it in parts, which takes the same time.
    """
    engine = hardware.projection
    if not isinstance(engine, SramEngine) or not engine.arrays or not held.weights:
        return None
    if sum(layer.count * layer.arrays for layer in layers) <= engine.arrays:
        return None
    chip = chip_of(hardware)
    if chip.dram is None:
        raise BadInput("hardware.chip.dram: is missing, but the weights do not all fit and must be loaded; add it")
    size = sum(plan.inputs * plan.outputs * plan.matrices for plan in held.weights) * engine.array.bits / 8
    writes = [components.write(plan, "projection") for plan in held.weights]
    energy = add_energy({"dram": size * chip.dram.energy}, *(cost.energy for cost in writes))
    time = max(size / chip.dram.bandwidth, engine.array.rows * writes[0].interval)
    counts = sum((plan.writes(1) for plan in held.weights), Counts())
    return Stage("load", "projection", "memory", shared=True, floor=time, energy=energy, counts=counts)


def _area(hardware: Accelerator, tiles: tuple[int, int], stored: Mapping[str, Stored], workload: Workload) -> float:
    """Tiles full of arrays, nodes around them, and units for softmax [m^2]; that of a GPU is its die.

    Tiles of keys and values hold arrays of both in the ratio in which they are needed.
    """
    if isinstance(hardware.projection, GpuEngine):
        return hardware.projection.area
    chip = chip_of(hardware)
    room = chip.arrays_per_core * chip.cores_per_tile
    total = sum(tiles) * (chip.tile_area + chip.cores_per_tile * chip.core_area)
    if tiles[0] and isinstance(hardware.projection, ArrayEngine):
        total += tiles[0] * room * components.array_area(hardware.projection.array, "projection")
    held = sum(cells.arrays for cells in stored.values())
    for role, cells in stored.items():
        engine = engine_of(role, hardware)
        assert isinstance(engine, ArrayEngine)
        total += tiles[1] * room * cells.arrays / held * components.array_area(engine.array, role)
    heads = max((op.heads for op in workload.dynamic), default=0)
    units = heads * chip.softmax.area_per_head if chip.softmax else 0.0
    return total + ceil(sum(tiles) / (chip.tiles_per_node or sum(tiles) or 1)) * chip.node_area + units
