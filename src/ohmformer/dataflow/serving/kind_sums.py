"""Times and sums over the layers of one kind in many passes, such as all decoding steps of a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.machine.steps import StepPrices
from ohmformer.cost.network.load import highest_loads, most_of
from ohmformer.cost.stage import By, Stage, total_energy
from ohmformer.dataflow.serving.step_latency import KindTimes
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import gated_energy_of

Array = npt.NDArray[np.float64]


def sum_kinds(prices: StepPrices, dataflow: Dataflow, report: Callable[[], None] = lambda: None) -> dict[int, KindSums]:
    """Price all steps.

    Args:
        prices: the steps.
        dataflow: the order of work in a step.
        report: is called when a step is priced.

    Returns:
        Position of the first layer of a kind -> its sums.
    """
    count, sizes = prices.steps.count, (dataflow, prices.last.workload.batch, prices.last.weight_uses)
    kinds = {first: KindSums(count, *sizes) for first in prices.kinds}
    for index in range(count):
        for first, layer in prices.step(index).items():
            kinds[first].add(index, layer)
        report()
    return kinds


class KindSums:
    """Times and sums over the layers of one kind, in N steps.

    A stage that is the same object as in the step before is not summed anew.

    Attributes:
        energies: [N], energy of one layer in each step [J].
        gated: [N], energy of gated tiles of one layer in each step [J].
        alike: True if the tokens of a sample pass the layer as one block, and all steps have the same stages.
        loads: link -> its highest load in any stage of any step.
    """

    def __init__(self, count: int, dataflow: Dataflow, batch: int, weight_uses: int) -> None:
        self._sizes = dataflow, batch, weight_uses
        self.energies, self.gated = np.zeros(count), np.zeros(count)
        self.alike = True
        self.loads: dict[str, float] = {}
        self._sums: dict[By, dict[str, float]] = {"component": {}, "operation": {}, "engine": {}}
        self._runs: list[_Run] = []
        self._rows: list[list[tuple[float, float, float]]] = []
        self._last: PlacedLayer | None = None

    def add(self, index: int, layer: PlacedLayer) -> None:
        """Add the layer of a step."""
        if layer is self._last:
            self.energies[index], self.gated[index] = self.energies[index - 1], self.gated[index - 1]
            self._rows.append(self._rows[-1])
            for run in self._runs:
                run.steps += 1
            return
        stages, tokens = layer.all_stages(), layer.tokens
        self.loads = most_of((self.loads, highest_loads(layer.stages)))
        if self._last is None:
            self._runs = [_Run(stage, tokens) for stage in stages]
            self.alike = self._sizes[0].size_of_block(tokens) == tokens
        else:
            self.alike = self.alike and _order(layer) == _order(self._last) and len(stages) == len(self._runs)
            self._follow(stages, tokens)
        self._last = layer
        self.energies[index] = sum(run.joules for run in self._runs)
        if any(stage.standing for stage in stages):
            self.gated[index] = gated_energy_of(layer, *self._sizes)
        self._rows.append([run.times for run in self._runs[len(stages) - len(layer.stages) :]])

    def _follow(self, stages: tuple[Stage, ...], tokens: int) -> None:
        """Go on with the stages of another step."""
        runs, ended = [], self._runs[len(stages) :]
        for place, stage in enumerate(stages):
            run = self._runs[place] if place < len(self._runs) else None
            if run is not None and run.stage is stage and run.tokens == tokens:
                run.steps += 1
                runs.append(run)
                continue
            runs.append(_Run(stage, tokens))
            if run is not None:
                ended.append(run)
            if run is None or _unit(run.stage) != _unit(stage):
                self.alike = False
        self._add_up(ended)
        self._runs = runs

    def _add_up(self, runs: list[_Run]) -> None:
        """Add the energies of stages to the sums."""
        ended = [(run.stage, run.steps) for run in runs]
        for kind, total in self._sums.items():
            for name, value in total_energy(ended, kind).items():
                total[name] = total.get(name, 0.0) + value

    @cached_property
    def energy_by(self) -> dict[By, dict[str, float]]:
        """How energy is split -> name -> energy of one layer in all steps [J]."""
        self._add_up(self._runs)
        return self._sums

    def has_stages_of(self, layer: PlacedLayer) -> bool:
        """True if the stages are those of another layer, in order and on the same units."""
        assert self._last is not None
        mine, others = ([_unit(stage) for stage in each.stages] for each in (self._last, layer))
        return mine == others and self._last.softmax == layer.softmax

    @property
    def waits_for_memory_last(self) -> bool:
        """True if the last step has all stages that use the memory off the chip in any step."""
        memory = self.times.memory
        return not bool(((memory > 0).any(1) & ~(memory[:, -1] > 0)).any())

    @cached_property
    def times(self) -> KindTimes:
        """The times of the stages in all steps; needs `alike`."""
        assert self._last is not None
        busy, arrives, memory = np.array(self._rows).transpose(2, 1, 0)
        return KindTimes(busy, arrives, memory, self._last.setup.time(1) if self._last.setup else 0.0)


class _Run:
    """A stage in steps that follow one another.

    Attributes:
        stage: the stage.
        tokens: tokens of a sample.
        steps: number of steps.
        joules: its energy in one step [J].
        times: time for which it is busy, until its result arrives, and for which it occupies the memory [s].
    """

    __slots__ = ("joules", "stage", "steps", "times", "tokens")

    def __init__(self, stage: Stage, tokens: int) -> None:
        self.stage, self.tokens, self.steps, self.joules = stage, tokens, 1, stage.joules
        busy = stage.occupancy(tokens)
        self.times = busy, stage.time(tokens), min(busy, stage.off_chip * tokens)


def _unit(stage: Stage) -> tuple[str, str, bool]:
    """Name and unit of a stage, which decide its place in the order of a layer."""
    return stage.name, stage.unit, stage.shared


def _order(layer: PlacedLayer) -> tuple[object, ...]:
    """What decides in which order samples pass a layer, beside its stages."""
    return layer.tokens, layer.kept, layer.softmax, layer.setup.time(1) if layer.setup else 0.0
