"""How a dataflow cuts a layer: its units, the segments between stages that wait for all tokens, and its blocks."""

from __future__ import annotations

from itertools import pairwise

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import CONDITIONING, MEMORY, Stage
from ohmformer.dataflow.spec import Dataflow

Segment = tuple[int, int, bool]
"""First stage, end (the stage after its last), and whether the stages take the sequence whole."""

SOFTMAX = "softmax"
"""Name of the one set of softmax units for which layers wait."""


def unit_name(layer: PlacedLayer, stage: Stage) -> str:
    """Name of the unit that a stage occupies: the same for all layers of a chip if they share it."""
    if stage.shared:
        return stage.unit if layer.chip is None else layer.on_chip(stage.unit)
    return f"{layer.name}: {stage.unit}"


def writer_of(stages: tuple[Stage, ...], index: int) -> int | None:
    """Position of the stage that writes the cells which the stage at `index` reads; None if it reads no such cells."""
    stage = stages[index]
    if stage.engine != "attention" or stage.pool or stage.name in ("write", CONDITIONING):
        return None
    return max((place for place in range(index) if stages[place].name == "write"), default=None)


def blocks(tokens: int, size: int) -> list[int]:
    """Sizes of the blocks of a sequence; the last one may be smaller."""
    whole, rest = divmod(tokens, size)
    return [size] * whole + ([rest] if rest else [])


def further_units(placement: Placement, layer: PlacedLayer, index: int) -> tuple[str, ...]:
    """The units that a stage occupies beside its own: softmax units, and the memory off the chip, if others wait."""
    softmax = (layer.on_chip(SOFTMAX),) if index in layer.softmax and placement.shares_softmax else ()
    if not layer.stages[index].off_chip or not placement.shares_memory:
        return softmax
    return *softmax, layer.on_chip(MEMORY)


def units_of(placement: Placement, layer: PlacedLayer) -> list[tuple[str, ...]]:
    """The units that each stage of a layer occupies, its own first."""
    places = enumerate(layer.stages)
    return [(unit_name(layer, stage), *further_units(placement, layer, place)) for place, stage in places]


def segments(layer: PlacedLayer, dataflow: Dataflow) -> tuple[Segment, ...]:
    """The segments of a layer's stages; each starts when the one before it has finished all blocks.

    Stages from `gather` up to `join`, and those that are `Stage.whole`, take the sequence whole, all others block by
    block.
    """
    return joined_segments(layer) if dataflow.decides("has_barrier") else free_segments(layer)


def joined_segments(layer: PlacedLayer) -> tuple[Segment, ...]:
    """The segments of a layer's stages if attention waits for all blocks."""
    cuts = [cut for cut in (layer.gather, layer.barrier) if cut is not None]
    whole = range(layer.gather, layer.barrier) if layer.gather is not None and layer.barrier is not None else range(0)
    return _cut(layer, {*cuts, *layer.later_barriers}, whole)


def free_segments(layer: PlacedLayer) -> tuple[Segment, ...]:
    """The segments of a layer's stages if attention does not wait for all blocks."""
    return _cut(layer, set(), range(0))


def _cut(layer: PlacedLayer, cuts: set[int], whole: range) -> tuple[Segment, ...]:
    """The segments between cuts, and around stages that take all tokens of a sample at once."""
    alone = {place for place, stage in enumerate(layer.stages) if stage.whole}
    edges = [*sorted({0, *cuts, *alone, *(place + 1 for place in alone)} - {len(layer.stages)}), len(layer.stages)]
    return tuple((first, last, first in whole or first in alone) for first, last in pairwise(edges))


def loops(placement: Placement, layer: PlacedLayer) -> tuple[tuple[int, int, bool], ...]:
    """Ranges of stages, in order: those that samples pass in turn, and those that all samples pass stage by stage.

    A later stage holds up the next sample in an earlier one if both use one unit, or if the later one reads cells that
    the earlier one writes again. Such stages, and those between them, form a loop.

    Returns:
        For each range: first stage, end (the stage after its last), and whether it is a loop.
    """
    count = len(layer.stages)
    last_of: dict[str, int] = {}
    spans = []
    for place in range(count - 1, -1, -1):
        stage = layer.stages[place]
        units = (unit_name(layer, stage), *further_units(placement, layer, place))
        last = max(last_of.setdefault(unit, place) for unit in units)
        if stage.name == "write" and sets_of_cells(placement, layer, stage) is not None:
            last = max([last, *(each for each in range(count) if writer_of(layer.stages, each) == place)])
        if last > place:
            spans.append((place, last + 1))
    ranges: list[tuple[int, int, bool]] = []
    at = 0
    for first, end in reversed(spans):
        if first >= at:
            ranges += [(at, first, False)] if first > at else []
            ranges.append((first, end, True))
        else:
            begin = ranges.pop()[0]
            ranges.append((begin, max(at, end), True))
        at = ranges[-1][1]
    return tuple(ranges) if at == count else (*ranges, (at, count, False))


def sets_of_cells(placement: Placement, layer: PlacedLayer, stage: Stage) -> int | None:
    """Number of sets of cells with which writes take turns; None if every write of a pass has cells of its own."""
    if stage.shared:
        return placement.kv_sets
    return None if layer.kept else 1


def kind_of(layer: PlacedLayer) -> tuple[object, ...]:
    """What decides the times of a layer, beside those at which blocks enter it."""
    waits = layer.barrier, layer.gather, layer.later_barriers, layer.softmax
    return layer.tokens, layer.kept, waits, tuple(map(id, layer.stages)), id(layer.setup), layer.chip
