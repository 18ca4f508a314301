"""The layers of a workload by kind, each priced once for all layers that do the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, NamedTuple

from ohmformer.cost import kv_conditioning, tiles
from ohmformer.cost.chips.exchange import on_chips
from ohmformer.cost.engine_choice import EngineChoice, LayerOp
from ohmformer.cost.kv_conditioning import DigitalState
from ohmformer.cost.layer_stages import layer_stages
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.memory.loading import load_stage
from ohmformer.cost.operands import LayerContext
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.cost.tiles import LayerArrays
from ohmformer.workload.spec import DynamicMatMul, Layer, Softmax, StaticMatMul, Workload


@dataclass(frozen=True)
class PlacedLayer:
    """One layer on the hardware.

    Attributes:
        name: name of the layer.
        tokens: tokens per sample that pass through its stages.
        stages: its stages, in order.
        barrier: position of the stage that needs all tokens of the previous stages, since every query sees every key;
            None if a query needs no later token.
        setup: a stage that must end before the first one starts, such as loading weights; None if there is none.
        scores: heads, queries and keys of its largest attention; None without attention.
        gather: position of a stage before `barrier` that also needs all tokens, since their mean is removed; it and the
            stages up to `barrier` take the whole sequence at once. None if there is none.
        digital_state: values that memory keeps for the conditioning of K and V.
        later_barriers: positions of further stages that need all tokens of the previous stages, such as those of cross
            attention whose K and V are new.
        kept: True if K and V of each sample have cells of their own in this layer.
        softmax: positions of the stages that use softmax units.
        chip: number of the chip, or of the group of chips, that holds it, from 1; None if there is one chip.
    """

    name: str
    tokens: int
    stages: tuple[Stage, ...]
    barrier: int | None
    setup: Stage | None
    scores: tuple[int, int, int] | None
    gather: int | None = None
    digital_state: DigitalState = field(default_factory=DigitalState)
    later_barriers: tuple[int, ...] = ()
    kept: bool = False
    softmax: tuple[int, ...] = ()
    chip: int | None = None

    def named(self, name: str) -> PlacedLayer:
        """A copy with another name, made without `replace`, which is slow for a model of many layers."""
        copy = object.__new__(PlacedLayer)
        copy.__dict__.update(self.__dict__, name=name)
        return copy

    def on_chip(self, unit: str) -> str:
        """Name of a unit that the layers of its chip share."""
        return unit if self.chip is None else f"chip {self.chip}: {unit}"

    def all_stages(self) -> tuple[Stage, ...]:
        """The setup, if there is one, and the stages."""
        return self.stages if self.setup is None else (self.setup, *self.stages)


Batching = Literal["pipelined", "serial"]
"""How samples follow one another: through the stages of a layer, or each alone through all layers."""


class Divided(NamedTuple):
    """The layers of a workload by kind, each with the engines of its products; it prices layers.

    Attributes:
        workload: the operations.
        choice: engines, clips and conditionings.
        kinds: for each layer, the position of the first layer of its kind.
        work: position of the first layer of a kind -> its operations, each product with its engine.
        counts: likewise -> number of layers of this kind.
        in_arrays: likewise -> its matrices in arrays.
        around: likewise -> what prices its operations, and the stage that loads its weights; empty before `with_homes`.
        groups: for each layer, the number of the group of chips that holds it, from 0; empty if there is one chip.
        members: for each group of chips, the positions of the first layers of its kinds.
        sharing: for each group, the number of its chips, which share its layers.
    """

    workload: Workload
    choice: EngineChoice
    kinds: tuple[int, ...]
    work: Mapping[int, list[LayerOp]]
    counts: Mapping[int, int]
    in_arrays: Mapping[int, LayerArrays]
    around: Mapping[int, tuple[LayerContext, Stage | None]]
    groups: tuple[int, ...] = ()
    members: tuple[tuple[int, ...], ...] = ()
    sharing: tuple[int, ...] = (1,)

    @classmethod
    def of(
        cls,
        workload: Workload,
        choice: EngineChoice,
        *,
        singly: bool = False,
        groups: tuple[int, ...] = (),
        sharing: tuple[int, ...] = (1,),
    ) -> Divided:
        """Choose the engines of a workload.

        Args:
            workload: the operations.
            choice: the engines.
            singly: True if every layer is a kind of its own.
            groups: for each layer, the number of its group of chips; layers of two groups are of two kinds.
            sharing: for each group, the number of its chips.

        Raises:
            BadInput: see `EngineChoice.resolve`.
        """
        tenants, layers = choice.tenants(workload.ops), workload.layers()
        kinds = alike = tuple(range(len(layers))) if singly else _first_equal_layer(workload, choice, tenants)
        if groups:
            first_of: dict[tuple[int, int], int] = {}
            pairs = enumerate(zip(groups, kinds, strict=True))
            kinds = tuple(first_of.setdefault(pair, position) for position, pair in pairs)
        chosen = {first: choice.layer(layers[first].ops, tenants) for first in dict.fromkeys(alike)}
        work = {first: chosen[alike[first]] for first in dict.fromkeys(kinds)} if groups else chosen
        counts = Counter(kinds)
        in_arrays = {first: tiles.layer_arrays(ops, counts[first]) for first, ops in work.items()}
        members: list[list[int]] = [[] for _ in range(groups[-1] + 1 if groups else 1)]
        for first in counts:
            members[groups[first] if groups else 0].append(first)
        return cls(workload, choice, kinds, work, counts, in_arrays, {}, groups, tuple(map(tuple, members)), sharing)

    @property
    def distinct(self) -> list[tuple[list[LayerOp], int]]:
        """The operations of each kind, with the number of its layers."""
        return [(self.work[first], count) for first, count in self.counts.items()]

    def group_of(self, position: int) -> int:
        """The number of the group of chips that holds a layer; 0 if there is one chip."""
        return self.groups[position] if self.groups else 0

    def arrays_of(self, group: int) -> list[LayerArrays]:
        """The matrices that a chip of a group has in arrays, for each kind of layer."""
        return [self.in_arrays[first] for first in self.members[group]]

    def distinct_of(self, group: int) -> list[tuple[list[LayerOp], int]]:
        """The operations of each kind of layer that a group of chips holds, with the number of such layers."""
        return [(self.work[first], self.counts[first]) for first in self.members[group]]

    def with_homes(self, homes: Homes, weight_uses: int) -> Divided:
        """The same layers on one chip, ready to be priced; see `with_homes_of`."""
        return self.with_homes_of((homes,), weight_uses)

    def with_homes_of(self, homes: Sequence[Homes], weight_uses: int) -> Divided:
        """The same layers, ready to be priced.

        Args:
            homes: for each group of chips, what lives in which memory of a chip.
            weight_uses: how often weights in memories are read or loaded.
        """
        layers, around = self.workload.layers(), {}
        hardware = self.choice.hardware
        arrays_of = [self.arrays_of(group) for group in range(len(homes))]
        lanes = {first: tiles.layer_lanes(hardware, arrays) for first, arrays in self.in_arrays.items()}
        for first, arrays in self.in_arrays.items():
            layer, group = layers[first], self.group_of(first)
            nearest = _neighbors(first, self.kinds) if layer.index is None else ()
            near = (kind for kind in (first, *nearest) if lanes[kind] and self.group_of(kind) == group)
            layer_lanes = tiles.lanes_of_unit(hardware) or next((lanes[kind] for kind in near), 0)
            filled = tiles.share_filled(hardware, arrays, lanes[first])
            sizes = self.workload.batch, layer.tokens, layer_lanes
            sharing = self.sharing[group]
            turns = tiles.turns_of(hardware, arrays, arrays_of[group])
            fixed = homes[group], weight_uses, filled
            context = LayerContext(hardware, *sizes, *fixed, sharing=sharing, turns=turns)
            load = load_stage(hardware, arrays, arrays_of[group], weight_uses)
            around[first] = context, on_chips(load, sharing) if load else None
        return self._replace(around=around)

    def place_kind(self, first: int, layer: Layer, work: list[LayerOp], homes: Homes | None = None) -> PlacedLayer:
        """Price a layer of the kind whose first layer is at `first`, and find the stages that wait for all tokens.

        Args:
            first: its position.
            layer: the layer, whose K and V may have other lengths.
            work: its operations.
            homes: what lives in which memory meanwhile; None for the homes of the workload.
        """
        context, setup = self.around[first]
        context = context if homes is None else replace(context, homes=homes, moving=True)
        stages = tuple(layer_stages(work, context))
        keys = [op for op in layer.ops if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
        names = [stage.name.split("+") for stage in stages]
        waits = bool(keys) and not keys[0].causal and not keys[0].across and keys[0].written == keys[0].queries
        barrier = next((i for i, parts in enumerate(names) if keys and keys[0].stage in parts), None) if waits else None
        gather = None
        if barrier and kv_conditioning.needs_all_tokens(work):
            gather = next((i for i, parts in enumerate(names) if CONDITIONING in parts), None)
        waiting = [op.stage for op in keys if _needs_all_tokens(op)]
        later = (i for i, parts in enumerate(names) if i and i != barrier and any(name in parts for name in waiting))
        return PlacedLayer(
            layer.name,
            layer.tokens,
            stages,
            barrier or None,
            setup,
            max(((op.heads, op.queries, op.tokens) for op in keys), key=prod, default=None),
            gather,
            kv_conditioning.digital_state(work),
            later_barriers=tuple(later),
            kept=self.workload.batch > 1 and _kept(self.workload, layer),
            softmax=_softmax_stages(layer, stages, names, context),
            chip=self.group_of(first) + 1 if self.groups else None,
        )

    def placed(self) -> tuple[PlacedLayer, ...]:
        """All layers of the workload, priced."""
        layers = self.workload.layers()
        first = {kind: self.place_kind(kind, layers[kind], ops) for kind, ops in self.work.items()}
        return tuple(first[kind].named(layer.name) for kind, layer in zip(self.kinds, layers, strict=True))


def count_softmax_units(layers: Iterable[PlacedLayer]) -> int:
    """Number of units of one chip that compute Q K^T beside softmax units: each has a set of them; at least 1."""
    units = {
        layer.stages[place].unit if layer.stages[place].shared else (layer.name, layer.stages[place].unit)
        for layer in layers
        for place in layer.softmax
    }
    return max(1, len(units))


def _kept(workload: Workload, layer: Layer) -> bool:
    """True if all K and V of a layer stay in cells for every sample of a batch (see `tiles.caches`)."""
    products = [op for op in layer.ops if isinstance(op, DynamicMatMul)]
    return all(tiles.caches(workload, op, shared=False) == workload.batch for op in products)


def _neighbors(position: int, kinds: tuple[int, ...]) -> tuple[int, ...]:
    """The layers whose lanes an operation between layers may use: those after it, then those before, nearest first."""
    return (*kinds[position + 1 :], *reversed(kinds[:position]))


def _first_equal_layer(workload: Workload, choice: EngineChoice, tenants: frozenset[int]) -> tuple[int, ...]:
    """For each layer, the position of the first layer with the same operations, engines and conditioning."""
    kv_by_name = choice.conditioning if isinstance(choice.conditioning, Mapping) else {}
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
