"""The decoding steps of requests on one machine: time and energy of each, and of steps with mixed contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ohmformer.cost.cost import add_energy
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.machine.refresh import Refresh, refresh_of
from ohmformer.cost.machine.steps import StepPrices
from ohmformer.cost.network.load import highest_loads, most_of
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import By, total_energy
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.serving.step_latency import KindTimes, job_ends, step_latencies
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline
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

    def placement(self, index: int) -> Placement:
        """A step on the machine."""
        last, priced = self.prices.last, self.prices.step(index)
        named = zip(self.prices.kind_of, last.layers, strict=True)
        layers = tuple(priced[kind].named(layer.name) for kind, layer in named)
        workload = self.steps.workload(index)
        sets, uses = (last.kv_sets, last.softmax_sets), last.weight_uses
        return Placement.on(self.machine, workload, layers, (), *sets, homes=last.homes, weight_uses=uses)

    @cached_property
    def latencies(self) -> Array:
        """The latency of each step, in which all requests have the same context [N] [s].

        Raises:
            BadInput: there are too many jobs to compute.
        """
        if self.one_recursion:
            return step_latencies(self.prices.last, self.dataflow, self.prices.kind_of, self._priced.times)
        count = self.steps.count
        if not self.dataflow.has_closed_form:
            return np.array([build_timeline(self.placement(index), self.dataflow).latency for index in range(count)])
        return np.array([latency(self.placement(index), self.dataflow) for index in range(count)])

    def mixed_latencies(self, ahead: Sequence[int]) -> Array:
        """The latency of each step in which request k is `ahead[k]` steps further than the first [N] [s].

        It needs `one_recursion`.

        Raises:
            BadInput: there are too many jobs to compute.
        """
        return step_latencies(self.prices.last, self.dataflow, self.prices.kind_of, self._priced.times, ahead)

    def job_ends(self, request: int) -> dict[tuple[int, int], Array]:
        """When the jobs of a request end in each step, from the start of the step.

        Returns:
            (position of the layer, position of the stage) -> ends [N] [s].

        Raises:
            BadInput: there are too many jobs to compute.
        """
        if self.one_recursion:
            last, kinds, times = self.prices.last, self.prices.kind_of, self._priced.times
            return job_ends(last, self.dataflow, kinds, times, request)
        ends: dict[tuple[int, int], list[float]] = {}
        for index in range(self.steps.count):
            timeline = build_timeline(self.placement(index), self.dataflow)
            layers = timeline.placement.layers
            places = {(n, id(stage)): (n, i) for n, layer in enumerate(layers) for i, stage in enumerate(layer.stages)}
            for number, job in enumerate(timeline.jobs):
                place = places.get((job.layer, id(job.stage)))
                if job.sample == request and place is not None:
                    ends.setdefault(place, []).append(timeline.schedule.end[number])
        return {place: np.array(times) for place, times in ends.items()}

    @cached_property
    def refreshes(self) -> list[Refresh]:
        """The refresh of keys and values in each step; empty if cells keep their values.

        Raises:
            BadInput: see `refresh_of`.
        """
        last, hardware = self.prices.last, self.machine.hardware
        found = (
            refresh_of(last.workload, self.prices.kv_arrays(index), hardware, last.homes)
            for index in range(self.steps.count)
        )
        return [refresh for refresh in found if refresh is not None]

    @property
    def energies(self) -> Array:
        """The energy of each step, standing power excluded [N] [J]."""
        return self._priced.energies

    @property
    def loads(self) -> dict[str, float]:
        """Link -> its highest load in any stage of any step, see `highest_loads`."""
        return self._priced.loads

    def energy_by(self, kind: By) -> dict[str, float]:
        """The energy of all steps [J] by component, operation or engine, standing power excluded."""
        return self._priced.energy_by[kind]

    @property
    def one_recursion(self) -> bool:
        """True if one recursion serves all steps: one token per request, and the same stages in every step."""
        return self.dataflow.has_closed_form and self._priced.alike

    @cached_property
    def _priced(self) -> _Priced:
        kinds = {first: _KindSums(self.steps.count) for first in self.prices.kinds}
        for index in range(self.steps.count):
            for first, layer in self.prices.step(index).items():
                kinds[first].add(index, layer)
        energies, sums = np.zeros(self.steps.count), dict[By, dict[str, float]]()
        for first, found in kinds.items():
            energies += self.prices.kinds[first] * found.energies
            for kind, parts in found.energy_by.items():
                times = {name: self.prices.kinds[first] * value for name, value in parts.items()}
                sums[kind] = add_energy(sums.get(kind, {}), times)
        alike = all(found.alike for found in kinds.values())
        of_kinds = {first: found.times for first, found in kinds.items()} if alike else {}
        return _Priced(of_kinds, energies, sums, alike, most_of(found.loads for found in kinds.values()))


class _KindSums:
    """Times and sums over the layers of one kind, in N steps.

    Attributes:
        energies: [N], energy of one layer in each step [J].
        energy_by: how energy is split -> name -> energy of one layer in all steps [J].
        alike: True if every request has one token, and all steps have the same stages.
        loads: link -> its highest load in any stage of any step.
    """

    def __init__(self, count: int) -> None:
        self.energies = np.zeros(count)
        self.energy_by: dict[By, dict[str, float]] = {"component": {}, "operation": {}, "engine": {}}
        self.alike, self._setup = True, 0.0
        self.loads: dict[str, float] = {}
        self._shape: tuple[object, ...] = ()
        self._rows: list[tuple[list[float], list[float], list[float]]] = []
        self._last: PlacedLayer | None = None
        self._parts: dict[By, dict[str, float]] = {}

    def add(self, index: int, layer: PlacedLayer) -> None:
        """Add the layer of a step; one that is the same object as in the step before is not summed anew."""
        if layer is self._last:
            self.energies[index] = self.energies[index - 1]
            self._rows.append(self._rows[-1])
        else:
            stages = [(stage, 1) for stage in layer.all_stages()]
            self.energies[index] = sum(stage.joules for stage, _ in stages)
            busy = [stage.occupancy(1) for stage in layer.stages]
            memory = [min(time, stage.off_chip) for time, stage in zip(busy, layer.stages, strict=True)]
            self._rows.append((busy, [stage.time(1) for stage in layer.stages], memory))
            self.loads = most_of((self.loads, highest_loads(layer.stages)))
            self._parts = {kind: total_energy(stages, kind) for kind in self.energy_by}
            shape = _shape(layer)
            self.alike = self.alike and layer.tokens == 1 and (self._last is None or shape == self._shape)
            self._shape, self._setup, self._last = shape, layer.setup.time(1) if layer.setup else 0.0, layer
        for kind, parts in self._parts.items():
            total = self.energy_by[kind]
            for name, value in parts.items():
                total[name] = total.get(name, 0.0) + value

    @property
    def times(self) -> KindTimes:
        """The times of the stages in all steps."""
        busy, arrives, memory = (np.array(part).T for part in zip(*self._rows, strict=True))
        return KindTimes(busy, arrives, memory, self._setup)


@dataclass(frozen=True, eq=False)
class _Priced:
    """Sums over the stages of all steps, and their times.

    Attributes:
        times: position of the first layer of a kind -> times of its stages; empty unless `alike`.
        energies: [N], energy of each step [J].
        energy_by: how energy is split -> name -> energy of all steps [J].
        alike: True if every request has one token in every layer, and all steps have the same stages.
        loads: link -> its highest load in any stage of any step.
    """

    times: dict[int, KindTimes]
    energies: Array
    energy_by: dict[By, dict[str, float]]
    alike: bool
    loads: dict[str, float]


def _shape(layer: PlacedLayer) -> tuple[object, ...]:
    """What decides in which order the stages of a layer run."""
    stages = tuple((stage.name, stage.unit, stage.shared, stage.off_chip > 0) for stage in layer.stages)
    setup = layer.setup.time(1) if layer.setup else 0.0
    return stages, layer.kept, layer.softmax, setup
