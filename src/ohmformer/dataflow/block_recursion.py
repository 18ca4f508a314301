"""The latency of any dataflow in blocks: a max-plus recursion over stages, with all blocks and samples at once.

On one unit block b starts at start(b) = max(arrival(b), start(b - 1) + p(b - 1)). With c(b), the sum of p before b,
start(b) - c(b) is the running maximum of arrival(b) - c(b), so one pass over an array serves all blocks and samples of
a stage. A stage that waits for all tokens takes the last arrival of its sample for all blocks.

A layer adds the same shift to its results that is added to all its inputs and to the state of shared units. So when
equal layers have shifted all of them by one constant, equal layers that follow add this constant again (see
`steady.py`). The same holds for samples that pass through a layer one after another.

Designs that were priced at once pass together: a time of a unit is then a `PerDesign`, and arrays of times have a
leading axis of designs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ohmformer.cost.designs.per_design import beside, largest, of_designs, smallest, values_of
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage, is_memory
from ohmformer.dataflow.layer_cuts import Part, kind_of, loops, segments, sets_of_cells, unit_name, units_of, writer_of
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.steady import Steady, alike, never_later
from ohmformer.errors import BadInput

Array = npt.NDArray[np.float64]

MOST_VALUES = 300_000_000
"""Maximum number of blocks times stages that are computed, which take about 10 s."""
MOST_AT_ONCE = 20_000_000
"""Maximum number of blocks of all samples, which take about 1 GB."""
MOST_STEPS = 1_000_000
"""Maximum number of steps that are computed one after another, which take about 10 s."""
FEW_BLOCKS = 100
"""Number of blocks up to which a loop in Python is faster than NumPy."""
STEPS_PER_PASS = 10
"""Steps that NumPy's pass over all blocks of one sample in one stage counts for: its time is about that of ten."""


def recursive_latency(
    placement: Placement,
    dataflow: Dataflow,
    speed: Mapping[str, float] | None = None,
    *,
    block: int | None = None,
    designs: int = 1,
) -> float:
    """The latency of all samples [s]; a `PerDesign` for several designs.

    Args:
        placement: the workload on the accelerator.
        dataflow: one without jobs of its own.
        speed: stage name -> factor by which its times are multiplied.
        block: tokens per block; by default those of the dataflow.
        designs: number of designs that the placement stands for.

    Raises:
        BadInput: there are too many blocks or samples to compute.
    """
    return _Flow(placement, dataflow, speed or {}, block, designs).run()


class _Flow:
    """The state between two layers. Arrays have a leading axis of designs if there are several.

    Attributes:
        designs: number of designs.
        samples: N, samples that are computed together.
        arrived: [N, B], times at which blocks left the last layer [s].
        tokens: tokens of a sample in the last layer.
        free: unit -> time at which it becomes free [s].
        readers: unit of a write stage -> times of the last reads of its cells, for the latest uses [s].
        names: name and stages of a layer -> the units of each stage.
        times: stage and tokens of a block -> time for which it occupies the unit, and until its result arrives [s].
        by_block: stage and tokens per block -> for each block, the time for which it occupies the unit, and the time
            from then until its result arrives [s].
        values: blocks times stages so far.
        steps: steps so far that take blocks or samples one by one.
    """

    def __init__(
        self, placement: Placement, dataflow: Dataflow, speed: Mapping[str, float], block: int | None, designs: int
    ) -> None:
        self.placement, self.dataflow, self.speed, self.block = placement, dataflow, speed, block
        self.designs, self.samples = designs, placement.workload.batch if dataflow.batching == "pipelined" else 1
        self.arrived: Array = np.zeros((self.samples, 1) if designs == 1 else (designs, self.samples, 1))
        self.tokens = 0
        self.free: dict[str, float] = {}
        self.readers: dict[str, deque[float]] = {}
        self.names: dict[tuple[str, int], list[tuple[str, ...]]] = {}
        self.times: dict[tuple[int, int], tuple[float, float]] = {}
        self.by_block: dict[tuple[int, int], tuple[Array, Array]] = {}
        self.values = self.steps = 0

    def run(self) -> float:
        """Layer by layer; equal layers that only shift the state are skipped."""
        layers = self.placement.layers
        kinds = [kind_of(layer) for layer in layers]
        ahead = [0] * len(layers)
        for index in range(len(layers) - 2, -1, -1):
            ahead[index] = ahead[index + 1] + 1 if kinds[index] == kinds[index + 1] else 0
        index, steady = 0, Steady()
        while index < len(layers):
            self._layer(layers[index])
            if not ahead[index]:
                steady = Steady()
            elif found := steady.add(self._state(layers[index])):
                period, gain = found
                self._move(layers[index], gain * (ahead[index] // period))
                index += ahead[index] // period * period
                steady = Steady()
            index += 1
        times = self.placement.workload.batch if self.dataflow.batching == "serial" else 1
        return of_designs(self.arrived.max(axis=(-2, -1))) * times

    def _state(self, layer: PlacedLayer) -> Array:
        shared = [self.free[unit] for unit in self._shared(layer)]
        reads = [time for unit in self._cells(layer) for time in self.readers[unit]]
        if self.designs == 1:
            return np.concatenate([self.arrived.ravel(), shared, reads])
        columns = [values_of(time, self.designs)[:, None] for time in (*shared, *reads)]
        return np.concatenate([self.arrived.reshape(self.designs, -1), *columns], axis=-1)

    def _move(self, layer: PlacedLayer, gain: float) -> None:
        self.arrived = self.arrived + beside(gain, 2)
        for unit in self._shared(layer):
            self.free[unit] += gain
        for unit in self._cells(layer):
            self.readers[unit] = deque((time + gain for time in self.readers[unit]), self.placement.kv_sets)

    def _shared(self, layer: PlacedLayer) -> list[str]:
        """The units of a layer that other layers use, too."""
        further = {unit for place in range(len(layer.stages)) for unit in self._units(layer, place)[1:]}
        return sorted(further | {layer.on_chip(stage.unit) for stage in layer.all_stages() if stage.shared})

    def _cells(self, layer: PlacedLayer) -> list[str]:
        """Units that write cells which layers share, as far as something has read these cells."""
        return sorted({layer.on_chip(one.unit) for one in layer.stages if one.shared} & self.readers.keys())

    def _units(self, layer: PlacedLayer, place: int) -> tuple[str, ...]:
        """The units of the stage at `place`."""
        key = layer.name, id(layer.stages)
        if key not in self.names:
            self.names[key] = units_of(self.placement, layer)
        return self.names[key][place]

    def _layer(self, layer: PlacedLayer) -> None:
        """Pass all samples through a layer."""
        count = -(-layer.tokens // self._size(layer.tokens))
        self._allow(count, len(layer.stages))
        same = self.dataflow.decides("overlaps") and (self.tokens, self.arrived.shape[-1]) == (layer.tokens, count)
        enter = self.arrived if same else _all_at(self.arrived, count)
        if layer.setup is not None:
            unit = unit_name(layer, layer.setup)
            begin = largest(of_designs(self.arrived[..., 0, -1]), self.free.get(unit, 0.0))
            self.free[unit] = begin + self._times(layer.setup, 1)[1]
            enter = enter.copy()
            enter[..., 0, :] = np.maximum(enter[..., 0, :], beside(self.free[unit], 1))
        alone = ((0, len(layer.stages), False),)
        for first, end, loop in loops(self.placement, layer) if self.samples > 1 else alone:
            enter = (self._in_turn if loop else self._pass)(Part(layer, first, end), enter)
        self.arrived, self.tokens = enter, layer.tokens
        units = {unit for place in range(len(layer.stages)) for unit in self._units(layer, place)}
        for unit in units - set(self._shared(layer)):  # no other layer uses it
            self.free.pop(unit, None)
            self.readers.pop(unit, None)

    def _in_turn(self, part: Part, enter: Array) -> Array:
        """The times [N, B] at which samples leave stages that they pass one after another.

        Args:
            part: the stages.
            enter: [N, B], times at which the blocks enter them [s].
        """
        passed: list[Array] = []
        steady, number, next_look = Steady(), 0, 1
        while number < self.samples:
            self._count(STEPS_PER_PASS * (part.end - part.first))
            passed.append(self._pass(part, enter[..., number : number + 1, :]))
            number += 1
            found = steady.add(self._times_of(part)) if self.designs == 1 else None
            if not found or number < next_look:
                continue
            (period, gain), next_look = found, 2 * number
            rounds, latest = (self.samples - number) // period, passed[-period:]
            rises = self._rises(part, enter[number - period :], steady, latest, gain) if rounds else None
            if rises is not None:
                later = rises * np.arange(1, rounds + 1)[:, None, None]
                passed.append((np.concatenate(latest) + later).reshape(rounds * period, -1))
                self._set_times(part, self._times_of(part) + rises * rounds)
                number, next_look = number + rounds * period, self.samples
        return np.concatenate(passed, axis=-2)

    def _rises(self, part: Part, enter: Array, steady: Steady, latest: list[Array], gain: float) -> float | None:
        """By how much each period of samples follows the one before, if it is the same for all samples to come.

        Args:
            part: the stages.
            enter: [N, B], times at which the samples of the latest period, and those to come, enter [s].
            steady: the states so far.
            latest: results of the latest period.
            gain: by how much the state grew in the latest period [s].
        """
        period = len(latest)
        exact = alike(enter, period, gain)
        if exact is not None or not never_later(enter, period, gain):
            return exact
        now, never = steady.states[-1], np.full((1, enter.shape[1]), -np.inf)
        self._set_times(part, steady.states[-1 - period])
        unhindered = [self._pass(part, never) for _ in latest]
        same = np.array_equal(now, self._times_of(part))
        self._set_times(part, now)
        waits = not same or any(not np.array_equal(one, other) for one, other in zip(unhindered, latest, strict=True))
        return None if waits else gain

    def _units_of(self, part: Part) -> list[str]:
        """The units of some stages."""
        return sorted({unit for place in range(part.first, part.end) for unit in self._units(part.layer, place)})

    def _times_of(self, part: Part) -> Array:
        """The times at which the units of some stages become free, and those of the last reads of their cells [s]."""
        reads = [time for unit in part.writers() for time in self.readers.get(unit, ())]
        return np.array([*(self.free[unit] for unit in self._units_of(part)), *reads])

    def _set_times(self, part: Part, times: Array) -> None:
        """The reverse of `_times_of`."""
        units = self._units_of(part)
        self.free.update(zip(units, times[: len(units)].tolist(), strict=True))
        reads = iter(times[len(units) :].tolist())
        for unit in part.writers():
            if unit in self.readers:
                sets = self.placement.kv_sets
                self.readers[unit] = deque([next(reads) for _ in self.readers[unit]], sets)

    def _pass(self, part: Part, times: Array) -> Array:
        """The times [n, B] at which blocks leave stages that they enter at `times`."""
        layer = part.layer
        size = self._size(layer.tokens)
        count = -(-layer.tokens // size)
        last: dict[int, float] = {}
        for begin, stop, whole in segments(layer, self.dataflow):
            first, end = max(begin, part.first), min(stop, part.end)
            if first >= end:
                continue
            blocks = 1 if whole else count
            if first == begin and (begin or whole):
                times = _all_at(times, blocks)
            units = [unit for place in range(first, end) for unit in self._units(layer, place)]
            if blocks > 1 and len(set(units)) < len(units):
                times = self._one_by_one(layer, range(first, end), times, size, last)
                continue
            for place in range(first, end):
                times = self._read_before(layer, place, times)
                times = self._stage(layer, place, times, layer.tokens if whole else size)
                last[place] = of_designs(times[..., -1, -1])
        by_writer = {writer_of(layer.stages, place): time for place, time in sorted(last.items())}
        for writer, time in by_writer.items():
            if writer is not None:
                unit = unit_name(layer, layer.stages[writer])
                self.readers.setdefault(unit, deque(maxlen=self.placement.kv_sets)).append(time)
        return times

    def _stage(self, layer: PlacedLayer, place: int, arrival: Array, size: int) -> Array:
        """The times [n, B] at which the results of a stage arrive."""
        stage, units = layer.stages[place], self._units(layer, place)
        (samples, count), size = arrival.shape[-2:], min(size, layer.tokens)
        rest = layer.tokens - (count - 1) * size
        if stage.by_keys is not None and count > 1:
            return self._unequal_blocks(stage, units, arrival, size, rest)
        (busy, time), (last_busy, last_time) = self._times(stage, size), self._times(stage, rest)
        if self.designs == 1 and arrival.size <= FEW_BLOCKS:
            free, start_at, ready_at = self._free_at(units), 0.0, []
            for *rows, last in arrival.tolist():
                for came in rows:
                    start_at = came if came > free else free
                    free = start_at + busy
                    ready_at.append(start_at + time)
                start_at = max(last, free)
                free = start_at + last_busy
                ready_at.append(start_at + last_time)
            self._occupy(stage, units, start_at, last_busy, rest)
            return np.array(ready_at).reshape(arrival.shape)
        sample = np.arange(samples)[:, None] * beside((count - 1) * busy + last_busy, 2)
        start = self._starts(units, arrival, sample + np.arange(count) * beside(busy, 2))
        self._occupy(stage, units, of_designs(start[..., -1, -1]), last_busy, rest)
        ready: Array = start + beside(time, 2)
        ready[..., -1] = start[..., -1] + beside(last_time, 1)
        return ready

    def _unequal_blocks(self, stage: Stage, units: tuple[str, ...], arrival: Array, size: int, rest: int) -> Array:
        """As `_stage`, where later blocks see more keys."""
        busy, late = self._by_block(stage, size)
        ends = np.cumsum(busy, axis=-1)
        before = np.concatenate([np.zeros_like(ends[..., :1]), ends[..., :-1]], axis=-1)
        start = self._starts(units, arrival, np.arange(arrival.shape[-2])[:, None] * ends[..., -1:] + before)
        self._occupy(stage, units, of_designs(start[..., -1, -1]), of_designs(busy[..., 0, -1]), rest)
        ready: Array = start + busy + late
        return ready

    def _by_block(self, stage: Stage, size: int) -> tuple[Array, Array]:
        """`by_block` of a stage whose later blocks see more keys [1, B]."""
        key = id(stage), size
        if key not in self.by_block:
            assert stage.by_keys is not None
            factor, floor = self.speed.get(stage.name, 1.0), beside(stage.floor, 2)
            work = stage.by_keys.by_block(size)[..., None, :]
            busy = np.maximum(floor, work)
            late = np.maximum(floor, beside(stage.fixed, 2) + work) - busy
            self.by_block[key] = busy * factor, late * factor
        return self.by_block[key]

    def _starts(self, units: tuple[str, ...], arrival: Array, before: Array) -> Array:
        """The times [n, B] at which blocks start; blocks before each take the unit for `before` in all."""
        waited = (arrival - before).reshape(*arrival.shape[:-2], -1)
        latest = np.maximum.accumulate(waited, axis=-1).reshape(arrival.shape)
        start: Array = np.maximum(latest, beside(self._free_at(units), 2)) + before
        return start

    def _free_at(self, units: tuple[str, ...]) -> float:
        """The time at which all of these units are free [s]."""
        times = [self.free.get(unit, -np.inf) for unit in units]
        return times[0] if len(times) == 1 else largest(*times)

    def _occupy(self, stage: Stage, units: tuple[str, ...], start: float, busy: float, tokens: int) -> None:
        """Note when the units of a stage become free after a block that starts at `start`."""
        self.free.update(dict.fromkeys(units, start + busy))
        if len(units) > 1 and is_memory(units[-1]):
            self.free[units[-1]] = start + smallest(busy, stage.off_chip * tokens * self.speed.get(stage.name, 1.0))

    def _one_by_one(self, layer: PlacedLayer, places: range, times: Array, size: int, last: dict[int, float]) -> Array:
        """The times [1, B] at which blocks of one sample leave stages that share units."""
        self._count(times.shape[-1] * len(places))
        left = times.copy()
        for block in range(times.shape[-1]):
            tokens = min(size, layer.tokens - block * size)
            now = times[..., block : block + 1]
            for place in places:
                now = self._read_before(layer, place, now) if block == 0 else now
                stage, units = layer.stages[place], self._units(layer, place)
                if stage.by_keys is None or times.shape[-1] == 1:
                    busy, time = self._times(stage, tokens)
                else:
                    busy, late = (of_designs(each[..., 0, block]) for each in self._by_block(stage, size))
                    time = busy + late
                start = largest(of_designs(now[..., 0, 0]), self._free_at(units))
                self._occupy(stage, units, start, busy, tokens)
                last[place] = start + time
                now = np.array(beside(last[place], 2), ndmin=2)
            left[..., block] = now[..., 0]
        return left

    def _read_before(self, layer: PlacedLayer, place: int, times: Array) -> Array:
        """Delay the first block of a write stage until the cells that it overwrites have been read."""
        stage = layer.stages[place]
        sets = sets_of_cells(self.placement, layer, stage) if stage.name == "write" else None
        uses = self.readers.get(unit_name(layer, stage), ())
        if sets is None or len(uses) < sets:
            return times
        delayed = times.copy()
        delayed[..., 0, 0] = np.maximum(delayed[..., 0, 0], beside(uses[-sets], 0))
        return delayed

    def _times(self, stage: Stage, tokens: int) -> tuple[float, float]:
        """Time of a block for which its unit is busy, and until its result has arrived [s]."""
        key = id(stage), tokens
        if key not in self.times:
            factor = self.speed.get(stage.name, 1.0)
            self.times[key] = stage.occupancy(tokens) * factor, stage.time(tokens) * factor
        return self.times[key]

    def _size(self, tokens: int) -> int:
        """Tokens per block."""
        return self.dataflow.size_of_block(tokens) if self.block is None else min(self.block, tokens)

    def _allow(self, count: int, stages: int) -> None:
        self.values += count * self.samples * self.designs * stages
        if self.values > MOST_VALUES or count * self.samples > MOST_AT_ONCE:
            self._refuse(count * self.samples)

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            self._refuse(self.steps)

    def _refuse(self, number: int) -> None:
        raise BadInput(
            f"model.batch = {self.placement.workload.batch}: takes {number:,} or more steps one after another, too "
            "many to compute; lower batch or seq_len, raise dataflow.block, or set dataflow.batching = 'serial'"
        )


def _all_at(times: Array, blocks: int) -> Array:
    """The times [N, blocks] of blocks that all arrive with the last block of their sample."""
    return np.broadcast_to(times[..., -1:], (*times.shape[:-1], blocks)).copy()
