"""The jobs of a dataflow in blocks: which units each occupies, for how long, and whose results it waits for.

Program order is layer, sample, segment, block, stage: a unit takes the jobs of all samples in a layer before those of
the next layer. A block enters a layer when it has left the layer before, or, if layers do not overlap, when all blocks
of its sample have left it. Every job waits only for jobs before it, so the schedule exists, and the start of each job
is the length of a longest path. With overlap it is never longer, since the same jobs in the same order wait for less.
"""

from __future__ import annotations

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.job_list import JobList
from ohmformer.dataflow.layer_cuts import blocks, segments, sets_of_cells, unit_name, writer_of
from ohmformer.dataflow.spec import Dataflow


def block_jobs(placement: Placement, dataflow: Dataflow) -> list[Job]:
    """All jobs in program order."""
    return _Builder(placement, dataflow).build()


class _Builder:
    """Builds the jobs.

    Attributes:
        built: the jobs so far.
        left: for each sample, tokens per pass of its last layer, and the last job of each of its blocks there.
        readers: unit of a write stage -> for each use of its cells so far, the last job that reads them.
    """

    def __init__(self, placement: Placement, dataflow: Dataflow) -> None:
        self.placement, self.dataflow = placement, dataflow
        self.built = JobList(placement)
        self.left: list[tuple[int, list[int]]] = [(0, []) for _ in range(placement.workload.batch)]
        self.readers: dict[str, list[int]] = {}

    def build(self) -> list[Job]:
        """Layer by layer with all samples in each, or sample by sample if the dataflow is serial."""
        batch, count = self.placement.workload.batch, len(self.placement.layers)
        if self.dataflow.batching == "pipelined":
            for index in range(count):
                for sample in range(batch):
                    self._layer(index, sample)
            return self.built.jobs
        for sample in range(batch):
            self.left[sample] = (0, list(self._last(self.left[sample - 1][1]))) if sample else (0, [])
            for index in range(count):
                self._layer(index, sample)
        return self.built.jobs

    def _layer(self, index: int, sample: int) -> None:
        """Add the jobs of one sample in one layer."""
        layer = self.placement.layers[index]
        tokens, before = self.left[sample]
        loaded: tuple[int, ...] = ()
        if sample == 0 or self.dataflow.batching == "serial":
            share = 1.0 if self.dataflow.batching == "pipelined" else 1.0 / self.placement.workload.batch
            loaded = self.built.set_up(index, self._last(before), sample=sample, share=share) if layer.setup else ()
        sizes = blocks(layer.tokens, self.dataflow.size_of_block(layer.tokens))
        one_by_one = self.dataflow.decides("overlaps") and tokens == layer.tokens and len(before) == len(sizes)
        last: dict[int, int] = {}
        for first, end, whole in segments(layer, self.dataflow):
            ends = []
            for block, size in enumerate([layer.tokens] if whole else sizes):
                after = tuple(before[block : block + 1]) if one_by_one and not whole else self._last(before)
                after += loaded if first == 0 else ()
                for place in range(first, end):
                    after += self._read_before(layer, place) if block == 0 else ()
                    last[place] = self.built.add(index, place, size, after, sample=sample, block=block)
                    after = (last[place],)
                ends.append(after[0])
            before, one_by_one = ends, False
        self.left[sample] = layer.tokens, before
        self._note_readers(layer, last)

    def _read_before(self, layer: PlacedLayer, place: int) -> tuple[int, ...]:
        """The job that must read the cells before the write stage at `place` overwrites them, if there is one."""
        stage = layer.stages[place]
        if stage.name != "write":
            return ()
        sets, uses = sets_of_cells(self.placement, layer, stage), self.readers.get(unit_name(layer, stage), [])
        return () if sets is None or len(uses) < sets else (uses[-sets],)

    def _note_readers(self, layer: PlacedLayer, last: dict[int, int]) -> None:
        """Remember the last job that reads what each write stage of a layer wrote."""
        by_writer = {writer_of(layer.stages, place): job for place, job in sorted(last.items())}
        for writer, job in by_writer.items():
            if writer is not None:
                self.readers.setdefault(unit_name(layer, layer.stages[writer]), []).append(job)

    def _last(self, blocks: list[int]) -> tuple[int, ...]:
        """The jobs among those of consecutive blocks, behind which no other one ends.

        Blocks of one size end in order, since later ones take as long or longer. The last one may be smaller. If one of
        several equal units takes it, it may end before the block before it.
        """
        return tuple(blocks[-2:] if self.placement.has_pools else blocks[-1:])
