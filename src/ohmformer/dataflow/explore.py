"""Many design points at once: every pair of workload and accelerator is priced once, all latencies together.

Block sizes and dependencies change nothing of a price, so they cost next to nothing; the closed form takes the layers
of all points in one go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ohmformer.cost.placement import PlacedLayer, Placement, place
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.closed_form import Array, Designs, alone_latency, check_pipeline, latency
from ohmformer.dataflow.jobs import cuts_of
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import simulate
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import Workload


class DesignPoint(NamedTuple):
    """A workload on an accelerator under a dataflow. What several points share should be the very same object."""

    workload: Workload
    hardware: Accelerator
    dataflow: Dataflow


@dataclass(frozen=True)
class Explored:
    """What N design points take, in their order.

    Attributes:
        latency: [N], of all samples of a workload [s].
        energy: [N], what is drawn all the time included [J].
        area: [N], of the chip [m^2].
        placements: N of them, with arrays, tiles, counts of events and wear; equal points share theirs.
    """

    latency: Array
    energy: Array
    area: Array
    placements: tuple[Placement, ...]


def explore(
    points: Iterable[DesignPoint],
    *,
    clip: KVClip | None = None,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
    kv: KVConditioning | None = None,
) -> Explored:
    """Time and price many design points: the numbers of `simulate`, to rounding.

    Args:
        points: such as the product of lists of workloads, accelerators and dataflows.
        clip: of K and V in memristive cells: slices that it leaves empty are not mapped.
        rules: as in `trace`: engines, arrays, writes and clips of products by name.
        weights: how static weights are conditioned: rotating their inputs is digital work.
        kv: how K and V in memristive cells are conditioned, which is digital work; of operands by name, their own.

    Raises:
        BadInput: there are no points, a price is missing, or a chip is too small.
    """
    asked = [DesignPoint(*point) for point in points]
    if not asked:
        raise BadInput("points: is empty; give at least one (workload, accelerator, dataflow)")
    known: dict[tuple[int, int], _Priced] = {}
    found = []
    for workload, hardware, _ in asked:
        key = id(workload), id(hardware)
        if key not in known:
            priced = place(workload, hardware, clip=clip, rules=rules, weights=weights, kv=kv)
            known[key] = _Priced.of(priced)
        found.append(known[key])
    latencies = _latencies(asked, found)
    joules, power, area = np.array([(priced.energy, priced.power, priced.area) for priced in found]).T
    return Explored(latencies, joules + power * latencies, area, tuple(priced.placement for priced in found))


class _Pipeline(NamedTuple):
    """Equal layers: how many, when their first stage may begin, and the times of their stages [4, S]."""

    layer: PlacedLayer
    times: int
    start: float
    stages: Array


@dataclass(frozen=True)
class _Priced:
    """A placement, and of it what all its points need."""

    placement: Placement
    pipelines: list[_Pipeline]
    energy: float
    power: float
    area: float
    closed: bool
    """Whether there is a closed form for its samples one by one."""

    @classmethod
    def of(cls, placement: Placement) -> _Priced:
        distinct = placement.distinct()
        pipelines = [
            _Pipeline(layer, count, layer.setup.time(1) if layer.setup else 0.0, _columns(layer.stages))
            for layer, count in distinct
        ]
        energy = sum(placement.energy.values())
        closed = all(_is_pipeline(layer) for layer, _ in distinct)
        return cls(placement, pipelines, energy, placement.power, placement.area, closed)


def _columns(stages: tuple[Stage, ...]) -> Array:
    return np.array([(stage.fixed, stage.per_token, stage.floor, stage.cap) for stage in stages]).T


def _is_pipeline(layer: PlacedLayer) -> bool:
    try:
        check_pipeline(layer, alone=True)
    except BadInput:
        return False
    return True


@dataclass
class _Bucket:
    """Layers with as many stages that wait at the same one."""

    rows: list[tuple[int, int, float, int, int]] = field(default_factory=list)
    """Point, how many such layers, when they begin, tokens of a sample and of a block."""
    stages: list[Array] = field(default_factory=list)


@dataclass(frozen=True)
class _Stages:
    """One stage of each of N layers."""

    name: str
    fixed: Array
    per_token: Array
    floor: Array
    cap: Array


def _latencies(points: list[DesignPoint], found: list[_Priced]) -> Array:
    """Samples that run alone in one go; those that follow one another, and what is no pipeline, point by point."""
    total = np.zeros(len(points))
    buckets: dict[tuple[int, tuple[int, int]], _Bucket] = {}
    for number, ((workload, _, dataflow), priced) in enumerate(zip(points, found, strict=True)):
        if not (priced.closed and dataflow.has_closed_form):
            total[number] = simulate(priced.placement, dataflow).latency
        elif workload.batch > 1 and dataflow.batching == "pipelined":
            total[number] = _batched(priced.placement, dataflow)
        else:
            for layer, count, start, columns in priced.pipelines:
                block = dataflow.size_of_block(layer.tokens)
                bucket = buckets.setdefault((columns.shape[1], cuts_of(layer, dataflow)), _Bucket())
                bucket.rows.append((number, count * workload.batch, start, layer.tokens, block))
                bucket.stages.append(columns)
    for (_, cuts), bucket in buckets.items():
        number, times_each, start, tokens, block = np.array(bucket.rows).T
        fixed, per_token, floor, cap = np.stack(bucket.stages).transpose(1, 2, 0)  # each [S, N]
        stages = [_Stages("", *values) for values in zip(fixed, per_token, floor, cap, strict=True)]
        designs = Designs(block.astype(np.int64), {})
        passed = alone_latency(stages, cuts, tokens.astype(np.int64), designs, start)
        np.add.at(total, number.astype(np.int64), times_each * passed)
    return total


def _batched(placement: Placement, dataflow: Dataflow) -> float:
    try:
        return latency(placement, dataflow)
    except BadInput:  # units that stages share across others, which one token alone does not mind
        return simulate(placement, dataflow).latency
