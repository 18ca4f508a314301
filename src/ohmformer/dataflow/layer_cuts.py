"""How a dataflow cuts a layer: its units, the segments between stages that wait for all tokens, and its blocks."""

from __future__ import annotations

from itertools import pairwise

from ohmformer.cost.placement import PlacedLayer, Placement
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.dataflow.spec import Dataflow

Segment = tuple[int, int, bool]
"""First stage, end (the stage after its last), and whether the stages take the sequence whole."""

SOFTMAX = "softmax"
"""Name of the one set of softmax units for which layers wait."""


def unit_name(layer: PlacedLayer, stage: Stage) -> str:
    """Name of the unit that a stage occupies: the same for all layers if they share it."""
    return stage.unit if stage.shared else f"{layer.name}: {stage.unit}"


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
    """The units that the stage at `index` occupies beside its own: the softmax units, if others wait for them."""
    return (SOFTMAX,) if index in layer.softmax and placement.shares_softmax else ()


def segments(layer: PlacedLayer, dataflow: Dataflow) -> tuple[Segment, ...]:
    """The segments of a layer's stages; each starts when the one before it has finished all blocks.

    Stages from `gather` up to `join` take the sequence whole, all others block by block.
    """
    end = len(layer.stages)
    if not dataflow.joins():
        return ((0, end, False),)
    cuts = [cut for cut in (layer.gather, layer.join) if cut is not None]
    edges = [*sorted({0, *cuts, *layer.later_joins}), end]
    whole = range(layer.gather, layer.join) if layer.gather is not None and layer.join is not None else range(0)
    return tuple((first, last, first in whole) for first, last in pairwise(edges))


def sets_of_cells(placement: Placement, layer: PlacedLayer, stage: Stage) -> int | None:
    """Number of sets of cells with which writes take turns; None if every write of a pass has cells of its own."""
    if stage.shared:
        return placement.kv_sets
    return None if layer.kept else 1
