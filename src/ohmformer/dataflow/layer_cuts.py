"""How a dataflow cuts a layer: its units, the segments between stages that wait for all tokens, and its blocks."""

from __future__ import annotations

from itertools import pairwise

from ohmformer.cost.placement import PlacedLayer, Placement
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.dataflow.spec import Dataflow

SOFTMAX = "softmax"
"""Name of the one set of softmax units that all layers use."""


def unit_name(layer: PlacedLayer, stage: Stage) -> str:
    """Name of the unit that a stage occupies: the same for all layers if they share it."""
    return stage.unit if stage.shared else f"{layer.name}: {stage.unit}"


def cuts_of(layer: PlacedLayer, dataflow: Dataflow) -> tuple[int, int]:
    """The positions (gather, join) that cut a layer's stages into three segments.

    Stages before `gather` and from `join` on take the sequence block by block; stages between take it whole. A segment
    starts when the one before it has finished all blocks.

    Returns:
        (0, 0) if no stage waits for all blocks; gather = join if only the stage `join` does.
    """
    if layer.join is None or not dataflow.joins():
        return 0, 0
    return layer.join if layer.gather is None else layer.gather, layer.join


def writer_of(stages: tuple[Stage, ...], index: int) -> int | None:
    """Position of the stage that writes the cells which the stage at `index` reads; None if it reads no such cells."""
    if stages[index].engine != "attention" or stages[index].name in ("write", CONDITIONING):
        return None
    return max((place for place in range(index) if stages[place].name == "write"), default=None)


def blocks(tokens: int, size: int) -> list[int]:
    """Sizes of the blocks of a sequence; the last one may be smaller."""
    whole, rest = divmod(tokens, size)
    return [size] * whole + ([rest] if rest else [])


def further_units(placement: Placement, layer: PlacedLayer, index: int) -> tuple[str, ...]:
    """The units that the stage at `index` occupies beside its own: the softmax units, if there is one set for all."""
    return (SOFTMAX,) if placement.softmax_sets == "one" and index in layer.softmax else ()


def segments(layer: PlacedLayer, dataflow: Dataflow) -> list[tuple[int, int, bool]]:
    """The segments of a layer's stages; each starts when the one before it has finished all blocks.

    Returns:
        For each segment: first stage, end (the stage after its last), and whether it takes the sequence whole.
    """
    end = len(layer.stages)
    if not dataflow.joins():
        return [(0, end, False)]
    starts = {0, *layer.later_joins} | {cut for cut in (layer.gather, layer.join) if cut is not None}
    edges = [*sorted(starts), end]
    gather, join = cuts_of(layer, dataflow)
    return [(first, last, gather <= first < join) for first, last in pairwise(edges)]


def sets_of_cells(placement: Placement, layer: PlacedLayer, stage: Stage) -> int | None:
    """Number of sets of cells with which writes take turns; None if every write of a pass has cells of its own."""
    if stage.shared:
        return placement.kv_sets
    return None if layer.kept else 1
