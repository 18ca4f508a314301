"""The latencies of many design points, those that one formula gives evaluated together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np

from ohmformer.cost.machine.refresh import Refresh
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.block_recursion import recursive_latency
from ohmformer.dataflow.closed_form import Array, Designs, alone_latency, has_equal_blocks, runs_one_by_one
from ohmformer.dataflow.jobs import check_size, waits_in_pools
from ohmformer.dataflow.layer_cuts import Segment
from ohmformer.dataflow.placing import check_softmax
from ohmformer.dataflow.points.priced import Priced
from ohmformer.dataflow.points.together import latencies_together
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline


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


class _Order(NamedTuple):
    """How a dataflow passes the layers of a placement.

    Attributes:
        joins: True if attention waits for all blocks.
        blocks: for each pipeline, tokens per block.
        recursion: equal for orders that differ only in their blocks; None if one formula gives the latency (top of
            `closed_form.py`).
    """

    joins: bool
    blocks: tuple[int, ...]
    recursion: Hashable


def latencies(points: Sequence[Point], placements: Sequence[Placement]) -> Array:
    """Latency of each design point [s].

    Args:
        points: the points. Those whose samples and layers run one by one are evaluated together.
        placements: the placement of each point alone, for all others.

    Raises:
        BadInput: a field of a dataflow does not apply to an accelerator, or there are too many blocks to compute.
    """
    total = np.zeros(len(points))
    orders: dict[tuple[int, int], _Order | None] = {}
    buckets: dict[tuple[Segment, ...], _Bucket] = {}
    recursive: dict[tuple[Hashable, ...], list[tuple[int, tuple[int, ...]]]] = {}
    refreshed: list[tuple[int, Refresh]] = []
    for number, (priced, place, dataflow) in enumerate(points):
        key = id(priced), id(dataflow)
        if key not in orders:
            check_softmax(priced.placement, dataflow)
            closed = dataflow.has_closed_form and not waits_in_pools(priced.placement, dataflow)
            orders[key] = _order(priced, dataflow) if closed else None
        order = orders[key]
        if order is None:
            check_size(placements[number], dataflow)
            total[number] = build_timeline(placements[number], dataflow).latency
            continue
        if priced.placement.refresh and (refresh := priced.refresh(place)):
            refreshed.append((number, refresh))
        if order.recursion is not None:
            recursive.setdefault((id(priced), order.recursion), []).append((number, order.blocks))
            continue
        batch = priced.placement.workload.batch
        for (layer, repeats, start, stages, parts), block in zip(priced.pipelines, order.blocks, strict=True):
            bucket = buckets.setdefault(parts[order.joins], _Bucket())
            bucket.rows.append((number, repeats * batch, start[place], layer.tokens, block))
            bucket.stages.append(stages[place])
    for segments, bucket in buckets.items():
        number_of, count_each, starts, tokens, blocks = np.array(bucket.rows).T
        passed = _passed(segments, bucket.stages, tokens, blocks, starts)
        np.add.at(total, number_of.astype(np.int64), count_each * passed)
    for same in recursive.values():
        total[[number for number, _ in same]] = _by_recursion(same, points, placements)
    for number, refresh in refreshed:
        total[number] = refresh.latency(float(total[number]))
    return total


def _order(priced: Priced, dataflow: Dataflow) -> _Order:
    """How a dataflow in blocks passes the layers of a placement."""
    blocks = tuple(dataflow.size_of_block(pipeline.layer.tokens) for pipeline in priced.pipelines)
    formula = priced.closed and runs_one_by_one(priced.placement, dataflow)
    if formula and not priced.equal:
        layers = (pipeline.layer for pipeline in priced.pipelines)
        formula = all(has_equal_blocks(layer, block) for layer, block in zip(layers, blocks, strict=True))
    joins = dataflow.decides("has_barrier")
    return _Order(joins, blocks, None if formula else (joins, dataflow.decides("overlaps"), dataflow.batching))


def _by_recursion(
    alike: Sequence[tuple[int, tuple[int, ...]]], points: Sequence[Point], placements: Sequence[Placement]
) -> Array:
    """The latencies of points by recursion, without refreshes [s].

    Args:
        alike: positions of points that differ only in their place among the same prices and in their blocks, each with
            the tokens per block of each pipeline.
        points: all points.
        placements: the placement of each point alone.
    """
    rows: dict[tuple[int, tuple[int, ...]], int] = {}
    row_of = [rows.setdefault((points[number].place, blocks), len(rows)) for number, blocks in alike]
    first = dict(zip(reversed(row_of), (number for number, _ in reversed(alike)), strict=True))
    priced, _, dataflow = points[alike[0][0]]
    sizes = {
        pipeline.layer.tokens: [blocks[position] for _, blocks in rows]
        for position, pipeline in enumerate(priced.pipelines)
    }

    def alone(row: int) -> float:
        return recursive_latency(placements[first[row]], points[first[row]].dataflow)

    places = np.array([place for place, _ in rows]) if len(priced.numbers) > 1 else None
    return latencies_together(priced.placement, dataflow, sizes, alone, places=places)[row_of]


def _passed(segments: tuple[Segment, ...], stages: list[Array], tokens: Array, blocks: Array, starts: Array) -> Array:
    """The time [N] that a sample takes through each of N layers [s]."""
    fields = np.stack(stages).transpose(1, 2, 0)  # each [S, N]
    turns = [turn if np.isfinite(turn).any() else inf for turn in fields[4]]
    timed = [_Stages("", *values) for values in zip(*fields[:4], turns, strict=True)]
    return alone_latency(timed, segments, tokens.astype(np.int64), Designs(blocks.astype(np.int64), {}), starts)
