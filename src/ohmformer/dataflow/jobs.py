"""The jobs of a dataflow: those that it defines, checked, or those that follow from its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isclose
from numbers import Integral, Real

from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.block_jobs import block_jobs
from ohmformer.dataflow.block_recursion import MOST_AT_ONCE
from ohmformer.dataflow.blocks.too_large import most_blocks, too_large
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.layer_cuts import segments
from ohmformer.dataflow.spec import Dataflow
from ohmformer.errors import BadInput, shown
from ohmformer.registry import called

MOST_JOBS = 1_000_000
"""Maximum number of jobs of one run, which take about 12 s of one core and 0.6 GB, reports included."""

_VALUES: dict[str, tuple[type, str]] = {
    "stage": (Stage, "a stage of placement.layers"),
    "unit": (str, "the name of a unit"),
    **dict.fromkeys(("layer", "sample", "block", "pool"), (Integral, "a whole number")),
    **dict.fromkeys(("duration", "lag", "share"), (Real, "a number")),
}
"""Field of a job -> type of its value, and what to give, for messages."""
_LISTS: dict[str, tuple[type, str]] = {
    "after": (Integral, "a tuple of positions of jobs"),
    "also": (str, "a tuple of names of units"),
}
"""The same for fields with several values."""


def waits_in_pools(placement: Placement, dataflow: Dataflow) -> bool:
    """True if tokens may wait for equal units, which take them first come, first served, so no closed form holds.

    A token that passes all layers alone, such as that of a decoding step of one request, waits for nothing.
    """
    if not placement.has_pools:
        return False
    one_by_one = placement.workload.batch == 1 or dataflow.batching == "serial"
    return not (one_by_one and dataflow.has_closed_form) or any(layer.tokens > 1 for layer, _ in placement.distinct())


def count_jobs(placement: Placement, dataflow: Dataflow) -> int:
    """Number of jobs that `jobs_of` builds for a dataflow in blocks, setup stages left out."""
    total = 0
    for layer, repeats in placement.distinct():
        size = dataflow.size_of_block(layer.tokens)
        for first, end, whole in segments(layer, dataflow):
            blocks, rest = (1, 0) if whole else divmod(layer.tokens, size)
            for pool in (0 if stage.whole else stage.pool for stage in layer.stages[first:end]):
                parts = blocks * max(1, min(pool, layer.tokens if whole else size))
                total += repeats * (parts + (max(1, min(pool, rest)) if rest else 0))
    return total * placement.workload.batch


def check_size(placement: Placement, dataflow: Dataflow) -> None:
    """Refuse a run that takes too much time or memory, before it starts.

    Raises:
        BadInput: there are more than `MOST_JOBS` jobs.
    """
    count = count_jobs(placement, dataflow)
    if count <= MOST_JOBS:
        return
    samples = placement.workload.batch if dataflow.batching == "pipelined" else 1
    reason, further = "", list[str]()
    if placement.has_pools:
        reason = "; tokens that wait for units first come, first served have no closed form"
    elif not dataflow.has_closed_form:
        reason = f"; {type(dataflow).__name__} defines its own jobs, so there is no closed form"
    elif samples * most_blocks(placement, dataflow) <= MOST_AT_ONCE:
        further = ["take of.explore, which builds no jobs"]
    what = f"{count:,} jobs to simulate with these blocks and layers; at most {MOST_JOBS:,} jobs are possible{reason}"
    raise BadInput(too_large(placement, dataflow, what, further))


def jobs_of(placement: Placement, dataflow: Dataflow) -> list[Job]:
    """All jobs in program order: each unit takes its jobs in this order.

    Raises:
        BadInput: the dataflow defines its own jobs, and one of them cannot run, or a stage is not done exactly once.
    """
    defined = called(dataflow, "jobs", placement)
    if defined is None:
        return block_jobs(placement, dataflow)
    _check_jobs(defined, placement, type(dataflow).__name__)
    return list(defined)


def _check_types(job: Job, where: str, *, waits_checked: bool) -> None:
    """Refuse a job with a value of another type.

    Args:
        job: the job.
        where: its place, for messages.
        waits_checked: True if `after` is the tuple of the job before, which was checked.

    Raises:
        BadInput: one line with the field and its value.
    """
    for field, (kind, remedy) in _VALUES.items():
        value = getattr(job, field)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadInput(f"{where}: {field} = {shown(value)}: is of another type; give {remedy}")
    for field, (kind, remedy) in _LISTS.items():
        values = () if waits_checked and field == "after" else getattr(job, field)
        if not isinstance(values, (tuple, list)) or not all(isinstance(value, kind) for value in values):
            raise BadInput(f"{where}: {field} = {shown(values)}: is of another type; give {remedy}")


def _check_jobs(jobs: Sequence[Job], placement: Placement, name: str) -> None:
    """Check the jobs that a dataflow defines: every stage is done once, and jobs wait only for earlier ones.

    Raises:
        BadInput: a job or a stage breaks these rules.
    """
    if not isinstance(jobs, Sequence) or isinstance(jobs, str):
        raise BadInput(f"{name}.jobs: returns {shown(jobs)}; return a list of ohmformer.dataflow.job.Job, or None")
    shares: dict[tuple[int, int], float] = {}
    pools: dict[str, int] = {}
    before: object = None
    for number, job in enumerate(jobs):
        where = f"{name}.jobs: number {number}"
        if not isinstance(job, Job):
            raise BadInput(f"{where}: is of type {type(job).__name__}; give ohmformer.dataflow.job.Job")
        parallel = job.after is before  # parts of a block on equal units share one tuple
        before = job.after
        _check_types(job, where, waits_checked=parallel)
        if not parallel and not all(0 <= other < number for other in job.after):
            raise BadInput(f"{where}: after = {job.after}; name positions of jobs that stand before it")
        if not 0 <= job.duration < inf or not 0 <= job.lag < inf or not 0 <= job.layer < len(placement.layers):
            raise BadInput(
                f"{where}: duration = {job.duration} s, lag = {job.lag} s, layer = {job.layer}: out of range; "
                "correct them"
            )
        if job.pool < 0 or pools.setdefault(job.unit, job.pool) != job.pool:
            raise BadInput(
                f"{where}: pool = {job.pool}: is below 0, or not that of other jobs of {shown(job.unit)}; correct it"
            )
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
