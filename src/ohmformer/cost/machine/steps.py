"""Prices of many decoding steps of a model on one machine: only what changes from step to step is priced anew."""

from __future__ import annotations

from collections.abc import Mapping

from ohmformer.cost.engine_choice import LayerOp
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.cost.tiles import KVArrays, kv_arrays, layer_arrays
from ohmformer.workload.request import ListedSteps, Steps
from ohmformer.workload.spec import DynamicMatMul, Layer, StaticMatMul


class StepPrices:
    """Prices the layers of decoding steps.

    Attributes:
        last: the last step, priced.
        steps: all steps.
    """

    def __init__(self, last: Placement, steps: Steps | ListedSteps) -> None:
        self.last, self.steps = last, steps
        self._divided = last.divided(singly=not steps.uniform)
        self._layers = last.workload.layers()

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
        return {first: self._kind(first, index) for first in self.kinds}

    def kv_arrays(self, index: int) -> list[KVArrays]:
        """The arrays of K and V that a step uses."""
        layers = [layer_arrays(self._work(first, self.steps.layer(first, index)), n) for first, n in self.kinds.items()]
        return kv_arrays(self.last.workload, layers, self.last.kv_sets)

    def _kind(self, first: int, index: int) -> PlacedLayer:
        layer, same = self.steps.layer(first, index), self._layers[first]
        if len(layer.ops) == len(same.ops) and all(
            one is other for one, other in zip(layer.ops, same.ops, strict=True)
        ):
            return self.last.layers[first]
        return self._divided.place_kind(first, layer, self._work(first, layer))

    def _work(self, first: int, layer: Layer) -> list[LayerOp]:
        """The operations of a layer, each product with its engine; those of the last step where they are the same."""
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
