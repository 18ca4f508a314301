"""Prices of many decoding steps of a model on one machine: only what changes from step to step is priced anew.

Keys and values fill the memories of tiles first. So a growing cache moves weights, and later itself, off the chip step
by step: each step has homes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

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
        steps: all steps.
        tiles: number of tiles of the machine.
        fixed: homes that all steps have; None if each step has its own.
    """

    def __init__(self, last: Placement, steps: Steps | ListedSteps, tiles: int, fixed: Homes | None = None) -> None:
        self.last, self.steps, self.tiles, self.fixed = last, steps, tiles, fixed
        self._divided = last.divided(singly=not steps.uniform)
        self._layers = last.workload.layers()

    @cached_property
    def moving(self) -> bool:
        """True if a part of the weights, keys and values is off the chip that changes from step to step."""
        if not self.last.homes.off_chip.keys() & {KV, WEIGHTS}:
            return False  # the cache of the last step is the longest
        return self.fixed is None and self.homes(0).key != self.last.homes.key

    def homes(self, index: int) -> Homes:
        """What lives in which memory during a step."""
        if self.fixed is not None:
            return self.fixed
        return find_homes(self.last.workload, self.last.hardware, self._distinct(index), *self._room)

    def mean_homes(self) -> Homes:
        """The homes of requests whose contexts are spread over all steps: those of the mean number of bytes."""
        workload, hardware, count = self.last.workload, self.last.hardware, self.steps.count
        sizes = [bytes_needed(workload, hardware, self._distinct(index)) for index in range(count)]
        mean = {name: sum(size[name] for size in sizes) / count for name in sizes[0]}
        return homes_of(mean, workload, hardware, self._distinct(count - 1), *self._room)

    @cached_property
    def _room(self) -> tuple[int, float]:
        """Number of tiles, and bytes of the weights that are loaded for every use."""
        return self.tiles, bytes_loaded(self.last.hardware, self._divided.all_arrays)

    def _distinct(self, index: int) -> list[tuple[list[LayerOp], int]]:
        """The operations of each kind of layer in a step, with the number of its layers."""
        return [(self._work(first, self.steps.layer(first, index)), count) for first, count in self.kinds.items()]

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
        homes = self.homes(index) if self.moving else self.fixed
        return {first: self._kind(first, index, homes) for first in self.kinds}

    def kv_arrays(self, index: int) -> list[KVArrays]:
        """The arrays of K and V that a step uses."""
        layers = []
        for first, count in self.kinds.items():
            layer = self.steps.layer(first, index)
            changes = layer is not self._layers[first]
            layers.append(layer_arrays(self._work(first, layer), count) if changes else self._divided.in_arrays[first])
        return kv_arrays(self.last.workload, layers, self.last.kv_sets)

    def _kind(self, first: int, index: int, homes: Homes | None) -> PlacedLayer:
        """A layer in a step; `homes` are those of the last step if None."""
        layer, same = self.steps.layer(first, index), self._layers[first]
        if layer is same and (homes is None or homes.key == self.last.homes.key):
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
