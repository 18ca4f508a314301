"""Builds the jobs of a dataflow: which unit each occupies, for how long, and which jobs must end before it.

Samples follow one another layer by layer: a unit takes the jobs of all samples in a layer before those of the next
layer. A sample starts a layer when it has left the previous layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isclose

from ohmformer.cost.placement import PlacedLayer, Placement
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.spec import Dataflow
from ohmformer.errors import BadInput
from ohmformer.registry import called


def unit_name(layer: PlacedLayer, stage: Stage) -> str:
    """Name of the unit that a stage occupies: the same for all layers if they share it."""
    return stage.unit if stage.shared else f"{layer.name}: {stage.unit}"


def cuts_of(layer: PlacedLayer, dataflow: Dataflow) -> tuple[int, int]:
    """The positions (gather, join) that cut a layer's stages into three segments.

    Stages before `gather` and from `join` on take the sequence block by block; stages between take it whole. A segment
    starts when the one before it has finished all blocks.

    Returns:
        (0, 0) if no stage waits for all blocks; gather = join if only the stage `join` does.
    """
    if layer.join is None or not called(dataflow, "joins"):
        return 0, 0
    return layer.join if layer.gather is None else layer.gather, layer.join


def writer_of(stages: tuple[Stage, ...], index: int) -> int | None:
    """Position of the stage that writes the cells which the stage at `index` reads; None if it reads no such cells."""
    if stages[index].engine != "attention" or stages[index].name in ("write", CONDITIONING):
        return None
    return max((place for place in range(index) if stages[place].name == "write"), default=None)


def blocks(tokens: int, size: int) -> list[int]:
    """Sizes of the blocks of a sequence; the last one may be smaller."""
    whole, rest = divmod(tokens, size)
    return [size] * whole + ([rest] if rest else [])


MOST_JOBS = 1_000_000
"""Maximum number of jobs of one run, which take about 12 s of one core and 0.6 GB, reports included."""


def count_jobs(placement: Placement, dataflow: Dataflow) -> int:
    """Number of jobs that `jobs_of` builds for a dataflow in blocks, setup stages left out."""
    total = 0
    for layer in placement.layers:
        gather, join = cuts_of(layer, dataflow)
        count = -(-layer.tokens // dataflow.size_of_block(layer.tokens))
        total += count * (len(layer.stages) - (join - gather)) + join - gather
    return total * placement.workload.batch


def check_size(placement: Placement, dataflow: Dataflow) -> None:
    """Refuse a run that takes too much time or memory, before it starts.

    Raises:
        BadInput: there are more than `MOST_JOBS` jobs.
    """
    count = count_jobs(placement, dataflow)
    if count > MOST_JOBS:
        raise BadInput(
            f"model.batch = {placement.workload.batch}: takes {count:,} jobs to simulate with these blocks and "
            f"layers; at most {MOST_JOBS:,} jobs are possible: lower batch or seq_len, or raise dataflow.block"
        )


def jobs_of(placement: Placement, dataflow: Dataflow) -> list[Job]:
    """All jobs in program order: each unit takes its jobs in this order.

    Raises:
        BadInput: the dataflow defines its own jobs, and one of them cannot run, or a stage is not done exactly once.
    """
    defined = called(dataflow, "jobs", placement)
    if defined is None:
        return _Builder(placement, dataflow).build()
    _check_jobs(defined, placement, type(dataflow).__name__)
    return list(defined)


def _check_jobs(jobs: Sequence[Job], placement: Placement, name: str) -> None:
    """Check the jobs that a dataflow defines: every stage is done once, and jobs wait only for earlier ones.

    Raises:
        BadInput: a job or a stage breaks these rules.
    """
    shares: dict[tuple[int, int], float] = {}
    for number, job in enumerate(jobs):
        where = f"{name}.jobs: number {number}"
        if not isinstance(job, Job):
            raise BadInput(f"{where}: is of type {type(job).__name__}; give ohmformer.dataflow.job.Job")
        if not all(0 <= other < number for other in job.after):
            raise BadInput(f"{where}: after = {job.after}; name positions of jobs that stand before it")
        if not 0 <= job.duration < inf or not 0 <= job.layer < len(placement.layers):
            raise BadInput(f"{where}: duration = {job.duration} s, layer = {job.layer}: out of range; correct them")
        key = job.layer, id(job.stage)
        shares[key] = shares.get(key, 0.0) + job.share
    for number, layer in enumerate(placement.layers):
        for stage in layer.all_stages():
            share = shares.pop((number, id(stage)), 0.0)
            if not isclose(share, 1.0, rel_tol=1e-6):
                raise BadInput(
                    f"{name}.jobs: {layer.name}: stage {stage.name}: shares add up to {share:g}; make them add up to 1"
                )
    if shares:
        raise BadInput(f"{name}.jobs: has stages that do not belong to the placement; take those of placement.layers")


class _Builder:
    """Builds the jobs of a dataflow in blocks.

    Attributes:
        jobs: the jobs so far.
        last_job: for each sample, the job that ends its previous layer; None before its first.
        last_reader: unit of a write stage -> the last job so far that reads the cells which it writes.
    """

    def __init__(self, placement: Placement, dataflow: Dataflow) -> None:
        self.placement, self.dataflow = placement, dataflow
        self.jobs: list[Job] = []
        self.batch = placement.workload.batch
        self.last_job: list[int | None] = [None] * self.batch
        self.last_reader: dict[str, int] = {}

    def build(self) -> list[Job]:
        """Layer by layer with all samples in each, or sample by sample if the dataflow is serial."""
        pairs = [(layer, sample) for layer in range(len(self.placement.layers)) for sample in range(self.batch)]
        serial = self.dataflow.batching == "serial"
        last: int | None = None
        for index, sample in sorted(pairs, key=lambda pair: (pair[1], pair[0])) if serial else pairs:
            if serial and index == 0:
                self.last_job[sample] = last
            last = self.last_job[sample] = self._layer(index, sample)
        return self.jobs

    def _layer(self, index: int, sample: int) -> int:
        """Add the jobs of one sample in one layer, and return the position of the last one."""
        layer = self.placement.layers[index]
        previous = self.last_job[sample]
        before: tuple[int, ...] = () if previous is None else (previous,)
        if layer.setup is not None and (sample == 0 or self.dataflow.batching == "serial"):
            share = 1.0 if self.dataflow.batching == "pipelined" else 1.0 / self.batch
            before = (self._add(index, layer.setup, sample, 0, layer.setup.time(1), before, share),)
        sizes = blocks(layer.tokens, self.dataflow.size_of_block(layer.tokens))
        gather, join = cuts_of(layer, self.dataflow)
        before = self._segment(index, sample, sizes, slice(0, gather), before)
        before = self._segment(index, sample, [layer.tokens], slice(gather, join), before)
        (end,) = self._segment(index, sample, sizes, slice(join, len(layer.stages)), before)
        return end

    def _segment(
        self, index: int, sample: int, sizes: list[int], part: slice, before: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Add the jobs of all blocks in consecutive stages.

        Returns:
            The positions that the next segment waits for: the last block's, since units keep program order.
        """
        layer = self.placement.layers[index]
        last: tuple[int, ...] = before
        for block, size in enumerate(sizes):
            last = before
            for stage in layer.stages[part]:
                after = last + self._readers_before(layer, stage) if block == 0 else last
                share = size / (layer.tokens * self.batch)
                last = (self._add(index, stage, sample, block, stage.time(size), after, share),)
                self._note_reader(layer, stage, last[0])
        return last

    def _readers_before(self, layer: PlacedLayer, stage: Stage) -> tuple[int, ...]:
        """The job that must read the cells before a write stage overwrites them, if there is one."""
        reader = self.last_reader.get(unit_name(layer, stage)) if stage.name == "write" else None
        return () if reader is None else (reader,)

    def _note_reader(self, layer: PlacedLayer, stage: Stage, job: int) -> None:
        """Remember a job that reads cells which a write stage wrote."""
        writer = writer_of(layer.stages, layer.stages.index(stage))
        if writer is not None:
            self.last_reader[unit_name(layer, layer.stages[writer])] = job

    def _add(
        self, layer: int, stage: Stage, sample: int, block: int, duration: float, after: tuple[int, ...], share: float
    ) -> int:
        """Append a job and return its position."""
        unit = unit_name(self.placement.layers[layer], stage)
        self.jobs.append(Job(layer, stage, sample, block, unit, duration, after, share))
        return len(self.jobs) - 1
