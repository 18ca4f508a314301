"""How long the cells last that are written at run time.

Lifetime = endurance / (writes per second of a cell x pulses per write) x (1 + spare arrays).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import inf
from numbers import Real

from ohmformer import units
from ohmformer.cost.placement import Placement
from ohmformer.cost.write_wear import Wear
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput, given, shown


@dataclass(frozen=True)
class Lifetime:
    """When the first cells wear out, and what decides it.

    Attributes:
        seconds: time until the first cells wear out; infinite if nothing is written.
        role: attention.key or attention.value, whichever wears out first; empty if nothing is written.
        rate: passes per second.
        writes_per_second: writes per second of one cell.
        pulses: mean number of pulses per write that wear a cell, repetitions of verified writes included.
        endurance: number of pulses that a cell survives.
        arrays: "shared" if layers share arrays, else "per_layer".
        cell: the cell that wears out; None if nothing is written.
    """

    seconds: float
    role: str
    rate: float
    writes_per_second: float
    pulses: float
    endurance: float
    arrays: str
    cell: Cell | None = None


def lifetime(
    placement: Placement, rate: float, *, leveling: bool = False, spare: float = 0.0, refreshes: float = 0.0
) -> Lifetime | None:
    """The lifetime of the cells that hold keys and values.

    Args:
        placement: a workload on an accelerator.
        rate: passes (of all samples of the workload) per second.
        leveling: True if wear leveling spreads writes over all cells, used or not; otherwise the most written cell
            decides.
        spare: number of spare arrays divided by the number in use; the two take turns.
        refreshes: refreshes of all cells in a pass.

    Returns:
        The lifetime, or None if cells are written whose endurance is unknown.

    Raises:
        BadInput: the rate is not positive and finite, or `spare` is negative or not finite.
    """
    written_roles = {role for role in placement.arrays if role != "projection"}
    if placement.counts.cell_writes == 0 and not refreshes:
        written_roles = set()
    kind = placement.hardware.attention.arrays
    wear = [entry.with_refreshes(refreshes) for entry in placement.wear] if refreshes else placement.wear
    return lifetime_of(wear, written_roles, rate, kind, leveling=leveling, spare=spare)


def lifetime_of(
    wear: Sequence[Wear], written_roles: Set[str], rate: float, arrays: str, *, leveling: bool, spare: float
) -> Lifetime | None:
    """The lifetime of cells from their writes.

    Args:
        wear: writes of one pass, for each kind of array.
        written_roles: the roles whose cells are written; empty if no cell is.
        rate: passes per second.
        arrays: "shared" or "per_layer", for a machine whose cells are never written.
        leveling: see `lifetime`.
        spare: see `lifetime`.

    Returns:
        The lifetime, or None if cells are written whose endurance is unknown.

    Raises:
        BadInput: the rate is not positive and finite, or `spare` is negative or not finite.
    """
    if not 0 < rate < inf:
        raise BadInput(f"cost.rate = {rate:g}: must be > 0 and finite; give passes per second")
    if not 0 <= spare < inf:
        raise BadInput(f"cost.spare = {spare:g}: must be >= 0 and finite; correct it")
    if not written_roles:
        return Lifetime(inf, "", rate, 0.0, 0, inf, arrays)
    if {entry.role for entry in wear} != set(written_roles):
        return None
    lifetimes = [_lifetime_of(entry, rate, leveling, spare) for entry in wear]
    return min(lifetimes, key=lambda entry: entry.seconds)


def _lifetime_of(wear: Wear, rate: float, leveling: bool, spare: float) -> Lifetime:
    """The lifetime of the cells of one role."""
    writes_per_second = wear.writes(leveling=leveling) * rate
    seconds = wear.endurance / (writes_per_second * wear.pulses) * (1 + spare)
    arrays = "shared" if wear.shared else "per_layer"
    cell = wear.engine.array.cell
    return Lifetime(seconds, wear.role, rate, writes_per_second, wear.pulses, wear.endurance, arrays, cell)


def given_rate(rate: object) -> float:
    """Return a rate [Hz] that is given as a number, or as text with a unit.

    Raises:
        BadInput: it is neither.
    """
    if not isinstance(rate, str):
        return real_number("rate", rate, 'passes per second, such as 20 or "20 Hz"')
    try:
        return units.parse(rate, "Hz")
    except ValueError as error:
        raise BadInput(f"lifetime: rate = {shown(rate)}: {error}") from None


def real_number(name: str, value: object, remedy: str) -> float:
    """Return a real number of any type as a float.

    Raises:
        BadInput: the value is not a real number.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise BadInput(f"lifetime: {name} is {given(value)}; give {remedy}")
    return float(value)
