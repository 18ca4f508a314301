"""The latency of any dataflow in blocks: a max-plus recursion over stages, with all blocks and samples at once.

On one unit block b starts at start(b) = max(arrival(b), start(b - 1) + p(b - 1)). With c(b), the sum of p before b,
start(b) - c(b) is the running maximum of arrival(b) - c(b), so one pass over an array serves all blocks and samples of
a stage. A stage that waits for all tokens takes the last arrival of its sample for all blocks.

A layer adds the same shift to its results that is added to all its inputs and to the state of shared units. So when
equal layers have shifted all of them by one constant, equal layers that follow add this constant again (see
`steady.py`). The same holds for samples that pass through a layer one after another.

Designs that differ in their times and block sizes alone pass together: a time of a unit is then an array [D], and
arrays of times have a last axis of designs. Their empty blocks (see `blocks/block_times.py`) delay nothing: they arrive
with the first block or before it, and leave at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage, is_memory
from ohmformer.dataflow.blocks.block_times import BlockTimes, IntArray
from ohmformer.dataflow.blocks.layer_plan import LayerPlan, Plans, Range, StageRun, Step
from ohmformer.dataflow.blocks.too_large import too_large
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.steady import Steady, alike, never_later
from ohmformer.errors import BadInput

Array = npt.NDArray[np.float64]
Time = Any
"""A time of one design as a number, or of D designs as an array [D] [s]."""

NEVER = -np.inf
"""The time at which a unit that has not been used became free."""
MOST_VALUES = 300_000_000
"""Maximum number of blocks times stages that are computed, which take about 10 s."""
MOST_VALUES_OF_DESIGNS = 30_000_000
"""The same for designs that are computed together; beyond it, each is computed alone."""
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
    sizes: Mapping[int, int] | None = None,
) -> float:
    """The latency of all samples [s].

    Args:
        placement: the workload on the accelerator.
        dataflow: one without jobs of its own.
        speed: stage name -> factor by which its times are multiplied.
        sizes: tokens of a layer -> tokens per block; by default those of the dataflow.

    Raises:
        BadInput: there are too many blocks or samples to compute.
    """
    if sizes is None:
        sizes = {tokens: dataflow.size_of_block(tokens) for tokens in {layer.tokens for layer in placement.layers}}
    return float(_Flow(Plans(placement, dataflow), BlockTimes(sizes, None, speed or {}, None)).run())


def recursive_latencies(
    plans: Plans,
    sizes: Mapping[int, IntArray],
    places: IntArray | None = None,
    speed: Mapping[str, Array] | None = None,
) -> Array:
    """The latencies of D designs that pass the recursion together [D] [s].

    Args:
        plans: the plans of their layers.
        sizes: tokens of a layer -> tokens per block of each design [D].
        places: for each design, the place of its accelerator among those that were priced at once [D]; None if all
            have the same one.
        speed: stage name -> factor by which its times are multiplied, for each design [D].

    Raises:
        BadInput: there are too many blocks or samples to compute.
    """
    designs = len(next(iter(sizes.values())))
    found: Array = _Flow(plans, BlockTimes(sizes, places, speed or {}, designs)).run()
    return found


class _Flow:
    """The state between two layers. Arrays have a last axis of designs if there are several.

    Attributes:
        plans: the plans of layers.
        times: the times of blocks.
        single: True for one design, False for an axis of designs.
        samples: N, samples that are computed together.
        arrived: [N, B], times at which blocks left the last layer [s].
        tokens: tokens of a sample in the last layer.
        free: unit -> time at which it becomes free [s].
        readers: unit of a write stage -> times of the last reads of its cells, for the latest uses [s].
        values: blocks times stages so far.
        steps: steps so far that take blocks or samples one by one.
    """

    def __init__(self, plans: Plans, times: BlockTimes) -> None:
        self.plans, self.times = plans, times
        self.placement, self.samples = plans.placement, plans.samples
        self.overlaps = plans.dataflow.decides("overlaps")
        self.arrived: Array = np.zeros((self.samples, 1, *([times.designs] if times.designs else ())))
        self.single = times.designs is None
        self.tokens = 0
        self.free: dict[str, Time] = {}
        self.readers: dict[str, deque[Time]] = {}
        self.values = self.steps = 0

    def run(self) -> Time:
        """Layer by layer; equal layers that only shift the state are skipped."""
        layers = self.placement.layers
        ahead = self.plans.ahead
        index, steady = 0, Steady()
        while index < len(layers):
            layer = layers[index]
            plan = self.plans.of(index)
            self._layer(layer, plan)
            if not ahead[index]:
                steady = Steady()
            elif found := steady.add(self._state(plan)):
                period, gain = found
                self._move(plan, gain * (ahead[index] // period))
                index += ahead[index] // period * period
                steady = Steady()
            index += 1
        times = self.placement.workload.batch if self.plans.dataflow.batching == "serial" else 1
        return self.arrived.max(axis=(0, 1)) * times

    def _state(self, plan: LayerPlan) -> Array:
        """All times that decide what follows, along the first axis."""
        shared = [self.free[unit] for unit in plan.shared]
        reads = [time for unit in self._cells(plan) for time in self.readers[unit]]
        arrived = self.arrived.reshape(-1, *self.arrived.shape[2:])
        return np.concatenate([arrived, np.array([*shared, *reads])]) if shared or reads else arrived

    def _move(self, plan: LayerPlan, gain: Time) -> None:
        self.arrived = self.arrived + gain
        for unit in plan.shared:
            self.free[unit] = self.free[unit] + gain
        for unit in self._cells(plan):
            self.readers[unit] = deque((time + gain for time in self.readers[unit]), self.placement.kv_sets)

    def _cells(self, plan: LayerPlan) -> list[str]:
        """Units that write cells which layers share, as far as something has read these cells."""
        return [unit for unit in plan.cells if unit in self.readers]

    def _layer(self, layer: PlacedLayer, plan: LayerPlan) -> None:
        """Pass all samples through a layer."""
        count = self.times.cut(layer.tokens).most
        self._allow(count, len(layer.stages))
        same = self.overlaps and (self.tokens, self.arrived.shape[1]) == (layer.tokens, count)
        enter = self.arrived if same else _all_at(self.arrived, count)
        if layer.setup is not None and plan.setup is not None:
            begin = self._latest(self.arrived[0, -1], self.free.get(plan.setup, 0.0))
            self.free[plan.setup] = begin + self.times.setup(layer.setup)
            enter = enter.copy()
            enter[0] = np.maximum(enter[0], self.free[plan.setup])
        for part in plan.ranges:
            enter = (self._in_turn if part.in_turn else self._pass)(layer, part, enter)
        self.arrived, self.tokens = self._with_first(enter, layer.tokens), layer.tokens
        for unit in plan.own:
            self.free.pop(unit, None)
            self.readers.pop(unit, None)

    def _with_first(self, times: Array, tokens: int) -> Array:
        """The times [N, B] at which blocks leave a layer, those of empty blocks set to that of the first one."""
        cut = self.times.cut(tokens)
        if cut.empty is None or times.shape[1] < cut.most:
            return times
        first = np.take_along_axis(times, cut.empty[None, None], axis=1)
        return np.where(cut.filled > 0, times, first)

    def _in_turn(self, layer: PlacedLayer, part: Range, enter: Array) -> Array:
        """The times [N, B] at which samples leave stages that they pass one after another.

        Args:
            layer: the layer.
            part: the stages.
            enter: [N, B], times at which the blocks enter them [s].
        """
        passed: list[Array] = []
        steady, number, next_look = Steady(), 0, 1
        stages = sum(len(run.steps) for run in part.runs)
        while number < self.samples:
            self._count(STEPS_PER_PASS * stages)
            passed.append(self._pass(layer, part, enter[number : number + 1]))
            number += 1
            found = steady.add(self._times_of(part)) if self.single else None
            if not found or number < next_look:
                continue
            (period, gain), next_look = found, 2 * number
            rounds, latest = (self.samples - number) // period, passed[-period:]
            rises = self._rises(layer, part, enter[number - period :], steady, latest, gain) if rounds else None
            if rises is not None:
                later = rises * np.arange(1, rounds + 1)[:, None, None]
                passed.append((np.concatenate(latest) + later).reshape(rounds * period, -1))
                self._set_times(part, self._times_of(part) + rises * rounds)
                number, next_look = number + rounds * period, self.samples
        return np.concatenate(passed)

    def _rises(
        self, layer: PlacedLayer, part: Range, enter: Array, steady: Steady, latest: list[Array], gain: float
    ) -> float | None:
        """By how much each period of samples follows the one before, if it is the same for all samples to come.

        Args:
            layer: the layer.
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
        unhindered = [self._pass(layer, part, never) for _ in latest]
        same = np.array_equal(now, self._times_of(part))
        self._set_times(part, now)
        waits = not same or any(not np.array_equal(one, other) for one, other in zip(unhindered, latest, strict=True))
        return None if waits else gain

    def _times_of(self, part: Range) -> Array:
        """The times at which the units of some stages become free, and those of the last reads of their cells [s]."""
        reads = [time for unit in part.writers for time in self.readers.get(unit, ())]
        return np.array([*(self.free[unit] for unit in part.units), *reads])

    def _set_times(self, part: Range, times: Array) -> None:
        """The reverse of `_times_of`."""
        self.free.update(zip(part.units, times[: len(part.units)].tolist(), strict=True))
        reads = iter(times[len(part.units) :].tolist())
        for unit in part.writers:
            if unit in self.readers:
                sets = self.placement.kv_sets
                self.readers[unit] = deque([next(reads) for _ in self.readers[unit]], sets)

    def _pass(self, layer: PlacedLayer, part: Range, times: Array) -> Array:
        """The times [n, B] at which blocks leave stages that they enter at `times`."""
        count = self.times.cut(layer.tokens).most
        last: dict[int, Time] = {}
        for run in part.runs:
            blocks = 1 if run.whole else count
            if run.waits:
                times = _all_at(times, blocks)
            if blocks > 1 and run.repeats:
                times = self._one_by_one(layer, run, times, last)
                continue
            for step in run.steps:
                times = self._stage(layer, step, times, run.whole)
                last[step.place] = times[-1, -1]
        for place, writer in part.reads:
            self.readers.setdefault(writer, deque(maxlen=self.placement.kv_sets)).append(last[place])
        return times

    def _stage(self, layer: PlacedLayer, step: Step, arrival: Array, whole: bool) -> Array:
        """The times [n, B] at which the results of a stage arrive."""
        stage, (samples, count) = layer.stages[step.place], arrival.shape[:2]
        if self.single and arrival.size <= FEW_BLOCKS and (stage.by_keys is None or count == 1):
            return self._few(layer, step, arrival, whole)
        blocks = self.times.blocks(stage, layer.tokens, whole, samples)
        ready: Array = arrival - blocks.before
        ready[0, 0] = self._latest(ready[0, 0], self._free_at(step))
        latest = ready.reshape(-1, *ready.shape[2:])
        np.maximum.accumulate(latest, axis=0, out=latest)
        ready += blocks.before
        self._occupy(stage, step.units, ready[-1, -1], blocks.last_busy, blocks.rest)
        for delay in blocks.delays:
            ready += delay
        return ready

    def _few(self, layer: PlacedLayer, step: Step, arrival: Array, whole: bool) -> Array:
        """As `_stage`, for a few blocks of one design."""
        stage = layer.stages[step.place]
        size, rest = self.times.size_and_rest(layer.tokens, whole)
        (busy, time), (last_busy, last_time) = self.times.of_block(stage, size), self.times.of_block(stage, rest)
        free, start_at, ready_at = self._free_at(step), 0.0, []
        for *rows, last in arrival.tolist():
            for came in rows:
                start_at = came if came > free else free
                free = start_at + busy
                ready_at.append(start_at + time)
            start_at = max(last, free)
            free = start_at + last_busy
            ready_at.append(start_at + last_time)
        self._occupy(stage, step.units, start_at, last_busy, rest)
        return np.array(ready_at).reshape(arrival.shape)

    def _free_at(self, step: Step) -> Time:
        """The time from which a stage may take the first block: its units are free, and cells that it overwrites read.

        Later blocks follow the first one on the same units, so the time holds for them, too.
        """
        times = [self.free.get(unit, NEVER) for unit in step.units]
        if step.sets is not None and len(uses := self.readers.get(step.units[0], ())) >= step.sets:
            times.append(uses[-step.sets])
        return times[0] if len(times) == 1 else self._latest(*times)

    def _latest(self, *times: Time) -> Time:
        """The latest of some times, for each design."""
        return float(max(times)) if self.single else reduce(np.maximum, times)

    def _occupy(self, stage: Stage, units: tuple[str, ...], start: Time, busy: Time, tokens: Time) -> None:
        """Note when the units of a stage become free after a block that starts at `start`."""
        free = start + busy
        for unit in units:
            self.free[unit] = free
        if len(units) > 1 and is_memory(units[-1]):
            memory = self.times.memory(stage, tokens)
            self.free[units[-1]] = start + (min(busy, memory) if self.single else np.minimum(busy, memory))

    def _one_by_one(self, layer: PlacedLayer, run: StageRun, times: Array, last: dict[int, Time]) -> Array:
        """The times [1, B] at which blocks of one sample leave stages that share units."""
        count = times.shape[1]
        self._count(count * len(run.steps))
        left = times.copy()
        size, rest = self.times.size_and_rest(layer.tokens, False)
        empty = self.times.cut(layer.tokens).empty
        latest_first = 0 if empty is None else int(empty.max())
        for block in range(count):
            tokens, now = (size if block < count - 1 else rest), times[:, block : block + 1]
            before = dict(self.free) if block < latest_first else {}
            for step in run.steps:
                stage = layer.stages[step.place]
                if stage.by_keys is None:
                    busy, time = self.times.of_block(stage, tokens)
                else:
                    busy, late = (each[block] for each in self.times.blocks(stage, layer.tokens, False, 1).delays)
                    time = busy + late
                start = self._latest(now[0, 0], self._free_at(step))
                self._occupy(stage, step.units, start, busy, tokens)
                last[step.place] = start + time
                now = np.array(last[step.place])[None, None]
            left[:, block] = now[:, 0]
            if empty is not None and block < latest_first:
                self._undo(run, before, block < empty)
                left[:, block] = np.where(block < empty, times[:, block], left[:, block])
        return left

    def _undo(self, run: StageRun, before: dict[str, Time], empty: npt.NDArray[np.bool_]) -> None:
        """Make the units of some stages as they were before a block, in designs in which it is empty [D]."""
        for unit in {unit for step in run.steps for unit in step.units}:
            self.free[unit] = np.where(empty, before.get(unit, NEVER), self.free[unit])

    def _allow(self, count: int, stages: int) -> None:
        self.values += count * self.samples * (self.times.designs or 1) * stages
        most = MOST_VALUES if self.single else MOST_VALUES_OF_DESIGNS
        if self.values > most or count * self.samples > MOST_AT_ONCE:
            self._refuse(count * self.samples)

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            self._refuse(self.steps)

    def _refuse(self, number: int) -> None:
        serial = ["set dataflow.batching = 'serial'"] if self.samples > 1 else []
        what = f"{number:,} or more steps one after another, too many to compute"
        raise BadInput(too_large(self.placement, self.plans.dataflow, what, serial))


def _all_at(times: Array, blocks: int) -> Array:
    """The times [N, blocks] of blocks that all arrive with the last block of their sample."""
    return times[:, -1:].repeat(blocks, axis=1)
