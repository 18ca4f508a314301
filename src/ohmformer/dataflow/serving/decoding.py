"""The decoding steps of requests on one machine: time and energy of each, and of steps with mixed contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ohmformer.cost.chips.sums import refresh_of_chips
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.machine.refresh import Refresh
from ohmformer.cost.machine.steps import StepPrices
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.network.load import most_of
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import By
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.jobs import waits_in_pools
from ohmformer.dataflow.serving.kind_sums import sum_kinds
from ohmformer.dataflow.serving.step_latency import KindTimes, job_ends, step_latencies
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.hardware.refresh import refresh_interval
from ohmformer.workload.request import ListedSteps, Steps

Array = npt.NDArray[np.float64]


class Decoding:
    """N decoding steps of a batch of requests on one machine.

    Attributes:
        machine: the machine.
        dataflow: the order of work in a step. A step starts when the step before it has ended for all requests.
        steps: the steps.
        homes: for each group of chips, what lives in which memory in all steps; None if each step decides that.
        prices: their prices.
        report: is called when a step is priced, to show progress.
    """

    def __init__(
        self,
        machine: Machine,
        dataflow: Dataflow,
        last: Placement,
        steps: Steps | ListedSteps,
        homes: tuple[Homes, ...] | None = None,
    ) -> None:
        self.machine, self.dataflow, self.steps, self.homes = machine, dataflow, steps, homes
        self.report: Callable[[], None] = lambda: None
        shares = steps if last.layout is None else last.layout.steps_of(steps)
        self.prices = StepPrices(last, shares, [chip.used.total for chip in machine.by_chip], homes)

    @cached_property
    def mixed(self) -> Decoding:
        """The same steps, if contexts are mixed: memories then hold the mean number of bytes in every step."""
        if not self.prices.moving:
            return self
        return Decoding(self.machine, self.dataflow, self.prices.last, self.steps, self.prices.mean_homes())

    def placement(self, index: int) -> Placement:
        """A step on the machine."""
        last, priced = self.prices.last, self.prices.step(index)
        named = zip(self.prices.kind_of, last.layers, strict=True)
        layers = tuple(priced[kind].named(layer.name) for kind, layer in named)
        workload = self.steps.workload(index)
        sets, uses = (last.kv_sets, last.softmax_sets), last.weight_uses
        further: dict[str, Any] = {"homes": self.prices.homes(index), "weight_uses": uses}
        if last.layout is not None:
            layout = replace(last.layout, workload=self.prices.steps.workload(index))
            further |= {"homes_of": self.prices.homes_by_chip(index), "layout": layout}
        return Placement.on(self.machine, workload, layers, (), *sets, **further)

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
            return self._events[0]
        return np.array([latency(self.placement(index), self.dataflow) for index in range(count)])

    def mixed_time(self, ahead: Sequence[int]) -> float:
        """The time of all steps together, in which request k is `ahead[k]` steps further than the first [s].

        It needs `one_recursion`.

        Raises:
            BadInput: there are too many jobs to compute.
        """
        if self.dataflow.batching == "serial":
            return float(self.latencies.sum())  # every request passes every step once, alone
        found = step_latencies(self.prices.last, self.dataflow, self.prices.kind_of, self._priced.times, ahead)
        return float(found.sum())

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
        if refresh_interval(hardware.attention) is None:
            return []
        groups = (
            list(zip(self.prices.kv_arrays(index), self.prices.homes_by_chip(index), strict=True))
            for index in range(self.steps.count)
        )
        found = (refresh_of_chips(last.workload, each, hardware, self.machine.sharing) for each in groups)
        return [refresh for refresh in found if refresh is not None]

    @property
    def times(self) -> dict[int, KindTimes]:
        """Position of the first layer of a kind -> times of its stages; needs `one_recursion`."""
        return self._priced.times

    @property
    def energies(self) -> Array:
        """The energy of each step, standing power excluded [N] [J]."""
        return self._priced.energies

    @property
    def loads(self) -> dict[str, float]:
        """Link -> its highest load in any stage of any step, see `highest_loads`."""
        return self._priced.loads

    @property
    def gated(self) -> Array:
        """The energy of gated tiles at work in each step [N] [J]; 0 if tiles are always on."""
        if self.dataflow.has_closed_form or not self._priced.gated.any():
            return self._priced.gated
        return self._events[1]

    def energy_by(self, kind: By) -> dict[str, float]:
        """The energy of all steps [J] by component, operation or engine, standing power excluded."""
        return self._priced.energy_by[kind]

    @property
    def one_recursion(self) -> bool:
        """True if one recursion serves all steps: a request is one block, and all steps have the same stages."""
        if not self.dataflow.has_closed_form or waits_in_pools(self.prices.last, self.dataflow):
            return False
        return self._priced.alike

    @cached_property
    def _events(self) -> tuple[Array, Array]:
        """Latency [s] and energy of gated tiles [J] of each step, from the event engine."""
        runs = (build_timeline(self.placement(index), self.dataflow) for index in range(self.steps.count))
        latencies, gated = np.array([(run.work, run.gated) for run in runs]).T
        return latencies, gated

    @cached_property
    def _priced(self) -> _Priced:
        kinds = sum_kinds(self.prices, self.dataflow, self.report)
        energies, gated, sums = np.zeros(self.steps.count), np.zeros(self.steps.count), dict[By, dict[str, float]]()
        for first, found in kinds.items():
            energies += self.prices.kinds[first] * found.energies
            gated += self.prices.kinds[first] * found.gated
            for kind, parts in found.energy_by.items():
                times = {name: self.prices.kinds[first] * value for name, value in parts.items()}
                sums[kind] = sum_by_name(sums.get(kind, {}), times)
        alike = all(found.alike and found.waits_for_memory_last for found in kinds.values())
        of_kinds = {first: found.times for first, found in kinds.items()} if alike else {}
        return _Priced(of_kinds, energies, gated, sums, alike, most_of(found.loads for found in kinds.values()))


@dataclass(frozen=True, eq=False)
class _Priced:
    """Sums over the stages of all steps, and their times.

    Attributes:
        times: position of the first layer of a kind -> times of its stages; empty unless `alike`.
        energies: [N], energy of each step, standing power excluded [J].
        gated: [N], energy of gated tiles in each step [J].
        energy_by: how energy is split -> name -> energy of all steps [J].
        alike: True if the tokens of a request pass every layer as one block, and all steps have the same stages.
        loads: link -> its highest load in any stage of any step.
    """

    times: dict[int, KindTimes]
    energies: Array
    gated: Array
    energy_by: dict[By, dict[str, float]]
    alike: bool
    loads: dict[str, float]
