"""What a reader must know of the prices of a machine: readings of its timing, prices that do not follow its arrays."""

from __future__ import annotations

from collections.abc import Iterator

from ohmformer.array.spec import Crossbar
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.spec import Accelerator, ArrayEngine

MOST = 3
"""Largest number of differences that a note lists."""


def arrays_of(hardware: Accelerator) -> Iterator[tuple[str, Crossbar]]:
    """("projection" or "attention", array) of every engine that has arrays."""
    for role, engine in hardware.engines.items():
        if isinstance(engine, ArrayEngine):
            yield role.partition(".")[0], engine.array


def one_access_note(place: str, array: Crossbar) -> str:
    """A note on arrays that take the time of one access for all input bits; empty if they take that of all accesses.

    Args:
        place: whose arrays they are, such as "projection".
        array: the array.
    """
    cycles = array.cycles()
    if array.cost is None or array.cost.timing != "one_access" or cycles == 1 or array.inputs.kind == "integrated":
        return ""
    return (
        f"{place} arrays take the time of 1 access for {cycles} (cost.timing = 'one_access', a reading of one paper): "
        f"times are up to {cycles} times shorter, and rates higher, than reads and conversions allow; energies are "
        "those of all accesses"
    )


def unlike_tiles(chip: Chip, arrays: list[tuple[str, Crossbar]]) -> tuple[str, list[str]]:
    """What the prices of cores and tiles hold for, and what tiles hold instead.

    Args:
        chip: the chip.
        arrays: (whose array, array) for all arrays of its tiles.
    """
    at, found = chip.priced_with, []
    for place, array in arrays:
        if None not in (at.rows, at.columns) and (array.rows, array.columns) != (at.rows, at.columns):
            found.append(f"{array.rows} x {array.columns} ({place})")
    for name, words in (("arrays_per_core", "arrays in a core"), ("cores_per_tile", "cores in a tile")):
        if getattr(at, name) not in (None, getattr(chip, name)):
            found.append(f"{getattr(chip, name)} {words}")
    held = f"arrays of {at.rows} x {at.columns}, {at.arrays_per_core} in a core and {at.cores_per_tile} cores in a tile"
    return held, list(dict.fromkeys(found))


def tile_note(held: str, found: list[str]) -> str:
    """A note on tiles that hold something else than what their prices hold for."""
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return (
        f"power and area of cores and tiles (without their arrays) are those published for {held}, while there are "
        f"{', '.join(found[:MOST])}{more}: see chip.priced_with"
    )


def machine_notes(hardware: Accelerator) -> list[str]:
    """All notes on the prices of a machine, each once."""
    arrays = list(arrays_of(hardware))
    notes = [note for place, array in arrays if (note := one_access_note(place, array))]
    if hardware.chip is not None:
        held, found = unlike_tiles(hardware.chip, arrays)
        notes += [tile_note(held, found)] if found else []
    return list(dict.fromkeys(notes))
