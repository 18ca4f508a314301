"""Times and sums over the layers of one kind in many passes, such as all decoding steps of a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.machine.steps import StepPrices
from ohmformer.cost.stage import By, total_energy
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

    Attributes:
        energies: [N], energy of one layer in each step [J].
        gated: [N], energy of gated tiles of one layer in each step [J].
        energy_by: how energy is split -> name -> energy of one layer in all steps [J].
        alike: True if the tokens of a sample pass the layer as one block, and all steps have the same stages.
    """

    def __init__(self, count: int, dataflow: Dataflow, batch: int, weight_uses: int) -> None:
        self._sizes = dataflow, batch, weight_uses
        self.energies, self.gated = np.zeros(count), np.zeros(count)
        self.energy_by: dict[By, dict[str, float]] = {"component": {}, "operation": {}, "engine": {}}
        self.alike, self._setup = True, 0.0
        self._shape: tuple[object, ...] = ()
        self._rows: list[tuple[list[float], list[float], list[float]]] = []
        self._last: PlacedLayer | None = None
        self._parts: dict[By, dict[str, float]] = {}

    def add(self, index: int, layer: PlacedLayer) -> None:
        """Add the layer of a step; one that is the same object as in the step before is not summed anew."""
        if layer is self._last:
            self.energies[index], self.gated[index] = self.energies[index - 1], self.gated[index - 1]
            self._rows.append(self._rows[-1])
        else:
            stages = [(stage, 1) for stage in layer.all_stages()]
            self.energies[index] = sum(stage.joules for stage, _ in stages)
            if any(stage.standing for stage, _ in stages):
                self.gated[index] = gated_energy_of(layer, *self._sizes)
            tokens = layer.tokens
            busy = [stage.occupancy(tokens) for stage in layer.stages]
            memory = [min(time, stage.off_chip * tokens) for time, stage in zip(busy, layer.stages, strict=True)]
            self._rows.append((busy, [stage.time(tokens) for stage in layer.stages], memory))
            self._parts = {kind: total_energy(stages, kind) for kind in self.energy_by}
            shape, one_block = _shape(layer), self._sizes[0].size_of_block(tokens) == tokens
            self.alike = self.alike and one_block and (self._last is None or shape == self._shape)
            self._shape, self._setup, self._last = shape, layer.setup.time(1) if layer.setup else 0.0, layer
        for kind, parts in self._parts.items():
            total = self.energy_by[kind]
            for name, value in parts.items():
                total[name] = total.get(name, 0.0) + value

    def has_stages_of(self, layer: PlacedLayer) -> bool:
        """True if the stages are those of another layer, in order and on the same units."""
        _, stages, _, softmax, _ = self._shape
        return (stages, softmax) == (_shape(layer)[1], layer.softmax)

    @property
    def waits_for_memory_last(self) -> bool:
        """True if the last step has all stages that use the memory off the chip in any step."""
        memory = self.times.memory
        return not bool(((memory > 0).any(1) & ~(memory[:, -1] > 0)).any())

    @cached_property
    def times(self) -> KindTimes:
        """The times of the stages in all steps."""
        busy, arrives, memory = (np.array(part).T for part in zip(*self._rows, strict=True))
        return KindTimes(busy, arrives, memory, self._setup)


def _shape(layer: PlacedLayer) -> tuple[object, ...]:
    """What decides in which order the stages of a layer run."""
    stages = tuple((stage.name, stage.unit, stage.shared) for stage in layer.stages)
    setup = layer.setup.time(1) if layer.setup else 0.0
    return layer.tokens, stages, layer.kept, layer.softmax, setup
