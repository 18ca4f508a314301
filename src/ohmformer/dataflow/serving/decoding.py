"""The decoding steps of requests on one machine: time and energy of each, and of steps with mixed contexts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.machine.steps import StepPrices
from ohmformer.cost.placement import PlacedLayer, Placement
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.serving.step_latency import KindTimes, step_latencies
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.errors import BadInput
from ohmformer.workload.request import ListedSteps, Steps

Array = npt.NDArray[np.float64]


class Decoding:
    """N decoding steps of a batch of requests on one machine.

    Attributes:
        machine: the machine.
        dataflow: the order of work in a step. A step starts when the step before it has ended for all requests.
        steps: the steps.
        prices: their prices.
    """

    def __init__(self, machine: Machine, dataflow: Dataflow, last: Placement, steps: Steps | ListedSteps) -> None:
        self.machine, self.dataflow, self.steps = machine, dataflow, steps
        self.prices = StepPrices(last, steps)

    @cached_property
    def layers(self) -> list[dict[int, PlacedLayer]]:
        """For each step: position of the first layer of a kind -> this layer, priced."""
        return [self.prices.step(index) for index in range(self.steps.count)]

    def placement(self, index: int) -> Placement:
        """A step on the machine."""
        last, priced = self.prices.last, self.layers[index]
        named = zip(self.prices.kind_of, last.layers, strict=True)
        layers = tuple(priced[kind].named(layer.name) for kind, layer in named)
        workload = self.steps.workload(index)
        return Placement.on(self.machine, workload, layers, (), last.kv_sets, last.softmax_sets)

    @cached_property
    def latencies(self) -> Array:
        """The latency of each step, in which all requests have the same context [N] [s].

        Raises:
            BadInput: there are too many jobs to compute.
        """
        if self._one_pass:
            return step_latencies(self.prices.last, self.dataflow, self.prices.kind_of, self._times)
        count = self.steps.count
        if not self.dataflow.has_closed_form:
            return np.array([build_timeline(self.placement(index), self.dataflow).latency for index in range(count)])
        return np.array([latency(self.placement(index), self.dataflow) for index in range(count)])

    def mixed_latencies(self, ahead: Sequence[int]) -> Array:
        """The latency of each step in which request k is `ahead[k]` steps further than the first [N] [s].

        Raises:
            BadInput: the dataflow defines its own jobs, or steps differ in more than the lengths of their caches.
        """
        if not self._one_pass:
            raise BadInput(
                f"serve: dataflow {self.dataflow.kind!r}: the steady state needs a dataflow in blocks, and steps that "
                "differ only in the lengths of their caches; take LayerSerial or LayerOverlap"
            )
        return step_latencies(self.prices.last, self.dataflow, self.prices.kind_of, self._times, ahead)

    @cached_property
    def energies(self) -> Array:
        """The energy of each step, standing power excluded [N] [J]."""
        return np.array(
            [sum(stage.joules * count for stage, count in self._stages(n)) for n in range(len(self.layers))]
        )

    def stages(self) -> Iterator[tuple[Stage, int]]:
        """The stages of all steps, each with the number of equal ones in its step."""
        for number in range(self.steps.count):
            yield from self._stages(number)

    def _stages(self, index: int) -> Iterator[tuple[Stage, int]]:
        for kind, layer in self.layers[index].items():
            for stage in layer.all_stages():
                yield stage, self.prices.kinds[kind]

    @cached_property
    def _one_pass(self) -> bool:
        """True if one recursion serves all steps: one token per request, and the same stages in every step."""
        shape = {kind: _shape(layer) for kind, layer in self.layers[-1].items()}
        same = all(_shape(layer) == shape[kind] for step in self.layers for kind, layer in step.items())
        return self.dataflow.has_closed_form and same and all(layer.tokens == 1 for layer in self.layers[-1].values())

    @cached_property
    def _times(self) -> dict[int, KindTimes]:
        return {kind: KindTimes.of([step[kind] for step in self.layers]) for kind in self.prices.kinds}


def _shape(layer: PlacedLayer) -> tuple[object, ...]:
    """What decides in which order the stages of a layer run."""
    stages = tuple((stage.name, stage.unit, stage.shared) for stage in layer.stages)
    setup = layer.setup.time(1) if layer.setup else 0.0
    return stages, layer.tokens, layer.kept, layer.softmax, setup
