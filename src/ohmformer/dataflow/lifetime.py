"""How long cells last that are written at run time: writes per cell, pulses per write, spare arrays, wear levelling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ohmformer.cost.placement import Placement
from ohmformer.cost.write_wear import Wear
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput


@dataclass(frozen=True)
class Lifetime:
    """When the first cells wear out.

    Attributes:
        seconds: until then; infinite where nothing is written.
        role: attention.key or attention.value, whichever wears out first; empty where nothing is written.
        rate: passes per second.
        writes_per_second: of one cell.
        pulses: that wear a cell in one write, repetitions of verified writes included.
        endurance: pulses that a cell survives.
        arrays: whether layers share arrays.
        cell: that wears out; None where nothing is written.
    """

    seconds: float
    role: str
    rate: float
    writes_per_second: float
    pulses: float
    endurance: float
    arrays: str
    cell: Cell | None = None


def lifetime(placement: Placement, rate: float, *, levelling: bool = False, spare: float = 0.0) -> Lifetime | None:
    """The lifetime at a rate; None where cells are written whose endurance nobody knows.

    Args:
        placement: a workload on an accelerator.
        rate: passes (of all samples of the workload) per second.
        levelling: whether writes are spread over all cells, used or not; otherwise the most written cell decides.
        spare: spare arrays as a share of those in use; they take turns with them.

    Raises:
        BadInput: the rate is not positive, or the share of spares negative; or one of them is not finite.
    """
    if not 0 < rate < inf:
        raise BadInput(f"cost.rate = {rate:g}: must be > 0 and finite; give passes per second")
    if not 0 <= spare < inf:
        raise BadInput(f"cost.spare = {spare:g}: must be >= 0 and finite; correct it")
    if placement.counts.cell_writes == 0:
        return Lifetime(inf, "", rate, 0.0, 0, inf, placement.hardware.attention.arrays)
    stored = [role for role in placement.arrays if role != "projection"]
    if {wear.role for wear in placement.wear} != set(stored):
        return None
    found = [_of_role(wear, rate, levelling, spare) for wear in placement.wear]
    return min(found, key=lambda entry: entry.seconds)


def _of_role(wear: Wear, rate: float, levelling: bool, spare: float) -> Lifetime:
    writes = (wear.mean_writes if levelling else wear.writes) * rate
    seconds = wear.endurance / (writes * wear.pulses) * (1 + spare)
    arrays = "shared" if wear.shared else "per_layer"
    return Lifetime(seconds, wear.role, rate, writes, wear.pulses, wear.endurance, arrays, wear.engine.array.cell)
