"""Design-space exploration: each pair of workload and accelerator is priced once; latencies are computed together.

Accelerators that differ in numbers alone are priced at once (see `cost/designs`). Block sizes and dependencies do not
change a price, so points that differ only in them are nearly free. One evaluation of the closed form covers the layers
of all points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np

from ohmformer.cost.designs.bundle import price_at_once
from ohmformer.cost.designs.per_design import Disagreement, value_at
from ohmformer.cost.machine.arguments import check_cost_arguments
from ohmformer.cost.machine.refresh import refreshes
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.closed_form import Array
from ohmformer.dataflow.placing import place_for, sets_of
from ohmformer.dataflow.points.latencies import Point, latencies
from ohmformer.dataflow.points.priced import Priced
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import gated_energy
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
        placements: N placements, with arrays, tiles, event counts and wear, each made when it is read. Points with the
            same workload and accelerator share one.
    """

    latency: Array
    energy: Array
    area: Array
    placements: Sequence[Placement]


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
    pairs = _Pairs(designs, {"clip": clip, "rules": rules, "weights": weights, "kv": kv})
    found = price_at_once(pairs.distinct, lambda pair: pair.hardware, lambda pair: pair.kind, pairs.priced)
    shared = [Point(*found[pair], design.dataflow) for pair, design in zip(pairs.of_point, designs, strict=True)]
    placements = _Placements(pairs, shared)
    passed = latencies(shared, placements)
    joules, power, area = np.array([priced.numbers[place] for priced, place in found])[pairs.of_point].T
    joules = joules + power * passed
    if any(priced.gated for priced, _ in found):
        joules += _gated_energies(shared, placements)
    if any(priced.placement.refresh for priced, _ in found):
        joules += [_refresh_energy(point, float(seconds)) for point, seconds in zip(shared, passed, strict=True)]
    return Explored(passed, joules, area, placements)


def _gated_energies(points: list[Point], placements: Sequence[Placement]) -> Array:
    """Energy of gated tiles at each point [J]; 0 if tiles are always on."""
    energies = np.zeros(len(points))
    at_once: dict[tuple[int, int], float | None] = {}
    for number, (priced, place, dataflow) in enumerate(points):
        if not priced.gated:
            continue
        key = id(priced), id(dataflow)
        if key not in at_once:
            try:
                at_once[key] = gated_energy(priced.placement, dataflow)
            except Disagreement:
                at_once[key] = None
        joules = at_once[key]
        energies[number] = gated_energy(placements[number], dataflow) if joules is None else value_at(joules, place)
    return energies


def _refresh_energy(point: Point, latency: float) -> float:
    """Energy of all refreshes of K and V during a pass [J]."""
    refresh = point.priced.refresh(point.place)
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


class _Pair(NamedTuple):
    """A workload on an accelerator, with the sets of cells and softmax units that a dataflow needs.

    Attributes:
        workload: the operations.
        hardware: the accelerator.
        dataflow: the first dataflow that they are used with.
        kind: equal for pairs that differ in their accelerator alone.
    """

    workload: Workload
    hardware: Accelerator
    dataflow: Dataflow
    kind: tuple[object, ...]


class _Pairs:
    """The pairs that are priced.

    Attributes:
        options: further arguments of `place`.
        distinct: the pairs, each once.
        of_point: for each point, the position of its pair.
    """

    def __init__(self, points: list[DesignPoint], options: dict[str, Any]) -> None:
        self.options = options
        self.distinct: list[_Pair] = []
        self.of_point: list[int] = []
        positions: dict[tuple[object, ...], int] = {}
        sets: dict[int, tuple[object, ...]] = {}
        for workload, hardware, dataflow in points:
            if id(dataflow) not in sets:
                sets[id(dataflow)] = tuple(sets_of(dataflow).values())
            key = id(hardware), id(workload), sets[id(dataflow)]
            position = positions.setdefault(key, len(self.distinct))
            if position == len(self.distinct):
                check_cost_arguments("explore", workload, hardware, options["clip"], options["weights"])
                self.distinct.append(_Pair(workload, hardware, dataflow, key[1:]))
            self.of_point.append(position)

    def place(self, pair: _Pair, hardware: Accelerator) -> Placement:
        """The placement of a pair on an accelerator, which may stand for many."""
        return place_for(pair.dataflow, pair.workload, hardware, **self.options)

    def priced(self, pair: _Pair, hardware: Accelerator, count: int) -> Priced:
        """What `count` pairs share that are priced at once."""
        return Priced.of(self.place(pair, hardware), count)


class _Placements(Sequence[Placement]):
    """The placements of points, each made when it is read for the first time."""

    def __init__(self, pairs: _Pairs, points: list[Point]) -> None:
        self._pairs, self._points = pairs, points
        self._made: dict[int, Placement] = {}

    def __len__(self) -> int:
        return len(self._points)

    @overload
    def __getitem__(self, number: int) -> Placement: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[Placement, ...]: ...

    def __getitem__(self, number: int | slice) -> Placement | tuple[Placement, ...]:
        if isinstance(number, slice):
            return tuple(self[each] for each in range(len(self))[number])
        priced = self._points[number].priced
        if len(priced.numbers) == 1:
            return priced.placement
        position = self._pairs.of_point[number]
        if position not in self._made:
            pair = self._pairs.distinct[position]
            self._made[position] = self._pairs.place(pair, pair.hardware)
        return self._made[position]

    def __repr__(self) -> str:
        return f"{len(self):,} placements"
