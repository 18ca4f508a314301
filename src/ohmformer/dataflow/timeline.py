"""The timeline: when every job ran. Latency, energy, utilization and the critical path are read from here alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.machine.refresh import REFRESH
from ohmformer.cost.placement import Placement
from ohmformer.cost.power.standing import standing_stage
from ohmformer.cost.stage import CONDITIONING, By, Stage
from ohmformer.dataflow.event_engine import Schedule, run_jobs
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.jobs import jobs_of
from ohmformer.dataflow.layer_cuts import segments
from ohmformer.dataflow.retention.pass_ages import TimedPass, pass_ages
from ohmformer.dataflow.retention.pauses import Pauses
from ohmformer.dataflow.spec import Dataflow
from ohmformer.hardware.ages import Ages
from ohmformer.workload.spec import StaticMatMul


@dataclass(frozen=True)
class Timeline:
    """The jobs of a placement under a dataflow, and when they ran.

    Attributes:
        placement: the workload on the accelerator.
        dataflow: the order of work.
        jobs: in program order.
        schedule: start and end of every job, in time of computing, without refreshes.
    """

    placement: Placement
    dataflow: Dataflow
    jobs: tuple[Job, ...]
    schedule: Schedule

    def __repr__(self) -> str:
        """Placement, dataflow and number of jobs in one line."""
        return f"Timeline({self.placement!r}, dataflow {self.dataflow.kind}, jobs {len(self.jobs):,})"

    @cached_property
    def work(self) -> float:
        """Time of computing, from the first start to the last end, for all samples [s]; refreshes are left out."""
        return max(self.schedule.ready)

    @cached_property
    def refreshes(self) -> int:
        """Number of refreshes of keys and values during the pass."""
        return self.placement.refresh.count(self.work) if self.placement.refresh else 0

    @cached_property
    def latency(self) -> float:
        """Time from the first start to the last end, for all samples, refreshes included [s]."""
        return self.placement.refresh.latency(self.work) if self.placement.refresh else self.work

    @property
    def pauses(self) -> Pauses | None:
        """The refreshes during the pass; None if there are none."""
        refresh = self.placement.refresh
        return Pauses(refresh.work, np.full(self.refreshes, refresh.seconds)) if refresh and self.refreshes else None

    @cached_property
    def gated(self) -> float:
        """Energy of gated tiles at work: their standing power times the time for which their stages work [J]."""
        return sum(job.stage.standing * job.duration for job in self.jobs)

    @cached_property
    def energy(self) -> float:
        """Energy of all samples, standing power included [J]."""
        return sum(self.energy_by("component").values())

    @property
    def power(self) -> float:
        """Mean power [W]."""
        return self.energy / self.latency

    def energy_by(self, kind: By) -> dict[str, float]:
        """Energy [J] by component, operation (stage) or engine.

        The entry `static` is the energy of standing power: that of the chip times the latency, and that of gated tiles
        times the time for which their stages work, or cells of K and V are refreshed.
        """
        refresh, static = self.placement.refresh, self.placement.power * self.latency + self.gated
        further: list[tuple[Stage, float]] = []
        if refresh and self.refreshes:
            further.append((refresh.stage, self.refreshes))
            static += refresh.static * self.refreshes
        if static:
            further.append((standing_stage(static), 1))
        return self.placement.energy_by(kind, further)

    @cached_property
    def busy(self) -> dict[str, float]:
        """Unit -> time during which it is busy [s]."""
        seconds: dict[str, float] = {}
        for number in range(len(self.jobs)):
            for unit, busy in self._units(number):
                seconds[unit] = seconds.get(unit, 0.0) + busy
        return seconds

    def _units(self, number: int) -> list[tuple[str, float]]:
        """The units that a job occupied, each with the time from its start [s]."""
        (own, seconds), *further = self.jobs[number].units()
        return [(self.schedule.member.get(number, own), seconds), *further]

    @property
    def utilization(self) -> dict[str, float]:
        """Engine -> fraction of the latency during which at least one of its units is busy."""
        spans: dict[str, list[tuple[float, float]]] = {"projection": [], "attention": []}
        for number in range(len(self.jobs)):
            for part, start, seconds in self._parts(number):
                spans.setdefault(part.engine, []).append((start, start + seconds))
        busy = {engine: _covered(intervals) for engine, intervals in spans.items()}
        busy["attention"] += self.latency - self.work
        return {engine: seconds / self.latency for engine, seconds in busy.items()}

    def critical_path(self) -> list[int]:
        """Positions of a chain of jobs from the first start to the last result.

        Each starts when its predecessor ends or, if it needs the result, when that has arrived.
        """
        number = max(range(len(self.jobs)), key=self.schedule.ready.__getitem__)
        path = [number]
        while self.schedule.cause[number] >= 0:
            number = self.schedule.cause[number]
            path.append(number)
        return path[::-1]

    def critical_stages(self) -> dict[str, float]:
        """Stage -> its time on the critical path [s]; the times add up to the latency."""
        by_stage: dict[str, float] = {}
        path = self.critical_path()
        for place, number in enumerate(path):
            parts = [(part.name, seconds) for part, _, seconds in self._parts(number)]
            end = self.schedule.start[path[place + 1]] if place + 1 < len(path) else self.work
            if end != self.schedule.end[number]:  # a result arrives later, or memory is free earlier
                parts.append((parts[-1][0], end - self.schedule.end[number]))
            for name, seconds in parts:
                by_stage[name] = by_stage.get(name, 0.0) + seconds
        if self.refreshes:
            by_stage[REFRESH] = self.latency - self.work
        return by_stage

    def _parts(self, number: int) -> Iterator[tuple[Stage, float, float]]:
        """The stages of a job (several if it is a merged stage): stage, start [s] and duration [s]."""
        job, now = self.jobs[number], self.schedule.start[number]
        if not job.stage.merged_from:
            yield job.stage, now, job.duration
            return
        tokens = job.share * self.placement.workload.batch * self.placement.layers[job.layer].tokens
        for part in job.stage.merged_from:
            seconds = part.occupancy(tokens, job.first) if job.lag else part.time(tokens, job.first)
            yield part, now, seconds
            now += seconds

    def ages(self, sample: int = 0) -> Ages:
        """How old keys and values in cells are when they are read, and how often their cells are written.

        Args:
            sample: number of the sample of the batch.

        Raises:
            BadInput: see `retention.pass_ages.pass_ages`.
        """
        return pass_ages(self.timed_pass, sample, self.pauses, self.latency)

    @property
    def timed_pass(self) -> TimedPass:
        """The jobs, and when they ran."""
        return TimedPass(self.placement, self.jobs, self.schedule, self.work)

    def peak_buffer(self) -> dict[str, float]:
        """Largest number of bytes that memories must hold at once, by use.

        Returns:
            `scores`: attention scores between Q K^T and P V: all heads, one block of queries against one block of keys,
            since softmax can normalize afterward. Layer by layer, a block is the whole sequence.
            `tokens`: activations between layers.
            `conditioning`: only if K and V are conditioned: constants of all layers, and the scales and means of the
            tokens that are in cells.
            `kept_on_chip`, `kept_off_chip`: only if it is not 0: weights, keys, values and embedding tables in the
            memories of tiles, and in the memory off the chip.
        """
        size = self.placement.hardware.value_bytes
        scores, tokens = 0.0, 0.0
        for layer in self.placement.layers:
            if layer.scores is not None:
                heads, queries, keys = layer.scores
                rows, columns = self.dataflow.size_of_block(queries), self.dataflow.size_of_block(keys)
                scores = max(scores, heads * rows * columns * size)
            tokens = max(tokens, float(layer.tokens))
        width = max((op.inputs for op in _layer_weights(self.placement)), default=0)
        states = [layer.digital_state for layer in self.placement.layers]
        values = sum(state.constants + state.own for state in states) + max(state.shared for state in states)
        conditioning = {CONDITIONING: values * size} if values else {}
        homes = self.placement.homes
        kept = {"kept_on_chip": sum(homes.on_chip.values()), "kept_off_chip": sum(homes.off_chip.values())}
        kept = {name: held for name, held in kept.items() if held}
        return {"scores": scores, "tokens": tokens * width * size, **conditioning, **kept}

    def chrome_trace(self) -> dict[str, Any]:
        """The timeline in the trace-event format of chrome://tracing and Perfetto: one track per unit, times in us.

        `arrives` of a job is the time at which its result has passed pipelines and links. A refresh has a track of its
        own; jobs stop meanwhile.
        """
        return trace([(self, {})], self.pauses)

    def events(self, units: dict[str, int], start: float, pauses: Pauses | None) -> Iterator[dict[str, Any]]:
        """The events of a trace, one for each job and unit.

        Args:
            units: unit -> number of its track.
            start: time of computing before this pass [s].
            pauses: the refreshes; None for none.
        """
        begins, ends, arrivals = (
            np.array(times) + start for times in (self.schedule.start, self.schedule.end, self.schedule.ready)
        )
        durations, memory = (np.array([(job.duration, job.memory) for job in self.jobs])).T
        if pauses is not None:
            freed = pauses.end(begins + memory)
            begins, ends, arrivals = pauses.start(begins), pauses.end(ends), pauses.end(arrivals)
            durations, memory = np.maximum(ends - begins, 0.0), np.maximum(freed - begins, 0.0)
        for number, job in enumerate(self.jobs):
            layer = self.placement.layers[job.layer].name
            for unit, _ in self._units(number):
                busy = memory[number] if unit == job.memory_unit != job.unit else durations[number]
                yield {
                    "name": job.stage.name,
                    "cat": job.stage.engine,
                    "ph": "X",
                    "pid": 1,
                    "tid": units[unit],
                    "ts": float(begins[number]) * 1e6,
                    "dur": float(busy) * 1e6,
                    "args": {
                        "layer": layer,
                        "sample": job.sample,
                        "block": job.block,
                        "arrives": float(arrivals[number]) * 1e6,
                    },
                }


def trace(passes: Sequence[tuple[Timeline, dict[str, Any]]], pauses: Pauses | None) -> dict[str, Any]:
    """Passes that follow one another in the trace-event format.

    Args:
        passes: each with more `args` for its events.
        pauses: the refreshes; None for none.
    """
    units: dict[str, int] = {}
    for unit in (unit for timeline, _ in passes for unit in timeline.busy):
        units.setdefault(unit, len(units) + 1)
    if pauses is not None:
        units[REFRESH] = len(units) + 1
    events, start = list(_tracks(units)), 0.0
    for timeline, more in passes:
        for event in timeline.events(units, start, pauses):
            event["args"].update(more)
            events.append(event)
        start += timeline.work
    if pauses is not None:
        for begin, seconds in zip(pauses.starts, pauses.seconds, strict=True):
            span = {"ts": float(begin) * 1e6, "dur": float(seconds) * 1e6}
            events.append(
                {"name": REFRESH, "cat": "attention", "ph": "X", "pid": 1, "tid": units[REFRESH], **span, "args": {}}
            )
    return {"displayTimeUnit": "ns", "traceEvents": events}


def build_timeline(placement: Placement, dataflow: Dataflow) -> Timeline:
    """Run the jobs of a placement under a dataflow through the event engine.

    Raises:
        BadInput: the dataflow defines jobs that cannot run.
    """
    jobs = jobs_of(placement, dataflow)
    return Timeline(placement, dataflow, tuple(jobs), run_jobs(jobs))


def gated_energy(placement: Placement, dataflow: Dataflow) -> float:
    """Energy of gated tiles: their standing power times the time for which each stage occupies its unit [J].

    It does not depend on the order of jobs. It equals that of the event engine up to rounding.
    """
    layers = placement.distinct()
    if not any(stage.standing for layer, _ in layers for stage in layer.all_stages()):
        return 0.0
    if not dataflow.has_closed_form:
        return build_timeline(placement, dataflow).gated
    sizes = placement.workload.batch, placement.weight_uses
    return sum(count * gated_energy_of(layer, dataflow, *sizes) for layer, count in layers)


def gated_energy_of(layer: PlacedLayer, dataflow: Dataflow, batch: int, weight_uses: int) -> float:
    """Energy of the gated tiles of one layer, for all samples [J].

    Args:
        layer: the layer, priced.
        dataflow: one in blocks.
        batch: number of samples.
        weight_uses: how often the weights of the layer are loaded.
    """
    size = dataflow.size_of_block(layer.tokens)
    blocks, rest = divmod(layer.tokens, size)
    total = weight_uses * layer.setup.standing * layer.setup.time(1) if layer.setup is not None else 0.0
    for first, end, whole in segments(layer, dataflow):
        for stage in layer.stages[first:end]:
            seconds = stage.occupancy(layer.tokens)
            if not whole and stage.by_keys is None:  # times by keys add up over blocks
                seconds = blocks * stage.occupancy(size) + stage.occupancy(rest)
            total += batch * stage.standing * seconds
    return total


def _tracks(units: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The events of `chrome_trace` that name its tracks: unit -> number of its track."""
    yield {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "accelerator"}}
    for unit, number in units.items():
        yield {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": unit}}
        yield {"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": number, "args": {"sort_index": number}}


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of (start, end) intervals."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _layer_weights(placement: Placement) -> Iterator[StaticMatMul]:
    return (op for op in placement.workload.ops if isinstance(op, StaticMatMul) and op.layer is not None)
