"""The latencies of many design points, those that one formula gives evaluated together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np

from ohmformer.cost.designs.per_design import Disagreement, values_of
from ohmformer.cost.machine.refresh import Refresh
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.block_recursion import recursive_latency
from ohmformer.dataflow.closed_form import Array, Designs, alone_latency, has_equal_blocks, runs_one_by_one
from ohmformer.dataflow.jobs import check_size
from ohmformer.dataflow.layer_cuts import Segment
from ohmformer.dataflow.placing import check_softmax
from ohmformer.dataflow.points.priced import Priced
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.errors import BadInput

MOST_SAMPLES = 64
"""Maximum number of samples with which several designs are computed at once; more of them follow a steady pattern,
which is found design by design."""
MOST_BLOCKS = 4_000_000
"""Maximum number of blocks of all designs and samples that are computed at once."""


class Point(NamedTuple):
    """A design point.

    Attributes:
        priced: what it shares with the designs that were priced with it.
        place: its place among them.
        dataflow: the order of work.
    """

    priced: Priced
    place: int
    dataflow: Dataflow


@dataclass
class _Bucket:
    """Layers with the same segments (see `layer_cuts.segments`): one array operation serves them all.

    Attributes:
        rows: per layer: number of the design point, number of such layers, start [s], tokens per sample and per block.
        stages: per layer: [5, S], as in `Pipeline.stages`.
    """

    rows: list[tuple[int, int, float, int, int]] = field(default_factory=list)
    stages: list[Array] = field(default_factory=list)


@dataclass(frozen=True)
class _Stages:
    """One stage of each of N layers: the fields of `Stage` as arrays [N]."""

    name: str
    fixed: Array
    per_token: Array
    floor: Array
    cap: Array
    turn: float | Array


class _Formula(NamedTuple):
    """What decides how one formula gives a latency.

    Attributes:
        joins: True if attention waits for all blocks.
        blocks: for each pipeline, tokens per block.
    """

    joins: bool
    blocks: list[int]


def latencies(points: Sequence[Point], placements: Sequence[Placement]) -> Array:
    """Latency of each design point [s].

    Args:
        points: the points. Those whose samples and layers run one by one are evaluated together.
        placements: the placement of each point alone, for all others.

    Raises:
        BadInput: a field of a dataflow does not apply to an accelerator, or there are too many blocks to compute.
    """
    total = np.zeros(len(points))
    formulas: dict[tuple[int, int], _Formula | None] = {}
    buckets: dict[tuple[Segment, ...], _Bucket] = {}
    recursive: dict[tuple[int, Hashable], list[int]] = {}
    refreshed: list[tuple[int, Refresh]] = []
    for number, (priced, place, dataflow) in enumerate(points):
        key = id(priced), id(dataflow)
        if key not in formulas:
            check_softmax(priced.placement, dataflow)
            formulas[key] = _formula(priced, dataflow)
        formula = formulas[key]
        if formula is None and (priced.placement.has_pools or not dataflow.has_closed_form):
            check_size(placements[number], dataflow)
            total[number] = build_timeline(placements[number], dataflow).latency
            continue
        if priced.placement.refresh and (refresh := priced.refresh(place)):
            refreshed.append((number, refresh))
        if formula is None:
            recursive.setdefault((id(priced), _alike(dataflow)), []).append(number)
            continue
        batch = priced.placement.workload.batch
        for (layer, repeats, start, stages, parts), block in zip(priced.pipelines, formula.blocks, strict=True):
            bucket = buckets.setdefault(parts[formula.joins], _Bucket())
            bucket.rows.append((number, repeats * batch, start[place], layer.tokens, block))
            bucket.stages.append(stages[place])
    for segments, bucket in buckets.items():
        number_of, count_each, starts, tokens, blocks = np.array(bucket.rows).T
        passed = _passed(segments, bucket.stages, tokens, blocks, starts)
        np.add.at(total, number_of.astype(np.int64), count_each * passed)
    for numbers in recursive.values():
        total[numbers] = _by_recursion(numbers, points, placements)
    for number, refresh in refreshed:
        total[number] = refresh.latency(float(total[number]))
    return total


def _formula(priced: Priced, dataflow: Dataflow) -> _Formula | None:
    """How one formula gives the latency (top of `closed_form.py`); None if none does."""
    if priced.placement.has_pools:
        return None
    if not (dataflow.has_closed_form and priced.closed and runs_one_by_one(priced.placement, dataflow)):
        return None
    blocks = [dataflow.size_of_block(pipeline.layer.tokens) for pipeline in priced.pipelines]
    found = zip(priced.pipelines, blocks, strict=True)
    if not priced.equal and not all(has_equal_blocks(pipeline.layer, block) for pipeline, block in found):
        return None
    return _Formula(dataflow.decides("joins"), blocks)


def _by_recursion(numbers: list[int], points: Sequence[Point], placements: Sequence[Placement]) -> Array:
    """The latencies of points with the same prices and dataflow by recursion, without refreshes [s].

    They are computed at once, unless a decision differs or they are too many; what is refused is refused alone.
    """
    priced, _, dataflow = points[numbers[0]]
    count = len(priced.numbers)
    if count == 1:
        return np.full(len(numbers), recursive_latency(priced.placement, dataflow))
    if len(numbers) > 1 and _fit(priced, dataflow):
        try:
            found = values_of(recursive_latency(priced.placement, dataflow, designs=count), count)
            return found[[points[number].place for number in numbers]]
        except (Disagreement, BadInput):
            pass
    return np.array([recursive_latency(placements[number], dataflow) for number in numbers])


def _alike(dataflow: Dataflow) -> Hashable:
    """Equal for dataflows of equal values."""
    try:
        hash(dataflow)
    except TypeError:  # a kind of another package with a field that has no hash
        return id(dataflow)
    return dataflow


def _fit(priced: Priced, dataflow: Dataflow) -> bool:
    """True if all designs that were priced at once fit into one recursion."""
    blocks = max(-(-layer.tokens // dataflow.size_of_block(layer.tokens)) for layer, *_ in priced.pipelines)
    samples = priced.placement.workload.batch
    return samples <= MOST_SAMPLES and len(priced.numbers) * samples * blocks <= MOST_BLOCKS


def _passed(segments: tuple[Segment, ...], stages: list[Array], tokens: Array, blocks: Array, starts: Array) -> Array:
    """The time [N] that a sample takes through each of N layers [s]."""
    fields = np.stack(stages).transpose(1, 2, 0)  # each [S, N]
    turns = [turn if np.isfinite(turn).any() else inf for turn in fields[4]]
    timed = [_Stages("", *values) for values in zip(*fields[:4], turns, strict=True)]
    return alone_latency(timed, segments, tokens.astype(np.int64), Designs(blocks.astype(np.int64), {}), starts)
