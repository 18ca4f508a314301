"""Puts a workload on an accelerator: every layer as priced stages, the arrays and tiles it takes, and the area.

Weights of a layer stay where they are; keys and values go to arrays that all layers share, or to arrays of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.cost import components, kv_conditioning, tiles
from ohmformer.cost.cost import add_energy
from ohmformer.cost.engine_choice import EngineChoice, LayerOp
from ohmformer.cost.kv_conditioning import DigitalState
from ohmformer.cost.layer_stages import layer_stages
from ohmformer.cost.operands import LayerContext, chip_of
from ohmformer.cost.stage import CONDITIONING, Stage, total_energy
from ohmformer.cost.tiles import KVArrays, LayerArrays
from ohmformer.cost.write_wear import Wear, wear
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.rules import RuleBook, Rules
from ohmformer.hardware.spec import Accelerator, CrossbarEngine, SramEngine
from ohmformer.mitigation.spec import Conditioning, KVClip, KVConditioning, WeightMitigation
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
        gather: the stage before `join` that needs all tokens, too, since their mean is removed: it and what follows up
            to `join` take the whole sequence at once; None where there is none.
        digital_state: what the conditioning of K and V has memory keep.
    """

    name: str
    tokens: int
    stages: tuple[Stage, ...]
    join: int | None
    setup: Stage | None
    scores: tuple[int, int, int] | None
    gather: int | None = None
    digital_state: DigitalState = field(default_factory=DigitalState)

    def named(self, name: str) -> PlacedLayer:
        """The same under another name."""
        return replace(self, name=name)

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
        return total_energy((stage, count) for layer, count in self.distinct() for stage in layer.all_stages())

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


def place(
    workload: Workload,
    hardware: Accelerator,
    *,
    clip: KVClip | None = None,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
    kv: KVConditioning | None = None,
) -> Placement:
    """Price a workload on an accelerator.

    Args:
        workload: the products.
        hardware: its engines and chip need prices.
        clip: of K and V in memristive cells, which leaves out slices that are not needed any more; SRAM stays as it is.
        rules: as in `convert` and `trace`: engines, arrays, writes and clips of products by name. One that is kept
            digital is no product of the workload.
        weights: how static weights are conditioned: rotating their inputs is digital work.
        kv: how K and V in memristive cells are conditioned, which is digital work; of operands by name, their own.

    Raises:
        BadInput: a price is missing, the chip is too small, or the clip does not go with the arrays; one line with the
            field and the remedy.
    """
    _check_clip(hardware, clip)
    _check_kv(workload, kv)
    choice = EngineChoice(hardware, clip, RuleBook.read(rules), weights or WeightMitigation(), kv)
    tenants = choice.tenants(workload.ops)
    layers, kinds = workload.layers(), _kinds(workload, choice, tenants)
    work = {first: choice.layer(layers[first].ops, tenants) for first in dict.fromkeys(kinds)}
    in_arrays = {first: tiles.layer_arrays(work[first], count) for first, count in Counter(kinds).items()}
    every = list(in_arrays.values())
    kv_arrays = tiles.kv_arrays(workload, every)
    taken = tiles.tiles(hardware, every, kv_arrays)
    projection = tiles.weight_arrays(hardware, every)
    placed, lanes = {}, {first: tiles.lanes(hardware, own) for first, own in in_arrays.items()}
    for first, own in in_arrays.items():
        layer = layers[first]
        near = _neighbors(first, kinds) if layer.index is None else ()
        found = next((lanes[kind] for kind in (first, *near) if lanes[kind]), 0)
        context = LayerContext(hardware, workload.batch, layer.tokens, found)
        placed[first] = _placed(layer, work[first], context, _load(hardware, own, every))
    return Placement(
        workload,
        hardware,
        tuple(placed[kind].named(layer.name) for kind, layer in zip(kinds, layers, strict=True)),
        _by_role(projection, kv_arrays),
        sum(count // array.polarities for array, count in projection) + sum(s.arrays_per_polarity for s in kv_arrays),
        taken.total,
        tiles.area(hardware, taken, workload),
        chip_of(hardware).tile_power * taken.total if taken.total else 0.0,
        tuple(wear(workload, kv_arrays)),
    )


def _neighbors(position: int, kinds: tuple[int, ...]) -> tuple[int, ...]:
    """Where work between layers finds lanes, if no tile is its own: with layers after it, or else with those before."""
    return (*kinds[position + 1 :], *reversed(kinds[:position]))


def _kinds(workload: Workload, choice: EngineChoice, tenants: frozenset[int]) -> tuple[int, ...]:
    """For each layer the position of the first one that does the same in the same place."""
    each = choice.kv if isinstance(choice.kv, Mapping) else {}
    if not choice.rules.rules and not each:
        return workload.kinds
    first: dict[tuple[object, ...], int] = {}
    products = [
        tuple(
            (choice.pattern(op), each.get(op.name), id(op) in tenants)
            for op in layer.ops
            if isinstance(op, (StaticMatMul, DynamicMatMul))
        )
        for layer in workload.layers()
    ]
    found = enumerate(zip(workload.kinds, products, strict=True))
    return tuple(first.setdefault(key, position) for position, key in found)


def _by_role(weights: list[tuple[Crossbar, int]], kv_arrays: list[KVArrays]) -> dict[str, int]:
    found = {"projection": sum(count for _, count in weights)}
    for entry in kv_arrays:
        found[entry.role] = found.get(entry.role, 0) + entry.arrays
    return found


def _check_clip(hardware: Accelerator, clip: KVClip | None) -> None:
    for engine in (hardware.attention.key, hardware.attention.value):
        if clip is not None and isinstance(engine, CrossbarEngine):
            clip.check(engine.array)


def _check_kv(workload: Workload, kv: KVConditioning | None) -> None:
    known = {op.name for op in workload.dynamic}
    for name, spec in kv.items() if isinstance(kv, Mapping) else [("", kv)]:
        where = f"kv[{name!r}]" if name else "kv"
        if name and name not in known:
            raise BadInput(f"{where}: {suggest(name, sorted(known))}")
        if not isinstance(spec, Conditioning | None):
            raise BadInput(f"{where} = {spec!r}: is no conditioning; take Conditioning(mean=True, basis='hadamard')")


def _placed(layer: Layer, work: list[LayerOp], context: LayerContext, setup: Stage | None) -> PlacedLayer:
    stages = tuple(layer_stages(work, context))
    keys = [op for op in layer.ops if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
    scores = max(((op.heads, op.queries, op.tokens) for op in keys), key=prod, default=None)
    names = [stage.name.split("+") for stage in stages]
    waits = bool(keys) and not keys[0].causal and not keys[0].across and keys[0].written == keys[0].queries
    join = next((i for i, parts in enumerate(names) if keys and keys[0].stage in parts), None) if waits else None
    gather = None
    if join and kv_conditioning.gathers(work):
        gather = next((i for i, parts in enumerate(names) if CONDITIONING in parts), None)
    state = kv_conditioning.state_of(work)
    return PlacedLayer(layer.name, layer.tokens, stages, join or None, setup, scores, gather, state)


def _load(hardware: Accelerator, own: LayerArrays, layers: list[LayerArrays]) -> Stage | None:
    """Loading a layer's weights from memory off the chip, where not all find room; once for all samples.

    Products wait for it; a layer that is larger than the chip goes through it in parts, which takes the same time.
    """
    engine = hardware.projection
    if not isinstance(engine, SramEngine) or not engine.arrays:
        return None
    needed = sum(layer.count * plan.arrays for layer in layers for plan in tiles.of_projection(hardware, layer))
    weights = tiles.of_projection(hardware, own)
    if not weights or needed <= engine.arrays:
        return None
    chip = chip_of(hardware)
    if chip.dram is None:
        raise BadInput("hardware.chip.dram: is missing, but the weights do not all fit and must be loaded; add it")
    size = sum(plan.inputs * plan.outputs * plan.matrices for plan in weights) * engine.array.bits / 8
    writes = [components.write(plan, "projection") for plan in weights]
    energy = add_energy({"dram": size * chip.dram.energy}, *(cost.energy for cost in writes))
    time = max(size / chip.dram.bandwidth, engine.array.rows * writes[0].interval)
    counts = sum((plan.writes(1) for plan in weights), Counts())
    return Stage("load", "projection", "memory", shared=True, floor=time, energy=energy, counts=counts)
