"""What happened when: the one place from which latency, energy, utilisation and the critical path are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ohmformer.cost.cost import add_energy
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import CONDITIONING, By, Stage, total_energy
from ohmformer.dataflow.event_engine import Schedule, run_tasks
from ohmformer.dataflow.job import Task
from ohmformer.dataflow.jobs import tasks_of
from ohmformer.dataflow.spec import Dataflow
from ohmformer.hardware.spec import ArrayEngine, GpuEngine
from ohmformer.workload.spec import StaticMatMul


@dataclass(frozen=True)
class Timeline:
    """Tasks of a placement under a dataflow, and when they ran."""

    placement: Placement
    dataflow: Dataflow
    tasks: tuple[Task, ...]
    schedule: Schedule

    @cached_property
    def latency(self) -> float:
        """From the first start to the last end, for all samples [s]."""
        return max(self.schedule.end)

    @property
    def throughput(self) -> float:
        """Samples per second, one workload after another."""
        return self.placement.workload.batch / self.latency

    @cached_property
    def energy(self) -> float:
        """Energy of all samples, what is drawn all the time included [J]."""
        return sum(self.energy_by("component").values())

    @property
    def power(self) -> float:
        """Mean power [W]."""
        return self.energy / self.latency

    def energy_by(self, kind: By) -> dict[str, float]:
        """Energy [J] by component (what draws it), operation (stage) or engine; `static` is drawn all the time."""
        found = total_energy(((task.stage, task.share) for task in self.tasks), kind)
        static = self.placement.power * self.latency
        return add_energy(found, {"static": static}) if static else found

    @cached_property
    def busy(self) -> dict[str, float]:
        """Unit -> seconds at work."""
        found: dict[str, float] = {}
        for task in self.tasks:
            found[task.unit] = found.get(task.unit, 0.0) + task.duration
        return found

    @property
    def utilization(self) -> dict[str, float]:
        """Engine -> share of the time in which at least one of its units is at work."""
        spans: dict[str, list[tuple[float, float]]] = {"projection": [], "attention": []}
        for number in range(len(self.tasks)):
            for part, start, seconds in self._parts(number):
                spans[part.engine].append((start, start + seconds))
        return {engine: _covered(found) / self.latency for engine, found in spans.items()}

    @property
    def occupancy(self) -> dict[str, float]:
        """Unit -> share of the time in which it is at work."""
        return {unit: seconds / self.latency for unit, seconds in self.busy.items()}

    def critical_path(self) -> list[int]:
        """Tasks of which each started when the one before it ended, from the first start to the last end."""
        number = max(range(len(self.tasks)), key=self.schedule.end.__getitem__)
        found = [number]
        while self.schedule.cause[number] >= 0:
            number = self.schedule.cause[number]
            found.append(number)
        return found[::-1]

    def critical_stages(self) -> dict[str, float]:
        """Stage -> seconds that it has on the critical path; they add up to the latency."""
        found: dict[str, float] = {}
        for number in self.critical_path():
            for part, _, seconds in self._parts(number):
                found[part.name] = found.get(part.name, 0.0) + seconds
        return found

    def _parts(self, number: int) -> Iterator[tuple[Stage, float, float]]:
        """The stages that a task stands for, when each starts and how long it takes."""
        task, now = self.tasks[number], self.schedule.start[number]
        if not task.stage.merged_from:
            yield task.stage, now, task.duration
            return
        tokens = task.share * self.placement.workload.batch * self.placement.layers[task.layer].tokens
        for part in task.stage.merged_from:
            seconds = part.time(tokens)
            yield part, now, seconds
            now += seconds

    def peak_buffer(self) -> dict[str, float]:
        """Bytes that have to be held at once: `scores` between Q K^T and P V, and `tokens` between layers.

        Scores are those of all heads for a block of queries against a block of keys, since softmax can normalise
        afterwards; layer by layer they are those of the whole sequence. `conditioning` is there where K and V are
        conditioned: constants of all layers, scales and means of the tokens that are in cells.
        """
        size = _bytes_per_value(self.placement)
        scores, tokens = 0.0, 0.0
        for layer in self.placement.layers:
            if layer.scores is not None:
                heads, queries, keys = layer.scores
                rows, columns = self.dataflow.size_of_block(queries), self.dataflow.size_of_block(keys)
                scores = max(scores, heads * rows * columns * size)
            tokens = max(tokens, float(layer.tokens))
        width = max((op.inputs for op in _weights(self.placement)), default=0)
        states = [layer.digital_state for layer in self.placement.layers]
        values = sum(each.constants + each.with_tokens for each in states) + max(each.shared for each in states)
        own = {CONDITIONING: values * size} if values else {}
        return {"scores": scores, "tokens": tokens * width * size, **own}

    def chrome_trace(self) -> dict[str, Any]:
        """Events for chrome://tracing and Perfetto: one track for each unit, times in microseconds."""
        units = {unit: number for number, unit in enumerate(self.busy, 1)}
        return {"displayTimeUnit": "ns", "traceEvents": [*_tracks(units), *self._events(units)]}

    def _events(self, units: dict[str, int]) -> Iterator[dict[str, Any]]:
        for number, task in enumerate(self.tasks):
            layer = self.placement.layers[task.layer].name
            yield {
                "name": task.stage.name,
                "cat": task.stage.engine,
                "ph": "X",
                "pid": 1,
                "tid": units[task.unit],
                "ts": self.schedule.start[number] * 1e6,
                "dur": task.duration * 1e6,
                "args": {"layer": layer, "sample": task.sample, "block": task.block},
            }


def simulate(placement: Placement, dataflow: Dataflow) -> Timeline:
    """Run a placement under a dataflow through the event engine."""
    tasks = tasks_of(placement, dataflow)
    return Timeline(placement, dataflow, tuple(tasks), run_tasks(tasks))


def _tracks(units: dict[str, int]) -> Iterator[dict[str, Any]]:
    yield {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "accelerator"}}
    for unit, number in units.items():
        yield {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": unit}}
        yield {"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": number, "args": {"sort_index": number}}


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _weights(placement: Placement) -> Iterator[StaticMatMul]:
    return (op for op in placement.workload.ops if isinstance(op, StaticMatMul) and op.layer is not None)


def _bytes_per_value(placement: Placement) -> float:
    match placement.hardware.projection:
        case ArrayEngine(array=array):
            return array.inputs.bits / 8
        case GpuEngine(bytes_per_value=size):
            return size
    return 1.0
