"""`Priced`: what the design points share whose accelerators were priced at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ohmformer.cost.designs.per_design import value_at, values_of
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.machine.refresh import Refresh
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.closed_form import Array, has_equal_blocks, is_pipeline
from ohmformer.dataflow.layer_cuts import Segment, free_segments, joined_segments


class Pipeline(NamedTuple):
    """Equal layers of a placement, for N designs.

    Attributes:
        layer: the first of them.
        repeats: how many there are.
        start: for each design, the time at which their first stage may start [s].
        stages: [N, 5, S], the fields fixed, per_token, floor, cap and turn of their S stages.
        parts: their segments (see `layer_cuts.segments`) if attention does not wait for all blocks, and if it does.
    """

    layer: PlacedLayer
    repeats: int
    start: list[float]
    stages: Array
    parts: tuple[tuple[Segment, ...], tuple[Segment, ...]]


@dataclass(frozen=True, eq=False)
class Priced:
    """The placement of N designs that were priced at once, with the values that all their design points share.

    Attributes:
        placement: the placement.
        pipelines: its distinct layers.
        numbers: [N, 3], dynamic energy of all samples [J], standing power [W], area of the chip [m^2].
        closed: True if each layer is a pipeline (see `is_pipeline`).
        equal: True if equal blocks of each layer take equal times.
        gated: True if tiles draw standing power only at work.
    """

    placement: Placement
    pipelines: list[Pipeline]
    numbers: list[list[float]]
    closed: bool
    equal: bool
    gated: bool

    @classmethod
    def of(cls, placement: Placement, count: int) -> Priced:
        """What `count` designs share."""
        distinct = placement.distinct()
        pipelines = [
            Pipeline(
                layer,
                repeats,
                values_of(layer.setup.time(1) if layer.setup else 0.0, count).tolist(),
                _stage_times(layer.stages, count),
                (free_segments(layer), joined_segments(layer)),
            )
            for layer, repeats in distinct
        ]
        numbers = _columns([sum(placement.energy.values()), placement.power, placement.area], count).tolist()
        closed = all(is_pipeline(placement, layer) for layer, _ in distinct)
        equal = all(has_equal_blocks(layer, 1) for layer, _ in distinct)
        gated = any(stage.standing for layer, _ in distinct for stage in layer.all_stages())
        return cls(placement, pipelines, numbers, closed, equal, gated)

    def refresh(self, place: int) -> Refresh | None:
        """The refresh of one design; None if its cells keep their values."""
        found = self.placement.refresh
        if found is None:
            return None
        energy = {name: value_at(joules, place) for name, joules in found.energy.items()}
        interval, seconds, static = (value_at(one, place) for one in (found.interval, found.seconds, found.static))
        return Refresh(interval, seconds, energy, found.cell_writes, static)


def _stage_times(stages: tuple[Stage, ...], count: int) -> Array:
    """`Pipeline.stages`."""
    fields = ((stage.fixed, stage.per_token, stage.floor, stage.cap, stage.turn) for stage in stages)
    rows = np.array([_columns(list(values), count) for values in fields])  # [S, N, 5]
    return rows.transpose(1, 2, 0)


def _columns(numbers: list[Any], count: int) -> Array:
    """Numbers of N designs as columns [N, len(numbers)]."""
    return np.array([values_of(number, count) for number in numbers]).T
