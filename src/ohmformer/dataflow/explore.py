"""Design-space exploration: each pair of workload and accelerator is priced once; latencies are computed together.

Block sizes and dependencies do not change a price, so points that differ only in them are nearly free. One evaluation
of the closed form covers the layers of all points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import numpy as np

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.machine.arguments import check_cost_arguments
from ohmformer.cost.machine.refresh import Refresh, refreshes
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.closed_form import (
    Array,
    Designs,
    alone_latency,
    has_equal_blocks,
    is_pipeline,
    latency,
    runs_one_by_one,
)
from ohmformer.dataflow.layer_cuts import Segment, joined_segments
from ohmformer.dataflow.placing import check_softmax, place_for, sets_of
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline, gated_energy
from ohmformer.errors import BadInput, check_type, given
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import Workload


class DesignPoint(NamedTuple):
    """A workload on an accelerator under a dataflow.

    Points that share a workload or an accelerator should hold the same object: prices are computed once per object.
    """

    workload: Workload
    hardware: Accelerator
    dataflow: Dataflow


@dataclass(frozen=True)
class Explored:
    """Results of N design points, in the order of the points.

    Attributes:
        latency: [N], latency of all samples of the workload [s].
        energy: [N], energy of all samples, standing power included [J].
        area: [N], area of the chip [m^2].
        placements: N placements, with arrays, tiles, event counts and wear. Points with the same workload and
            accelerator share one.
    """

    latency: Array
    energy: Array
    area: Array
    placements: tuple[Placement, ...]


def explore(
    points: Iterable[tuple[Workload, Accelerator, Dataflow]],
    *,
    clip: KVClip | None = None,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
    kv: KVConditioning | None = None,
) -> Explored:
    """Latency, energy and area of many design points: equal to those of `simulate` up to rounding.

    Args:
        points: (workload, accelerator, dataflow), for example the product of three lists.
        clip: see `simulate`.
        rules: see `simulate`.
        weights: see `simulate`.
        kv: see `simulate`.

    Raises:
        BadInput: there are no points, a price is missing, or a chip is too small.
    """
    designs = _design_points(points)
    by_pair: dict[tuple[object, ...], _Priced] = {}
    per_point = []
    for workload, hardware, dataflow in designs:
        pair = (id(workload), id(hardware), *sets_of(dataflow).values())
        if pair not in by_pair:
            check_cost_arguments("explore", workload, hardware, clip, weights)
            by_pair[pair] = _Priced.of(
                place_for(dataflow, workload, hardware, clip=clip, rules=rules, weights=weights, kv=kv)
            )
        check_softmax(by_pair[pair].placement, dataflow)
        per_point.append(by_pair[pair])
    latencies = _latencies(designs, per_point)
    joules, power, area = np.array([(priced.energy, priced.power, priced.area) for priced in per_point]).T
    joules = joules + power * latencies
    for number, (design, priced) in enumerate(zip(designs, per_point, strict=True)):
        if priced.gated:
            joules[number] += gated_energy(priced.placement, design.dataflow)
        if priced.placement.refresh:
            joules[number] += _refresh_energy(priced.placement, float(latencies[number]))
    return Explored(latencies, joules, area, tuple(priced.placement for priced in per_point))


def _refresh_energy(placement: Placement, latency: float) -> float:
    """Energy of all refreshes of K and V during a pass [J]."""
    refresh = placement.refresh
    return 0.0 if refresh is None else (refresh.joules + refresh.static) * refreshes(latency, refresh.interval)


def _design_points(points: Iterable[Any]) -> list[DesignPoint]:
    """Return the design points, after checking that there are some and that each has three parts.

    Raises:
        BadInput: there are none, or one has another form.
    """
    form = "(workload, accelerator, dataflow)"
    if isinstance(points, (str, Mapping)) or getattr(points, "ndim", None) == 0:
        raise BadInput(f"explore: points is {given(points)}; give a list of {form}")
    check_type("explore", "points", points, Iterable, f"a list of {form}")
    designs = []
    for number, point in enumerate(points):
        if not isinstance(point, (tuple, list)) or len(point) != 3:
            raise BadInput(f"explore: points[{number}] is {given(point)}; give {form}")
        remedy = "LayerSerial() or SequenceBlocking(block=64)"
        check_type("explore", f"dataflow of points[{number}]", point[2], Dataflow, remedy)
        designs.append(DesignPoint(*point))
    if not designs:
        raise BadInput(f"points: is empty; give at least one {form}")
    return designs


class _Pipeline(NamedTuple):
    """Equal layers of a placement.

    Attributes:
        layer: the first of them.
        repeats: how many there are.
        start: time at which their first stage may start [s].
        stages: [5, S], the fields fixed, per_token, floor, cap and turn of their S stages.
        parts: their segments (see `layer_cuts.segments`) if attention does not wait for all blocks, and if it does.
    """

    layer: PlacedLayer
    repeats: int
    start: float
    stages: Array
    parts: tuple[tuple[Segment, ...], tuple[Segment, ...]]


@dataclass(frozen=True)
class _Priced:
    """A placement, with the values that all its design points share.

    Attributes:
        placement: the placement.
        pipelines: its distinct layers.
        energy: dynamic energy of all samples [J].
        power: standing power [W].
        area: area of the chip [m^2].
        closed: True if each layer is a pipeline (see `is_pipeline`).
        equal: True if equal blocks of each layer take equal times.
        gated: True if tiles draw standing power only at work.
    """

    placement: Placement
    pipelines: list[_Pipeline]
    energy: float
    power: float
    area: float
    closed: bool
    equal: bool
    gated: bool

    @classmethod
    def of(cls, placement: Placement) -> _Priced:
        distinct = placement.distinct()
        pipelines = [
            _Pipeline(
                layer,
                repeats,
                layer.setup.time(1) if layer.setup else 0.0,
                _stage_times(layer.stages),
                (((0, len(layer.stages), False),), joined_segments(layer)),
            )
            for layer, repeats in distinct
        ]
        energy = sum(placement.energy.values())
        closed = all(is_pipeline(placement, layer) for layer, _ in distinct)
        equal = all(has_equal_blocks(layer, 1) for layer, _ in distinct)
        gated = any(stage.standing for layer, _ in distinct for stage in layer.all_stages())
        return cls(placement, pipelines, energy, placement.power, placement.area, closed, equal, gated)


def _has_formula(priced: _Priced, dataflow: Dataflow) -> bool:
    """True if one formula gives the latency of the point (top of `closed_form.py`)."""
    if not (priced.closed and runs_one_by_one(priced.placement, dataflow)):
        return False
    layers = (pipeline.layer for pipeline in priced.pipelines)
    return priced.equal or all(has_equal_blocks(layer, dataflow.size_of_block(layer.tokens)) for layer in layers)


def _stage_times(stages: tuple[Stage, ...]) -> Array:
    return np.array([(stage.fixed, stage.per_token, stage.floor, stage.cap, stage.turn) for stage in stages]).T


@dataclass
class _Bucket:
    """Layers with the same segments (see `layer_cuts.segments`): one array operation serves them all.

    Attributes:
        rows: per layer: number of the design point, number of such layers, start [s], tokens per sample and per block.
        stages: per layer: `_Pipeline.stages`.
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


def _latencies(points: list[DesignPoint], per_point: list[_Priced]) -> Array:
    """Latency of each design point [s].

    Points whose samples and layers run one by one are evaluated together, all others one at a time.
    """
    total = np.zeros(len(points))
    buckets: dict[tuple[Segment, ...], _Bucket] = {}
    refreshed: list[tuple[int, Refresh]] = []
    for number, ((workload, _, dataflow), priced) in enumerate(zip(points, per_point, strict=True)):
        if not dataflow.has_closed_form:
            total[number] = build_timeline(priced.placement, dataflow).latency
        elif not _has_formula(priced, dataflow):
            total[number] = latency(priced.placement, dataflow)
        else:
            joins = dataflow.decides("joins")
            if priced.placement.refresh:
                refreshed.append((number, priced.placement.refresh))
            for layer, repeats, start, stage_times, parts in priced.pipelines:
                block = dataflow.size_of_block(layer.tokens)
                bucket = buckets.setdefault(parts[joins], _Bucket())
                bucket.rows.append((number, repeats * workload.batch, start, layer.tokens, block))
                bucket.stages.append(stage_times)
    for segments, bucket in buckets.items():
        number, count_each, start, tokens, block = np.array(bucket.rows).T
        fields = np.stack(bucket.stages).transpose(1, 2, 0)  # each [S, N]
        turns = [turn if np.isfinite(turn).any() else inf for turn in fields[4]]
        stages = [_Stages("", *values) for values in zip(*fields[:4], turns, strict=True)]
        designs = Designs(block.astype(np.int64), {})
        passed = alone_latency(stages, segments, tokens.astype(np.int64), designs, start)
        np.add.at(total, number.astype(np.int64), count_each * passed)
    for number, refresh in refreshed:
        total[number] = refresh.latency(float(total[number]))
    return total
