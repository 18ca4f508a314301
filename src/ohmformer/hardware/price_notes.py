"""What a reader must know of the prices of a machine: readings of its timing, prices that do not follow its arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ohmformer.array.spec import Crossbar
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, SimdEngine
from ohmformer.mitigation.budget import KVBudget
from ohmformer.mitigation.spec import WeightMitigation

MOST = 3
"""Largest number of differences that a note lists."""
FIRST_COME = (
    "tokens wait for digital units (chip.vector.units, or units of an engine) first come, first served; latency is "
    "that of the event engine, since no closed form holds"
)
"""Note on machines with such units."""

CHOSEN = (
    "mitigation.{} = '{}' is chosen where accuracy is measured: priced without it; `ohmformer run` and `compare` price "
    "what is chosen"
)
"""Note on a mitigation that is chosen only where accuracy is measured."""

UNUSED = "mitigation.{} changes nothing where {} not in memristive cells"
"""Note on a fixed mitigation, on an accelerator without memristive cells for what it mitigates."""


def arrays_of(hardware: Accelerator) -> Iterator[tuple[str, Crossbar]]:
    """("projection" or "attention", array) of every engine that has arrays."""
    for role, engine in hardware.engines.items():
        if isinstance(engine, ArrayEngine):
            yield role.partition(".")[0], engine.array


def one_access_notes(arrays: Iterable[tuple[str, Crossbar]]) -> list[str]:
    """Notes on arrays that take the time of one access for all bits of an input.

    Args:
        arrays: (whose array, such as "projection", array).
    """
    places: dict[int, dict[str, None]] = {}
    for place, array in arrays:
        cycles, cost = array.cycles(), array.cost
        if cost is not None and cost.timing == "one_access" and cycles > 1 and array.inputs.kind != "integrated":
            places.setdefault(cycles, {})[place] = None
    return [
        f"cost.timing = 'one_access' of {' and '.join(names)} arrays: up to {cycles} times faster than reads and "
        "conversions allow"
        for cycles, names in places.items()
    ]


def array_notes(arrays: list[tuple[str, Crossbar]]) -> list[str]:
    """All notes on the arrays of a machine: on their timing, and on what of them has no price."""
    return [
        *one_access_notes(arrays),
        *extrapolation_notes(arrays),
        *calibration_notes(arrays),
        *compensation_notes(arrays),
        *wire_notes(arrays),
    ]


def extrapolation_notes(arrays: Iterable[tuple[str, Crossbar]]) -> list[str]:
    """Notes on arrays with more or fewer lines than the source of their law covers.

    Args:
        arrays: (whose array, such as "projection", array).
    """
    found: dict[str, None] = {}
    for place, array in arrays:
        covered = array.cost.law.sourced_lines if array.cost is not None else None
        if array.cost is None or covered is None:
            continue
        at, (least, most) = array.cost.priced_at, covered
        published = (at.rows, at.columns) == (array.rows, array.columns)
        if not published and not all(least <= lines <= most for lines in (array.rows, array.columns)):
            found[
                f"cost.law.kind = {array.cost.law.kind!r} of {place} arrays: its source covers {least} to {most} rows "
                f"and columns, and {array.rows} x {array.columns} is extrapolated"
            ] = None
    return list(found)


def calibration_notes(arrays: Iterable[tuple[str, Crossbar]]) -> list[str]:
    """Notes on calibrations of converters, which have no price.

    Args:
        arrays: (whose array, such as "projection", array).
    """
    calibrated = [place for place, array in arrays if array.peripherals.calibration is not None]
    if not calibrated:
        return []
    places = " and ".join(dict.fromkeys(calibrated))
    return [f"peripherals.calibration of {places} arrays: its conversions, once for a chip, are not priced"]


def compensation_notes(arrays: Iterable[tuple[str, Crossbar]]) -> list[str]:
    """A note on arrays that compensate drift: what of that has no price.

    Args:
        arrays: (whose array, such as "projection", array).
    """
    places = dict.fromkeys(place for place, array in arrays if array.drift_compensation != "none")
    if not places:
        return []
    return [
        f"drift_compensation of {' and '.join(places)} arrays: one multiplication per result is priced; the readings "
        "that give the factors are not part of a pass; cost.weight_programming.compensation_reading prices one"
    ]


def wire_notes(arrays: Iterable[tuple[str, Crossbar]]) -> list[str]:
    """A note on arrays whose wires lose voltage, which prices leave out.

    Args:
        arrays: (whose array, such as "projection", array).
    """
    places = dict.fromkeys(place for place, array in arrays if array.wires is not None)
    if not places:
        return []
    return [f"wires of {' and '.join(places)} arrays: prices are those without the voltage that wires lose"]


def unlike_tiles(chip: Chip, arrays: list[tuple[str, Crossbar]]) -> tuple[str, list[str]]:
    """What the prices of cores and tiles hold for, and what tiles hold instead.

    Args:
        chip: the chip.
        arrays: (whose array, array) for all arrays of its tiles.
    """
    at, sizes = chip.priced_with, dict[str, dict[str, None]]()
    for place, array in arrays:
        if None not in (at.rows, at.columns) and (array.rows, array.columns) != (at.rows, at.columns):
            sizes.setdefault(f"{array.rows} x {array.columns}", {})[place] = None
    found = [f"{size} ({', '.join(places)})" for size, places in sizes.items()]
    for name, words in (("arrays_per_core", "arrays in a core"), ("cores_per_tile", "cores in a tile")):
        if getattr(at, name) not in (None, getattr(chip, name)):
            found.append(f"{getattr(chip, name)} {words}")
    held = f"arrays of {at.rows} x {at.columns}, {at.arrays_per_core} in a core and {at.cores_per_tile} cores in a tile"
    return held, found


def tile_note(held: str, found: list[str]) -> str:
    """A note on tiles that hold something else than what their prices hold for."""
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return (
        f"power and area of cores and tiles (without their arrays) are those published for {held}, while there are "
        f"{', '.join(found[:MOST])}{more}: see chip.priced_with"
    )


def unit_notes(machines: Iterable[Accelerator]) -> list[str]:
    """A note if tokens wait for the digital units of a machine first come, first served."""
    for hardware in machines:
        engines = (engine for engine in hardware.engines.values() if isinstance(engine, SimdEngine))
        vector = None if hardware.chip is None else hardware.chip.vector.units
        if vector is not None or any(engine.units is not None for engine in engines):
            return [FIRST_COME]
    return []


def machine_notes(hardware: Accelerator) -> list[str]:
    """All notes on the prices of a machine, each once."""
    arrays = list(arrays_of(hardware))
    notes = array_notes(arrays)
    if hardware.chip is not None:
        held, found = unlike_tiles(hardware.chip, arrays)
        notes += [tile_note(held, found)] if found else []
    return notes


class Mitigations(Protocol):
    """What a study says of mitigations: each is none, a choice that is made where accuracy is measured, or fixed."""

    @property
    def clip(self) -> object:
        """Clip of K and V."""

    @property
    def kv(self) -> object:
        """Conditioning of K and V."""

    @property
    def weights(self) -> object:
        """Mitigation of static weights."""


def mitigation_notes(points: Iterable[tuple[Accelerator, Mitigations]]) -> list[str]:
    """Notes on mitigations that are chosen elsewhere, and on those without effect on an accelerator, each once."""
    notes = []
    for hardware, chosen in points:
        attention = (hardware.attention.key, hardware.attention.value)
        for name, value, what, engines in (
            ("clip", chosen.clip, "attention is", attention),
            ("kv", chosen.kv, "attention is", attention),
            ("weights", chosen.weights, "weights are", (hardware.projection,)),
        ):
            memristive = any(isinstance(engine, CrossbarEngine) for engine in engines)
            if value in ("calibrated", "auto") or isinstance(value, KVBudget):
                notes.append(CHOSEN.format(name, "auto" if isinstance(value, KVBudget) else value))
            elif value not in ("none", WeightMitigation()) and not memristive:
                notes.append(UNUSED.format(name, what))
    return list(dict.fromkeys(notes))
