"""The latencies of many decoding steps at once: the recursion of `block_recursion.py` for one token per sample.

A job starts when the result that it needs has arrived and its units are free, in the order of layers, then samples,
then stages. All times are arrays with one entry per step, so one pass over these jobs serves all steps. Samples may be
at different steps of their requests: sample k then takes the times of another step.

As there, equal layers add the same shift to all results that is added to all inputs. So when some equal layers have
shifted arrivals and shared units by one constant, in every step, as many equal layers that follow add it again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import MEMORY
from ohmformer.dataflow.layer_cuts import further_units, sets_of_cells, unit_name, writer_of
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.steady import LONGEST_PERIOD, MOST_KEPT, SAME
from ohmformer.errors import BadInput

Array = npt.NDArray[np.float64]

MOST_WORK = 4e9
"""Maximum number of jobs of one step, times the number of steps and `OVERHEAD`, which take about 10 s."""
OVERHEAD = 1500
"""Number of steps as which the overhead of an array operation counts."""


@dataclass(frozen=True)
class KindTimes:
    """Times of the layers of one kind in N steps.

    Attributes:
        busy: [S, N], time for which a sample occupies each of S stages [s].
        arrives: [S, N], time until the result of each stage arrives [s].
        memory: [S, N], time for which a sample occupies the memory off the chip [s]; 0 in steps that do not use it.
        setup: time of the setup [s]; 0 without one.
        absent: [N], True in steps whose samples leave out these layers; None if there are none.
    """

    busy: Array
    arrives: Array
    memory: Array
    setup: float
    absent: npt.NDArray[np.bool_] | None = None

    @cached_property
    def skips(self) -> list[bool]:
        """For each stage, True if some steps do not use the memory off the chip [S]."""
        return [bool((stage <= 0).any()) for stage in self.memory]

    def shifted(self, offset: int) -> KindTimes:
        """The times of the steps that come `offset` later; after the last step comes the first."""
        if not offset:
            return self
        busy, arrives, memory = (each[:, offset : offset + each.shape[1] // 2] for each in self._twice)
        absent = None if self.absent is None else np.roll(self.absent, -offset)
        return KindTimes(busy, arrives, memory, self.setup, absent)

    @cached_property
    def _twice(self) -> tuple[Array, Array, Array]:
        """The times, followed by themselves [S, 2 N]: `shifted` takes views of them, which need no memory."""
        busy, arrives, memory = (np.concatenate([each, each], 1) for each in (self.busy, self.arrives, self.memory))
        return busy, arrives, memory


def step_latencies(
    last: Placement,
    dataflow: Dataflow,
    kinds: Sequence[int],
    times: Mapping[int, KindTimes],
    offsets: Sequence[int] | None = None,
) -> Array:
    """The latencies of N decoding steps [s].

    Args:
        last: one of the steps; all have its units.
        dataflow: one without jobs of its own.
        kinds: the kind of each layer.
        times: kind -> its times.
        offsets: for each sample, by how many steps it is ahead; None if all samples of a step have the same context.

    Raises:
        BadInput: there are too many jobs to compute.
    """
    batch = last.workload.batch
    ahead = tuple(offsets) if offsets is not None else (0,) * batch
    check_work(last, dataflow, next(iter(times.values())).busy.shape[1])
    if dataflow.batching == "pipelined":
        return _Pass(last, kinds, times).run(ahead)
    alone = _Pass(last, kinds, times).run((0,))
    if offsets is None:
        return batch * alone
    found: Array = sum((number * np.roll(alone, -offset) for offset, number in Counter(ahead).items()), np.zeros(1))
    return found


def job_ends(
    last: Placement, dataflow: Dataflow, kinds: Sequence[int], times: Mapping[int, KindTimes], sample: int
) -> dict[tuple[int, int], Array]:
    """When one sample leaves each stage of N decoding steps, from the start of the step.

    Args:
        last: see `step_latencies`.
        dataflow: see `step_latencies`.
        kinds: see `step_latencies`.
        times: see `step_latencies`.
        sample: number of the sample.

    Returns:
        (position of the layer, position of the stage) -> ends of its job [N] [s].
    """
    serial = dataflow.batching == "serial"
    samples = 1 if serial else last.workload.batch
    check_work(last, dataflow, next(iter(times.values())).busy.shape[1])
    found = _Pass(last, kinds, times, follow=0 if serial else sample)
    alone = found.run((0,) * samples)
    return {place: end + sample * alone for place, end in found.ends.items()} if serial else found.ends


def check_work(last: Placement, dataflow: Dataflow, steps: int) -> None:
    """Refuse a number of requests whose steps take too long to compute.

    Raises:
        BadInput: there are too many jobs.
    """
    samples = 1 if dataflow.batching == "serial" else last.workload.batch
    jobs = samples * sum(len(layer.stages) for layer in last.layers)
    if jobs * (steps + OVERHEAD) > MOST_WORK:
        raise BadInput(
            f"serve: batch = {last.workload.batch}: takes {jobs:,} jobs in each of {steps:,} steps, too many to "
            "compute; lower batch or generate, or set dataflow.batching = 'serial'"
        )


class _Pass:
    """One pass over the jobs of a step, for all steps at once.

    Attributes:
        arrived: for each sample, when it left the last layer, [N] [s].
        free: unit -> when it becomes free, [N] [s].
        readers: unit of a write stage -> times of the last reads of its cells, for the latest uses, [N] [s].
        follow: number of the sample whose ends are kept, so that no layer is skipped; None for none.
        ends: (position of the layer, position of the stage) -> ends of this sample's job, [N] [s].
    """

    def __init__(
        self, last: Placement, kinds: Sequence[int], times: Mapping[int, KindTimes], follow: int | None = None
    ) -> None:
        self.placement, self.kinds, self.times, self.follow = last, kinds, times, follow
        self.ends: dict[tuple[int, int], Array] = {}
        self.free: dict[str, Array] = {}
        self.readers: dict[str, deque[Array]] = {}
        self.arrived: list[Array] = []

    def run(self, offsets: Sequence[int]) -> Array:
        """Pass samples through all layers; sample k is `offsets[k]` steps ahead."""
        count = next(iter(self.times.values())).busy.shape[1]
        self.arrived = [np.zeros(count)] * len(offsets)
        layers, index, ahead = self.placement.layers, 0, _equal_after(self.kinds)
        most = MOST_KEPT // (len(offsets) * count)
        states: deque[Array] = deque(maxlen=min(max(most, 2), LONGEST_PERIOD + 1))
        while index < len(layers):
            self._layer(index, self.times[self.kinds[index]], offsets)
            equal = ahead[index] if self.follow is None else 0
            state = self._state(layers[index]) if equal else None
            if state is None:
                states.clear()
            elif found := _period(states, state):
                period, gain = found
                self._move(layers[index], equal // period * gain)
                index += equal // period * period
                states.clear()
            else:
                states.append(state)
            index += 1
        latest: Array = np.max(self.arrived, axis=0)
        return latest

    def _layer(self, index: int, times: KindTimes, offsets: Sequence[int]) -> None:
        layer = self.placement.layers[index]
        units = [
            (unit_name(layer, stage), *further_units(self.placement, layer, place))
            for place, stage in enumerate(layer.stages)
        ]
        enter = self.arrived[0]
        if layer.setup is not None:
            unit = unit_name(layer, layer.setup)
            enter = np.maximum(enter, self.free.get(unit, enter)) + times.setup
            self.free[unit] = enter
        shifted = {offset: times.shifted(offset) for offset in dict.fromkeys(offsets)}
        for sample, offset in enumerate(offsets):
            now = enter if sample == 0 else self.arrived[sample]
            before = {} if times.absent is None else dict(self.free)
            self.arrived[sample], ends = self._sample(layer, units, shifted[offset], now)
            if (absent := shifted[offset].absent) is not None:
                self.arrived[sample] = np.where(absent, now, self.arrived[sample])
                for unit in {unit for each in units for unit in each}:
                    self.free[unit] = np.where(absent, before.get(unit, -np.inf), self.free[unit])
            if sample == self.follow:
                self.ends.update({(index, place): end for place, end in enumerate(ends)})
        shared = self._shared(layer)
        for unit in {unit for each in units for unit in each} - shared:  # no other layer uses it
            self.free.pop(unit, None)
            self.readers.pop(unit, None)

    def _sample(
        self, layer: PlacedLayer, units: list[tuple[str, ...]], times: KindTimes, now: Array
    ) -> tuple[Array, list[Array]]:
        """When a sample that enters a layer at `now` leaves it, and each of its stages [N]."""
        ends: list[Array] = []
        last: dict[int, Array] = {}
        memory_unit = layer.on_chip(MEMORY)
        for place, stage in enumerate(layer.stages):
            if stage.name == "write":
                sets, uses = sets_of_cells(self.placement, layer, stage), self.readers.get(units[place][0], ())
                now = now if sets is None or len(uses) < sets else np.maximum(now, uses[-sets])
            off_chip = memory_unit in units[place][1:]
            for unit in units[place]:
                if unit in self.free:
                    free = self.free[unit]
                    waits = unit == memory_unit and off_chip and times.skips[place]
                    now = np.maximum(now, np.where(times.memory[place] > 0, free, now) if waits else free)
            ends.append(now + times.busy[place])
            memory = self.free.get(memory_unit, now)
            self.free.update(dict.fromkeys(units[place], ends[-1]))
            if off_chip:
                until = now + times.memory[place]
                self.free[memory_unit] = (
                    np.where(times.memory[place] > 0, until, memory) if times.skips[place] else until
                )
            now = now + times.arrives[place]
            if (writer := writer_of(layer.stages, place)) is not None:
                last[writer] = now
        for writer, time in last.items():
            self.readers.setdefault(units[writer][0], deque(maxlen=2)).append(time)
        return now, ends

    def _shared(self, layer: PlacedLayer) -> set[str]:
        """The units of a layer that other layers use, too."""
        further = {unit for place in range(len(layer.stages)) for unit in further_units(self.placement, layer, place)}
        return further | {unit_name(layer, stage) for stage in layer.all_stages() if stage.shared}

    def _state(self, layer: PlacedLayer) -> Array | None:
        """All times on which the next equal layer depends [K, N]; None while some of them do not exist."""
        shared = sorted(self._shared(layer))
        writers = [unit_name(layer, stage) for stage in layer.stages if stage.shared and stage.name == "write"]
        if any(unit not in self.free for unit in shared):
            return None
        reads = [time for unit in writers for time in self.readers.get(unit, ())]
        return np.stack([*self.arrived, *(self.free[unit] for unit in shared), *reads])

    def _move(self, layer: PlacedLayer, gain: Array) -> None:
        self.arrived = [time + gain for time in self.arrived]
        for unit in self._shared(layer):
            self.free[unit] = self.free[unit] + gain
        for unit in {unit_name(layer, stage) for stage in layer.stages if stage.shared} & self.readers.keys():
            self.readers[unit] = deque((time + gain for time in self.readers[unit]), maxlen=2)


def _equal_after(kinds: Sequence[int]) -> list[int]:
    """For each layer, the number of layers of the same kind that follow directly."""
    ahead = [0] * len(kinds)
    for index in range(len(kinds) - 2, -1, -1):
        ahead[index] = ahead[index + 1] + 1 if kinds[index] == kinds[index + 1] else 0
    return ahead


def _period(states: deque[Array], now: Array) -> tuple[int, Array] | None:
    """After how many layers all times have grown alike, in each step, and by how much [N]; None if they have not."""
    for period in range(1, len(states) + 1):
        before = states[-period]
        if before.shape == now.shape:
            gain: Array = now[0] - before[0]
            if bool(np.all(np.abs(now - before - gain) <= SAME * np.abs(now))):
                return period, gain
    return None
