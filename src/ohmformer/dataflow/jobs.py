"""Tasks of a dataflow: what occupies which unit for how long, and what has to end before it.

Samples follow one another layer by layer: all samples of a layer come before the next layer's in the order in which a
unit takes its tasks. A layer of a sample begins when the layer before it has ended for that sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isclose

from ohmformer.cost.placement import PlacedLayer, Placement
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.dataflow.job import Task
from ohmformer.dataflow.spec import Dataflow
from ohmformer.errors import BadInput


def unit_name(layer: PlacedLayer, stage: Stage) -> str:
    """A unit that layers share, or one of the layer's own."""
    return stage.unit if stage.shared else f"{layer.name}: {stage.unit}"


def cuts_of(layer: PlacedLayer, dataflow: Dataflow) -> tuple[int, int]:
    """The stages that wait for all blocks of those before them; what is between takes the whole sequence at once.

    Both are 0 where none waits, and equal where one does.
    """
    if layer.join is None or not dataflow.joins():
        return 0, 0
    return layer.join if layer.gather is None else layer.gather, layer.join


def writer_of(stages: tuple[Stage, ...], index: int) -> int | None:
    """The stage that writes the cells that another stage reads; None where it reads none that were written."""
    if stages[index].engine != "attention" or stages[index].name in ("write", CONDITIONING):
        return None
    return max((place for place in range(index) if stages[place].name == "write"), default=None)


def blocks(tokens: int, size: int) -> list[int]:
    """Tokens of each block; the last one may be smaller."""
    whole, rest = divmod(tokens, size)
    return [size] * whole + ([rest] if rest else [])


MOST_TASKS = 2_000_000
"""Tasks of one run at most: they take about 20 s and 1 GB."""


def count_tasks(placement: Placement, dataflow: Dataflow) -> int:
    """How many tasks `tasks_of` makes of a dataflow in blocks, setups aside."""
    total = 0
    for layer in placement.layers:
        gather, join = cuts_of(layer, dataflow)
        count = -(-layer.tokens // dataflow.size_of_block(layer.tokens))
        total += count * (len(layer.stages) - (join - gather)) + join - gather
    return total * placement.workload.batch


def check_size(placement: Placement, dataflow: Dataflow) -> None:
    """Refuse what takes too long or too much memory, before it begins.

    Raises:
        BadInput: there are more than `MOST_TASKS` tasks.
    """
    count = count_tasks(placement, dataflow)
    if count > MOST_TASKS:
        raise BadInput(
            f"model.batch = {placement.workload.batch}: takes {count:,} steps to simulate with these blocks and "
            f"layers, at most {MOST_TASKS:,}; lower batch or seq_len, or raise dataflow.block"
        )


def tasks_of(placement: Placement, dataflow: Dataflow) -> list[Task]:
    """All tasks in program order: each unit takes its tasks in this order.

    Raises:
        BadInput: a dataflow with tasks of its own gives some that cannot be.
    """
    own = dataflow.tasks(placement)
    return _Builder(placement, dataflow).build() if own is None else _checked(own, placement, type(dataflow).__name__)


def _checked(tasks: Sequence[Task], placement: Placement, name: str) -> list[Task]:
    """Tasks of a dataflow from elsewhere: every stage is done once, and nothing waits for what does not come first."""
    shares: dict[tuple[int, int], float] = {}
    for number, task in enumerate(tasks):
        where = f"{name}.tasks: number {number}"
        if not isinstance(task, Task):
            raise BadInput(f"{where}: is of type {type(task).__name__}; give ohmformer.dataflow.job.Task")
        if not all(0 <= other < number for other in task.after):
            raise BadInput(f"{where}: is after {task.after}; name positions of tasks that stand before it")
        if not 0 <= task.duration < inf or not 0 <= task.layer < len(placement.layers):
            raise BadInput(f"{where}: duration = {task.duration} s, layer = {task.layer}; correct them")
        key = task.layer, id(task.stage)
        shares[key] = shares.get(key, 0.0) + task.share
    for number, layer in enumerate(placement.layers):
        for stage in layer.all_stages():
            share = shares.pop((number, id(stage)), 0.0)
            if not isclose(share, 1.0, rel_tol=1e-6):
                raise BadInput(
                    f"{name}.tasks: {layer.name}: stage {stage.name}: shares add up to {share:g}; they must to 1"
                )
    if shares:
        raise BadInput(f"{name}.tasks: has stages that are none of the placement's; take those of placement.layers")
    return list(tasks)


class _Builder:
    def __init__(self, placement: Placement, dataflow: Dataflow) -> None:
        self.placement, self.dataflow = placement, dataflow
        self.tasks: list[Task] = []
        self.batch = placement.workload.batch
        self.done: list[int | None] = [None] * self.batch
        """Task that ends the layer before, for each sample."""
        self.reader: dict[str, int] = {}
        """Task that is the last to read what a writing unit writes."""

    def build(self) -> list[Task]:
        """Layer by layer and sample by sample; or, where samples run alone, sample by sample."""
        pairs = [(layer, sample) for layer in range(len(self.placement.layers)) for sample in range(self.batch)]
        serial = self.dataflow.batching == "serial"
        last: int | None = None
        for index, sample in sorted(pairs, key=lambda pair: (pair[1], pair[0])) if serial else pairs:
            if serial and index == 0:
                self.done[sample] = last
            last = self.done[sample] = self._layer(index, sample)
        return self.tasks

    def _layer(self, index: int, sample: int) -> int:
        """The tasks of one sample in one layer; the position of the last one."""
        layer = self.placement.layers[index]
        before = tuple(task for task in (self.done[sample],) if task is not None)
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
        """Blocks through consecutive stages; what comes next waits for the last block, since units keep their order."""
        layer = self.placement.layers[index]
        last: tuple[int, ...] = before
        for block, size in enumerate(sizes):
            last = before
            for stage in layer.stages[part]:
                after = last + self._readers(layer, stage) if block == 0 else last
                share = size / (layer.tokens * self.batch)
                last = (self._add(index, stage, sample, block, stage.time(size), after, share),)
                self._note_reader(layer, stage, last[0])
        return last

    def _readers(self, layer: PlacedLayer, stage: Stage) -> tuple[int, ...]:
        """Cells are written again only after the sample before has been read."""
        reader = self.reader.get(unit_name(layer, stage)) if stage.name == "write" else None
        return () if reader is None else (reader,)

    def _note_reader(self, layer: PlacedLayer, stage: Stage, task: int) -> None:
        writer = writer_of(layer.stages, layer.stages.index(stage))
        if writer is not None:
            self.reader[unit_name(layer, layer.stages[writer])] = task

    def _add(
        self, layer: int, stage: Stage, sample: int, block: int, duration: float, after: tuple[int, ...], share: float
    ) -> int:
        unit = unit_name(self.placement.layers[layer], stage)
        self.tasks.append(Task(layer, stage, sample, block, unit, duration, after, share))
        return len(self.tasks) - 1
