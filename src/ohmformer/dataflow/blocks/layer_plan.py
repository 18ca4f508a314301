"""The plan of a layer: the order in which blocks and samples pass its stages, and what each stage waits for.

It depends on no time and no block size, so equal layers and all designs that are computed together share one.
"""

from __future__ import annotations

from typing import NamedTuple

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.layer_cuts import (
    Segment,
    kind_of,
    loops,
    segments,
    sets_of_cells,
    unit_name,
    units_of,
    writer_of,
)
from ohmformer.dataflow.spec import Dataflow


class Step(NamedTuple):
    """One stage.

    Attributes:
        place: its position in the layer.
        units: the units that it occupies, its own first.
        sets: number of sets of cells with which a write stage takes turns; None for other stages, and for writes to
            cells that are not written again.
    """

    place: int
    units: tuple[str, ...]
    sets: int | None


class StageRun(NamedTuple):
    """Consecutive stages that blocks pass without waiting for one another.

    Attributes:
        whole: True if they take the sequence as one block.
        waits: True if all blocks of a sample must have arrived before its first one may enter.
        repeats: True if two of the stages use the same unit.
        steps: the stages.
    """

    whole: bool
    waits: bool
    repeats: bool
    steps: tuple[Step, ...]


class Range(NamedTuple):
    """Consecutive stages that samples pass in the same way.

    Attributes:
        in_turn: True if a sample enters when the one before it has left; False if samples pass stage by stage.
        runs: the stages.
        units: the units of the stages.
        writers: the units that write cells.
        reads: for each write stage whose cells are read here: position of the stage that reads them last, and the unit
            that writes them.
    """

    in_turn: bool
    runs: tuple[StageRun, ...]
    units: tuple[str, ...]
    writers: tuple[str, ...]
    reads: tuple[tuple[int, str], ...]


class LayerPlan(NamedTuple):
    """The plan of one layer, and of all layers that differ only in their name.

    Attributes:
        ranges: the stages, in order.
        setup: the unit of the setup; None without one.
        shared: the units that other layers use, too.
        own: the units that no other layer uses.
        cells: the units of stages that layers share; those that write cells are among them.
    """

    ranges: tuple[Range, ...]
    setup: str | None
    shared: tuple[str, ...]
    own: tuple[str, ...]
    cells: tuple[str, ...]


class Plans:
    """The plans of the layers of a placement, each made once.

    Attributes:
        placement: the workload on the accelerator, or on all those that were priced at once.
        dataflow: one without jobs of its own; its block size is not used.
        samples: number of samples that pass a layer together.
        ahead: for each layer, the number of equal layers that follow it.
    """

    def __init__(self, placement: Placement, dataflow: Dataflow) -> None:
        self.placement, self.dataflow = placement, dataflow
        self.samples = placement.workload.batch if dataflow.batching == "pipelined" else 1
        self._kinds = kinds = [kind_of(layer) for layer in placement.layers]
        self.ahead = [0] * len(kinds)
        for index in range(len(kinds) - 2, -1, -1):
            self.ahead[index] = self.ahead[index + 1] + 1 if kinds[index] == kinds[index + 1] else 0
        self._made: dict[tuple[object, ...], LayerPlan] = {}

    def of(self, index: int) -> LayerPlan:
        """The plan of the layer at `index`."""
        kind = self._kinds[index]
        if kind not in self._made:
            layer = self.placement.layers[index]
            self._made[kind] = _layer_plan(self.placement, layer, self.dataflow, self.samples)
        return self._made[kind]


def _layer_plan(placement: Placement, layer: PlacedLayer, dataflow: Dataflow, samples: int) -> LayerPlan:
    """The plan of a layer that `samples` samples pass together."""
    units = units_of(placement, layer)
    setup = None if layer.setup is None else unit_name(layer, layer.setup)
    shared = {unit for further in units for unit in further[1:]}
    shared |= {layer.on_chip(stage.unit) for stage in layer.all_stages() if stage.shared}
    used = {unit for names in units for unit in names} | ({setup} if setup else set())
    ends = loops(placement, layer) if samples > 1 else ((0, len(layer.stages), False),)
    steps = [Step(place, names, _sets(placement, layer, place)) for place, names in enumerate(units)]
    parts = segments(layer, dataflow)
    ranges = tuple(_range(layer, steps, parts, *each) for each in ends)
    cells = {layer.on_chip(stage.unit) for stage in layer.stages if stage.shared}
    return LayerPlan(ranges, setup, tuple(sorted(shared)), tuple(sorted(used - shared)), tuple(sorted(cells)))


def _range(
    layer: PlacedLayer, steps: list[Step], parts: tuple[Segment, ...], first: int, end: int, in_turn: bool
) -> Range:
    """The stages from `first` to the one before `end`."""
    runs = []
    for begin, stop, whole in parts:
        if chosen := tuple(steps[max(begin, first) : min(stop, end)]):
            names = [unit for step in chosen for unit in step.units]
            waits = chosen[0].place == begin and bool(begin or whole)
            runs.append(StageRun(whole, waits, len(set(names)) < len(names), chosen))
    stages = layer.stages
    readers = {writer_of(stages, place): place for place in range(first, end)}
    return Range(
        in_turn,
        tuple(runs),
        tuple(sorted({unit for step in steps[first:end] for unit in step.units})),
        tuple(sorted({step.units[0] for step in steps[first:end] if stages[step.place].name == "write"})),
        tuple((place, steps[writer].units[0]) for writer, place in readers.items() if writer is not None),
    )


def _sets(placement: Placement, layer: PlacedLayer, place: int) -> int | None:
    """`Step.sets`."""
    stage = layer.stages[place]
    return sets_of_cells(placement, layer, stage) if stage.name == "write" else None
