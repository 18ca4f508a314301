"""Placement: maps a workload to an accelerator, with the priced stages of every layer, arrays, tiles and area.

The weights of a layer stay in its arrays. Keys and values go to arrays of their layer, or to arrays that all layers
share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Literal

from ohmformer import units
from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.cost import kv_conditioning, tiles
from ohmformer.cost.argument_checks import check_cost_arguments, check_options
from ohmformer.cost.engine_choice import EngineChoice, LayerOp
from ohmformer.cost.gpu_roofline import idle_power
from ohmformer.cost.kv_conditioning import DigitalState
from ohmformer.cost.layer_stages import layer_stages
from ohmformer.cost.memory.gpu_memory import check_memory
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.memory.loading import bytes_loaded, load_stage
from ohmformer.cost.memory.residents import find_homes
from ohmformer.cost.operands import LayerContext
from ohmformer.cost.power.standing import chip_power
from ohmformer.cost.stage import CONDITIONING, MEMORY, Stage, total_energy
from ohmformer.cost.tiles import KVArrays, LayerArrays
from ohmformer.cost.write_wear import Wear, wear
from ohmformer.errors import BadInput, printable
from ohmformer.hardware.rules import RuleBook, Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import DynamicMatMul, Layer, Softmax, StaticMatMul, Workload

Batching = Literal["pipelined", "serial"]
"""How samples follow one another: through the stages of a layer, or each alone through all layers."""


@dataclass(frozen=True)
class PlacedLayer:
    """One layer on the hardware.

    Attributes:
        name: name of the layer.
        tokens: tokens per sample that pass through its stages.
        stages: its stages, in order.
        join: position of the stage that needs all tokens of the previous stages, since every query sees every key;
            None if a query needs no later token.
        setup: a stage that must end before the first one starts, such as loading weights; None if there is none.
        scores: heads, queries and keys of its largest attention; None without attention.
        gather: position of a stage before `join` that also needs all tokens, since their mean is removed; it and the
            stages up to `join` take the whole sequence at once. None if there is none.
        digital_state: values that memory keeps for the conditioning of K and V.
        later_joins: positions of further stages that need all tokens of the previous stages, such as those of cross
            attention whose K and V are new.
        kept: True if K and V of each sample have cells of their own in this layer.
        softmax: positions of the stages that use softmax units.
    """

    name: str
    tokens: int
    stages: tuple[Stage, ...]
    join: int | None
    setup: Stage | None
    scores: tuple[int, int, int] | None
    gather: int | None = None
    digital_state: DigitalState = field(default_factory=DigitalState)
    later_joins: tuple[int, ...] = ()
    kept: bool = False
    softmax: tuple[int, ...] = ()

    def named(self, name: str) -> PlacedLayer:
        """A copy with another name, made without `replace`, which is slow for a model of many layers."""
        copy = object.__new__(PlacedLayer)
        copy.__dict__.update(self.__dict__, name=name)
        return copy

    def all_stages(self) -> tuple[Stage, ...]:
        """The setup, if there is one, and the stages."""
        return self.stages if self.setup is None else (self.setup, *self.stages)


@dataclass(frozen=True)
class Placement:
    """A workload on an accelerator.

    Attributes:
        workload: the operations.
        hardware: the accelerator.
        layers: the layers with their priced stages.
        arrays: role ("projection", "attention.key", "attention.value") -> number of arrays.
        arrays_per_polarity: number of all arrays, counting a differential pair once.
        tiles: number of tiles; 0 for a GPU.
        area: area of the chip [m^2].
        power: standing power that does not depend on what works [W]; `Stage.standing` adds to it.
        wear: writes per cell of keys and values, for each kind of array.
        kv_sets: number of sets of the K and V arrays that layers share.
        softmax_sets: `one` set of softmax units for all layers, or `per_layer`, one for each K array of a layer's own.
        homes: what lives in the memories of tiles, and what off the chip.
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
    kv_sets: int = 1
    softmax_sets: str = "one"
    homes: Homes = field(default_factory=Homes)

    def __repr__(self) -> str:
        """Workload, accelerator and sizes in one line, without the stages."""
        arrays = ", ".join(f"{role} {count:,}" for role, count in self.arrays.items())
        titles = f"{self.workload.title} on {self.hardware.title or 'an accelerator without a title'}"
        return (
            f"Placement({printable(titles)}; layers {len(self.layers):,}, arrays: {arrays}, tiles {self.tiles:,}, area "
            f"{units.show(self.area, 'm^2')}, standing power {units.show(self.power, 'W')})"
        )

    @cached_property
    def energy(self) -> dict[str, float]:
        """Component -> energy of all operations of all samples [J], without standing power."""
        return total_energy((stage, count) for layer, count in self.distinct() for stage in layer.all_stages())

    @cached_property
    def shares_softmax(self) -> bool:
        """True if several units that compute Q K^T take turns with one set of softmax units."""
        return self.softmax_sets == "one" and count_softmax_units(self.layers) > 1

    @cached_property
    def shares_memory(self) -> bool:
        """True if several units take turns with the memory off the chip."""
        if not self.homes.off_chip:
            return False
        units = {
            stage.unit if stage.shared else (layer.name, stage.unit)
            for layer in self.layers
            for stage in layer.all_stages()
            if stage.off_chip or stage.unit == MEMORY
        }
        return len(units) > 1

    @property
    def counts(self) -> Counts:
        """Events on arrays, for all samples."""
        parts = (stage.counts.times(count) for layer, count in self.distinct() for stage in layer.all_stages())
        return sum(parts, Counts())

    def stages(self) -> list[Stage]:
        """All stages of all layers, setups included."""
        return [stage for layer in self.layers for stage in layer.all_stages()]

    def distinct(self) -> list[tuple[PlacedLayer, int]]:
        """The layers that differ in more than their name, each with the number of equal layers."""
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
    kv_sets: int = 1,
    softmax_sets: str = "one",
    batching: Batching = "pipelined",
) -> Placement:
    """Price a workload on an accelerator.

    Args:
        workload: the operations.
        hardware: the accelerator; its engines and its chip need prices.
        clip: clip of K and V in memristive cells. Slices that it leaves empty take no cells. SRAM is not clipped.
        rules: engines, arrays, stored sides and clips of products by name, as in `convert` and `trace`. The workload
            must not contain a product that a rule keeps digital.
        weights: mitigation of static weights. Rotating their inputs costs digital operations.
        kv: conditioning of K and V in memristive cells, which costs digital operations: one for all, or operand name ->
            its own.
        kv_sets: number of sets of the K and V arrays that layers share, 1 or 2.
        softmax_sets: `one` set of softmax units, or `per_layer`, one for each K array of a layer's own.
        batching: `pipelined` if all samples use weights that are read or loaded once, `serial` if each needs them anew.

    Raises:
        BadInput: a price is missing, the chip is too small, or the clip does not fit the arrays; one line with the
            field and the remedy.
    """
    check_cost_arguments("place", workload, hardware, clip, weights)
    check_options(workload, hardware, clip, kv, kv_sets=kv_sets, softmax_sets=softmax_sets, batching=batching)
    choice = EngineChoice(hardware, clip, RuleBook.read(rules), weights or WeightMitigation(), kv)
    tenants = choice.tenants(workload.ops)
    layers, kinds = workload.layers(), _first_equal_layer(workload, choice, tenants)
    work = {first: choice.layer(layers[first].ops, tenants) for first in dict.fromkeys(kinds)}
    distinct = [(work[first], count) for first, count in Counter(kinds).items()]
    check_memory(workload, hardware, distinct)
    in_arrays = {first: tiles.layer_arrays(work[first], count) for first, count in Counter(kinds).items()}
    all_arrays = list(in_arrays.values())
    kv_arrays = _check_sets(hardware, workload, tiles.kv_arrays(workload, all_arrays, kv_sets), kv_sets)
    used_tiles = tiles.allocate_tiles(hardware, all_arrays, kv_arrays)
    homes = find_homes(workload, hardware, distinct, used_tiles.total, bytes_loaded(hardware, all_arrays))
    placed = _place_layers(workload, hardware, kinds, work, in_arrays, homes, batching)
    arrays, arrays_per_polarity = _by_role(tiles.weight_arrays(hardware, all_arrays), kv_arrays)
    return Placement(
        workload,
        hardware,
        placed,
        arrays,
        arrays_per_polarity,
        used_tiles.total,
        tiles.chip_area(hardware, used_tiles, workload, _number_of_sets(placed, softmax_sets)),
        idle_power(hardware) + chip_power(hardware, used_tiles.total),
        tuple(wear(workload, kv_arrays)),
        kv_sets,
        softmax_sets,
        homes,
    )


def _place_layers(
    workload: Workload,
    hardware: Accelerator,
    kinds: tuple[int, ...],
    work: Mapping[int, list[LayerOp]],
    in_arrays: Mapping[int, LayerArrays],
    homes: Homes,
    batching: Batching,
) -> tuple[PlacedLayer, ...]:
    """All layers; the first of each kind is priced."""
    uses = workload.batch if batching == "serial" and homes.moves_weights else 1
    placed, layers, all_arrays = {}, workload.layers(), list(in_arrays.values())
    lanes = {first: tiles.layer_lanes(hardware, arrays) for first, arrays in in_arrays.items()}
    for first, arrays in in_arrays.items():
        layer = layers[first]
        nearest = _neighbors(first, kinds) if layer.index is None else ()
        layer_lanes = next((lanes[kind] for kind in (first, *nearest) if lanes[kind]), 0)
        context = LayerContext(hardware, workload.batch, layer.tokens, layer_lanes, homes, uses)
        entry = _place_layer(layer, work[first], context, load_stage(hardware, arrays, all_arrays, uses))
        placed[first] = replace(entry, kept=_kept(workload, layer)) if workload.batch > 1 else entry
    return tuple(placed[kind].named(layer.name) for kind, layer in zip(kinds, layers, strict=True))


def count_softmax_units(layers: tuple[PlacedLayer, ...]) -> int:
    """Number of units that compute Q K^T beside softmax units: each has a set of them; at least 1."""
    units = {
        layer.stages[place].unit if layer.stages[place].shared else (layer.name, layer.stages[place].unit)
        for layer in layers
        for place in layer.softmax
    }
    return max(1, len(units))


def _number_of_sets(layers: tuple[PlacedLayer, ...], softmax_sets: str) -> int:
    """Number of sets of softmax units on the chip."""
    return count_softmax_units(layers) if softmax_sets == "per_layer" else 1


def _kept(workload: Workload, layer: Layer) -> bool:
    """True if all K and V of a layer stay in cells for every sample of a batch (see `tiles.caches`)."""
    products = [op for op in layer.ops if isinstance(op, DynamicMatMul)]
    return all(tiles.caches(workload, op, shared=False) == workload.batch for op in products)


def _check_sets(hardware: Accelerator, workload: Workload, arrays: list[KVArrays], sets: int) -> list[KVArrays]:
    """The arrays, after refusing a second set of cells that nothing would use.

    Raises:
        BadInput: no layers share arrays of K and V, or only one sample of one layer uses them.
    """
    if sets == 1:
        return arrays
    turns = [workload.batch * sum(use.layers for use in entry.uses) for entry in arrays if entry.shared]
    if max(turns, default=0) > 1:
        return arrays
    reason = f"hardware.attention.arrays = {hardware.attention.arrays!r}"
    if not arrays or (not any(entry.shared for entry in arrays) and hardware.attention.arrays == "shared"):
        reason = "attention is not in arrays"
    elif turns:
        reason = "one layer and one sample"
    raise BadInput(
        f"dataflow.kv_cells = 'double': {reason}: no cells of K and V are written again while they are read; "
        "leave it out (single)"
    )


def _neighbors(position: int, kinds: tuple[int, ...]) -> tuple[int, ...]:
    """The layers whose lanes an operation between layers may use: those after it, then those before, nearest first."""
    return (*kinds[position + 1 :], *reversed(kinds[:position]))


def _first_equal_layer(workload: Workload, choice: EngineChoice, tenants: frozenset[int]) -> tuple[int, ...]:
    """For each layer, the position of the first layer with the same operations, engines and conditioning."""
    kv_by_name = choice.kv if isinstance(choice.kv, Mapping) else {}
    if not choice.rules.rules and not kv_by_name:
        return workload.kinds
    first: dict[tuple[object, ...], int] = {}
    products = [
        tuple(
            (choice.pattern(op), kv_by_name.get(op.name), id(op) in tenants)
            for op in layer.ops
            if isinstance(op, (StaticMatMul, DynamicMatMul))
        )
        for layer in workload.layers()
    ]
    keys = enumerate(zip(workload.kinds, products, strict=True))
    return tuple(first.setdefault(key, position) for position, key in keys)


def _by_role(weights: list[tuple[Crossbar, int]], kv_arrays: list[KVArrays]) -> tuple[dict[str, int], int]:
    """Role -> number of arrays; and the number of all arrays, counting a differential pair once."""
    pairs = sum(count // array.polarities for array, count in weights) + sum(k.arrays_per_polarity for k in kv_arrays)
    counts = {"projection": sum(count for _, count in weights)}
    for entry in kv_arrays:
        counts[entry.role] = counts.get(entry.role, 0) + entry.arrays
    return counts, pairs


def _place_layer(layer: Layer, work: list[LayerOp], context: LayerContext, setup: Stage | None) -> PlacedLayer:
    """Price a layer, and find the stages that wait for all tokens."""
    stages = tuple(layer_stages(work, context))
    keys = [op for op in layer.ops if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
    scores = max(((op.heads, op.queries, op.tokens) for op in keys), key=prod, default=None)
    names = [stage.name.split("+") for stage in stages]
    waits = bool(keys) and not keys[0].causal and not keys[0].across and keys[0].written == keys[0].queries
    join = next((i for i, parts in enumerate(names) if keys and keys[0].stage in parts), None) if waits else None
    gather = None
    if join and kv_conditioning.needs_all_tokens(work):
        gather = next((i for i, parts in enumerate(names) if CONDITIONING in parts), None)
    state = kv_conditioning.digital_state(work)
    waiting = [op.stage for op in keys if _needs_all_tokens(op)]
    later = tuple(i for i, parts in enumerate(names) if i and i != join and any(name in parts for name in waiting))
    softmax = _softmax_stages(layer, stages, names, context)
    return PlacedLayer(
        layer.name,
        layer.tokens,
        stages,
        join or None,
        setup,
        scores,
        gather,
        state,
        later_joins=later,
        softmax=softmax,
    )


def _needs_all_tokens(op: DynamicMatMul) -> bool:
    """True if every query of a product Q K^T needs keys that all tokens of this pass make."""
    return op.written > 0 if op.across else not op.causal and op.written == op.queries


def _softmax_stages(
    layer: Layer, stages: tuple[Stage, ...], names: list[list[str]], context: LayerContext
) -> tuple[int, ...]:
    """Positions of the stages that use softmax units; none where lanes or a GPU compute softmax."""
    chip = context.hardware.chip
    if chip is None or chip.softmax is None:
        return ()
    found = {op.stage for op in layer.ops if isinstance(op, Softmax)}
    return tuple(i for i, parts in enumerate(names) if stages[i].unit != "gpu" and not found.isdisjoint(parts))
