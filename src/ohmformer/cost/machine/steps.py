"""Prices of many decoding steps of a model on one machine: only what changes from step to step is priced anew.

Keys and values fill the memories of tiles first. So a growing cache moves weights, and later itself, off the chip step
by step: each step has homes of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from ohmformer.cost.chips.sums import homes_of_chips
from ohmformer.cost.engine_choice import LayerOp
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.memory.homes import KV, WEIGHTS, Homes
from ohmformer.cost.memory.loading import bytes_loaded
from ohmformer.cost.memory.residents import bytes_needed, find_homes, homes_of
from ohmformer.cost.placement import Placement
from ohmformer.cost.tiles import KVArrays, kv_arrays, layer_arrays
from ohmformer.workload.request import ListedSteps, Steps
from ohmformer.workload.spec import DynamicMatMul, Layer, StaticMatMul


class StepPrices:
    """Prices the layers of decoding steps.

    Attributes:
        last: the last step, priced.
        steps: all steps, as a chip computes them (`Layout.steps_of`).
        tiles: for each group of chips, the number of tiles of one of its chips.
        fixed: homes that all steps have, for each group of chips; None if each step has its own.
    """

    def __init__(
        self,
        last: Placement,
        steps: Steps | ListedSteps,
        tiles: Sequence[int],
        fixed: tuple[Homes, ...] | None = None,
    ) -> None:
        self.last, self.steps, self.tiles, self.fixed = last, steps, tiles, fixed
        self._divided = last.divided(singly=not steps.uniform)
        self._layers = self._divided.workload.layers()

    @cached_property
    def moving(self) -> bool:
        """True if a part of the weights, keys and values is off the chip that changes from step to step."""
        if not self.last.homes.off_chip.keys() & {KV, WEIGHTS}:
            return False  # the cache of the last step is the longest
        if self.fixed is not None:
            return False
        pairs = zip(self.homes_by_chip(0), self.last.homes_by_chip, strict=True)
        return any(first.key != last.key for first, last in pairs)

    def homes(self, index: int) -> Homes:
        """What lives in the memories of all chips together during a step."""
        found, layout = self.homes_by_chip(index), self.last.layout
        return found[0] if layout is None else homes_of_chips(found, layout.sharing)

    def homes_by_chip(self, index: int) -> tuple[Homes, ...]:
        """For each group of chips, what lives in the memories of one of its chips during a step."""
        if self.fixed is not None:
            return self.fixed
        workload, hardware = self.last.workload, self.last.hardware
        groups = enumerate(self._room)
        return tuple(find_homes(workload, hardware, self._distinct(index, group), *room) for group, room in groups)

    def mean_homes(self) -> tuple[Homes, ...]:
        """The homes of requests whose contexts are spread over all steps: those of the mean number of bytes."""
        return tuple(self._mean_homes(group) for group in range(len(self.tiles)))

    def _mean_homes(self, group: int) -> Homes:
        workload, hardware, count = self.last.workload, self.last.hardware, self.steps.count
        sizes = [bytes_needed(workload, hardware, self._distinct(index, group)) for index in range(count)]
        mean = {name: sum(size[name] for size in sizes) / count for name in sizes[0]}
        return homes_of(mean, workload, hardware, self._distinct(count - 1, group), *self._room[group])

    @cached_property
    def _room(self) -> list[tuple[int, float]]:
        """For each group: number of tiles, and bytes of the weights that are loaded for every use."""
        hardware, groups = self.last.hardware, enumerate(self.tiles)
        return [(tiles, bytes_loaded(hardware, self._divided.arrays_of(group))) for group, tiles in groups]

    def _distinct(self, index: int, group: int) -> list[tuple[list[LayerOp], int]]:
        """The operations of each kind of layer of a group in a step, with the number of its layers."""
        members = self._divided.members[group]
        return [(self._work(first, self.steps.layer(first, index)), self.kinds[first]) for first in members]

    @property
    def kind_of(self) -> tuple[int, ...]:
        """For each layer, the position of the first layer of its kind."""
        return self._divided.kinds

    @property
    def kinds(self) -> Mapping[int, int]:
        """Position of the first layer of a kind -> number of layers of this kind."""
        return self._divided.counts

    def step(self, index: int) -> dict[int, PlacedLayer]:
        """Position of the first layer of a kind -> this layer in a step, priced."""
        homes = self.homes_by_chip(index) if self.moving else self.fixed
        if homes is None:
            return {first: self._kind(first, index, None) for first in self.kinds}
        return {first: self._kind(first, index, homes[self._divided.group_of(first)]) for first in self.kinds}

    def kv_arrays(self, index: int) -> list[list[KVArrays]]:
        """For each group of chips, the arrays of K and V of one of its chips that a step uses."""
        return [self._kv_arrays(index, members) for members in self._divided.members]

    def _kv_arrays(self, index: int, members: Iterable[int]) -> list[KVArrays]:
        layers = []
        for first in members:
            layer = self.steps.layer(first, index)
            changes = layer is not self._layers[first]
            work = self._work(first, layer) if changes else []
            layers.append(layer_arrays(work, self.kinds[first]) if changes else self._divided.in_arrays[first])
        return kv_arrays(self.last.workload, layers, self.last.kv_sets)

    def _kind(self, first: int, index: int, homes: Homes | None) -> PlacedLayer:
        """A layer in a step; `homes` are those of the last step if None."""
        layer, same = self.steps.layer(first, index), self._layers[first]
        before = self.last.homes_by_chip[self._divided.group_of(first)]
        if layer is same and (homes is None or homes.key == before.key):
            return self.last.layers[first]
        return self._divided.place_kind(first, layer, self._work(first, layer), homes)

    def _work(self, first: int, layer: Layer) -> list[LayerOp]:
        """The operations of a layer, each product with its engine; those of the last step where they are the same."""
        if layer is self._layers[first]:
            return self._divided.work[first]
        choice, placed = self._divided.choice, self._divided.work[first]
        known = dict(zip(map(id, self._layers[first].ops), placed, strict=True))
        work: list[LayerOp] = []
        for op in layer.ops:
            if id(op) in known:
                work.append(known[id(op)])
            elif isinstance(op, (StaticMatMul, DynamicMatMul)):
                work.append(choice.resolve(op))
            else:
                work.append(op)
        return work
