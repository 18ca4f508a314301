"""Ages of keys and values in one pass, from the times of its jobs.

Tokens of a block pass through a stage one after another, evenly over the time of its job: so do queries that read, and
rows of V that are written. A block of K (or of Q, where the engine stores Q) is in its cells when its job ends, since
every row of an array holds a part of each token. A token that is digital first is in its cells when the token comes
that pushes it out of the recent window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ohmformer.cost import write_wear
from ohmformer.cost.attention.token_places import tokens_for_cells
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.operands import attention_unit, windows_of
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.event_engine import Schedule
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.retention.pauses import Pauses
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.ages import Ages, CellWrites, OperandAges
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.spec import DynamicMatMul, Exchange

Array = npt.NDArray[np.float64]

NEVER = -np.inf
EARLY = 1e-9
"""By how much a read may come before a write through rounding, relative to the time of the pass."""


@dataclass(frozen=True)
class StoredOperand:
    """An operand in cells, and the stages that write and read it.

    Attributes:
        op: the product.
        engine: its engine.
        shared: True if all layers use the same arrays.
        write: position of the stage that writes it in `PlacedLayer.stages`.
        read: position of the stage that reads it.
        conditioning: how it is conditioned; None if it is not.
    """

    op: DynamicMatMul
    engine: ArrayEngine
    shared: bool
    write: int | None
    read: int
    conditioning: Conditioning | None = None

    @property
    def holds_queries(self) -> bool:
        """True if cells hold Q instead of K."""
        return self.engine.written == "left"


def stored_operands(placement: Placement) -> Iterator[tuple[int, StoredOperand]]:
    """The operands in cells, each with the position of its layer.

    Raises:
        BadInput: tokens take turns in the same cells within a pass.
    """
    divided = placement.divided()
    for number, (layer, placed) in enumerate(zip(placement.workload.layers(), placement.layers, strict=True)):
        work = [entry for entry in divided.work[divided.kinds[number]] if not isinstance(entry, Exchange)]
        for op, entry in zip(layer.ops, work, strict=True):
            stored = _stored(op, entry, placed, placement.workload.batch)
            if stored is not None:
                yield number, stored


def _stored(op: object, entry: LayerOp, layer: PlacedLayer, batch: int) -> StoredOperand | None:
    if (
        not isinstance(entry, PlacedOp)
        or not isinstance(op, DynamicMatMul)
        or not isinstance(entry.engine, ArrayEngine)
    ):
        return None
    engine, digital = entry.engine, entry.digital
    held = op.queries if engine.written == "left" else tokens_for_cells(op, digital)
    if windows_of(op, batch) > 1:
        raise BadInput(f"ages: {shown(op.name)}: windows take turns in the same cells, whose times are not known")
    if engine.resident is not None and engine.resident < held:
        raise BadInput(
            f"hardware.{entry.role}.resident = {engine.resident}: {held} tokens of {shown(op.name)} take turns in "
            "these cells, whose times are not known; raise resident"
        )
    parts = [stage.name.split("+") for stage in layer.stages]
    read = next(place for place, names in enumerate(parts) if op.stage in names)
    unit = attention_unit(op, "write")
    write = next((place for place, stage in enumerate(layer.stages) if stage.unit == unit), None)
    return StoredOperand(op, engine, entry.shared, write, read, entry.conditioning)


@dataclass(frozen=True)
class TimedPass:
    """A pass, and when its jobs ran.

    Attributes:
        placement: the workload on the accelerator.
        jobs: in program order.
        schedule: start and end of every job.
        latency: time of computing, from the first start to the last end [s].
    """

    placement: Placement
    jobs: Sequence[Job]
    schedule: Schedule
    latency: float


def pass_ages(timed: TimedPass, sample: int, pauses: Pauses | None, seconds: float, *, windows: bool = True) -> Ages:
    """The ages of keys and values of one sample in a pass without cached tokens.

    Args:
        timed: the pass.
        sample: number of the sample.
        pauses: the refreshes during the pass; None for none.
        seconds: time of the pass, refreshes included [s].
        windows: False if tokens are in their cells as soon as they come, as if none was digital first.

    Raises:
        BadInput: the pass begins with cached tokens, whose writes it does not know; queries read before keys are
            written; or as `stored_operands`.
    """
    placement = timed.placement
    work = placement.workload
    if type(sample) is not int or not 0 <= sample < work.batch:
        raise BadInput(f"ages: sample = {shown(sample)}: must be a whole number from 0 to {work.batch - 1}; correct it")
    if work.phase == "decode" or work.context:
        raise BadInput(
            f"ages: a {work.phase} with {work.context} cached tokens does not know when these were written; take "
            "of.serve(...).ages(), which has all passes of a request"
        )
    jobs = _Jobs(timed, sample)
    stored_ones = list(stored_operands(placement))
    operands = tuple(_operand(jobs, number, stored) for number, stored in stored_ones)
    if windows:
        pairs = zip(operands, stored_ones, strict=True)
        operands = tuple(leaving_windows(operand, stored.conditioning) for operand, (_, stored) in pairs)
    if pauses is not None:
        operands = tuple(with_pauses(operand, pauses) for operand in operands)
    return Ages(operands, cell_writes(placement, seconds, pauses), seconds, sample)


def leaving_windows(operand: OperandAges, conditioning: Conditioning | None) -> OperandAges:
    """The times of an operand whose tokens are written when they leave the recent window.

    Tokens that are digital all the time count as written with the first token in cells, or with the last read if there
    is none; nothing reads them.

    Args:
        operand: its times if every token was written when it came.
        conditioning: how it is conditioned; None if it is not.
    """
    if conditioning is None or not conditioning.most_digital_tokens:
        return operand
    count, first = len(operand.written), min(conditioning.first_tokens, len(operand.written))
    written = np.full(count, operand.read.max())
    in_time = max(first, count - conditioning.last_tokens)  # later tokens are still in the window at the end
    written[first:in_time] = operand.written[first + conditioning.last_tokens : in_time + conditioning.last_tokens]
    written[:first] = written[first] if first < count else written[:first]
    return replace(operand, written=written)


def with_pauses(operand: OperandAges, pauses: Pauses) -> OperandAges:
    """The times of an operand, given in time of computing, by the clock and with refreshes of its cells."""
    written, rewritten = pauses.end(operand.written), pauses.end(operand.rewritten)
    read, again = pauses.end(operand.read), pauses.last_start(operand.read)
    return replace(operand, written=written, read=read, rewritten=np.maximum(rewritten, again))


def cell_writes(placement: Placement, seconds: float, pauses: Pauses | None) -> tuple[CellWrites, ...]:
    """How often the cells of a pass are written in its time."""
    found, again = [], len(pauses.seconds) if pauses else 0
    for entry in placement.machine.kv if placement.machine else ():
        mean = sum(use.layers * use.op.batch * write_wear.cells_of(use, entry) for use in entry.uses) / entry.cells
        most = write_wear.max_writes(placement.workload, entry)
        found.append(CellWrites(entry.role, most + again, mean + again, seconds))
    return tuple(found)


class _Jobs:
    """The jobs of one sample, by layer and stage."""

    def __init__(self, timed: TimedPass, sample: int) -> None:
        self.timed, self.found = timed, dict[tuple[int, int], list[int]]()
        for number, job in enumerate(timed.jobs):
            if job.sample == sample:
                self.found.setdefault((job.layer, id(job.stage)), []).append(number)

    def spans(self, layer: int, place: int) -> Sequence[tuple[float, float, int]]:
        """Start [s], end [s] and number of tokens of each job of a stage."""
        placed, schedule = self.timed.placement.layers[layer], self.timed.schedule
        total = placed.tokens * self.timed.placement.workload.batch
        numbers = self.found[layer, id(placed.stages[place])]
        return [(schedule.start[n], schedule.end[n], round(self.timed.jobs[n].share * total)) for n in numbers]


def _operand(jobs: _Jobs, layer: int, stored: StoredOperand) -> OperandAges:
    op = stored.op
    read = evenly(jobs.spans(layer, stored.read))
    if stored.write is None:  # all tokens are digital
        assert stored.conditioning is not None
        never, again = np.full(op.tokens, read.min()), np.full(len(read), NEVER)
        return OperandAges(op.name, op.role, op.layer, never, read, again, 0, op.causal, op.across)
    writes = jobs.spans(layer, stored.write)
    new = op.queries if stored.holds_queries else op.written
    if sum(count for _, _, count in writes) != new:  # K and V of another sequence, written in one job
        written = np.full(new, writes[-1][1])
    elif op.role == "attention.value":
        written = evenly(writes)
    else:
        written = np.concatenate([np.full(count, end) for _, end, count in writes])
    rewritten = np.full(len(read), NEVER)
    if stored.holds_queries:
        written, rewritten = np.full(op.tokens, NEVER), written
    found = OperandAges(op.name, op.role, op.layer, written, read, rewritten, 0, op.causal, op.across)
    _check_order(found, jobs.timed.latency)
    return found


def evenly(spans: Sequence[tuple[float, float, int]]) -> Array:
    """When each token of consecutive jobs is done, if the tokens of a job share its time evenly [s]."""
    parts = [start + (end - start) * np.arange(1, count + 1) / count for start, end, count in spans]
    return np.concatenate(parts)


def _check_order(operand: OperandAges, latency: float) -> None:
    """Refuse reads of keys that are not written yet.

    Raises:
        BadInput: there are some.
    """
    needed = np.maximum.accumulate(operand.written) if operand.causal and not operand.across else operand.written.max()
    early = (needed - operand.read) > EARLY * latency
    if np.any(early):
        raise BadInput(
            f"ages: {shown(operand.name)}: this dataflow lets queries read before keys are written; take "
            "dataflow.dependencies = 'exact', or another dataflow"
        )
