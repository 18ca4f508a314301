"""What energy and area rest on: their shares by the origin of the numbers that they are proportional to.

Energy is proportional to all numbers in joules, joules per byte and watts together, area to all in square meters. So a
number's share is the relative change of the total when that number grows, over its growth, and all shares add up to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from ohmformer.changed_copy import with_values
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.tiles import Tiles, chip_area
from ohmformer.provenance import Source
from ohmformer.schema import Spec, walk
from ohmformer.study.record.written import unit_of
from ohmformer.study.results.record import Basis

T = TypeVar("T", bound=Spec)
H = TypeVar("H", bound=Spec)
Chosen = Callable[[str, Source | None], bool]
"""True for a number that is to grow: from its path below the specification, and its source."""

ENERGY, AREA = ("J", "J/B", "W"), ("m^2",)
"""Units of the numbers that energy and area are proportional to."""

GROWTH = 1.01
UNCERTAIN = ("assumed", "default")
"""Origins whose numbers are listed one by one."""

NOTHING = 1e-9
"""A share below this is rounding."""

PARTS = {
    "area": "cells and drivers",
    "dac_area": "row drivers (DAC)",
    "adc_area": "ADC",
    "sample_area": "sample and hold",
    "shift_add_area": "shift and add",
    "core_area": "cores, without arrays",
    "tile_area": "tiles, without cores",
    "node_area": "nodes, without tiles",
    "area_per_head": "softmax units",
}
"""Last name of a number in m^2 -> the part whose area it is."""


def origin(source: Source | None) -> str:
    """The origin of a number: the kind of its source, or `default`."""
    return source.kind if source else "default"


def grown(spec: T, units: tuple[str, ...], chosen: Chosen) -> T:
    """A copy of a specification in which the chosen numbers with these units are larger by `GROWTH`."""
    return _grown(spec, units, chosen, "")


def _grown(spec: T, units: tuple[str, ...], chosen: Chosen, prefix: str) -> T:
    changes: dict[str, object] = {}
    sources = dict(spec.provenance)
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            inner = _grown(value, units, chosen, f"{prefix}{name}.")
            if inner is not value:
                changes[name] = inner
        elif _is_amount(value, unit_of(spec, name), units) and chosen(f"{prefix}{name}", sources.get(name)):
            changes[name] = value * GROWTH
    return with_values(spec, changes) if changes else spec


def amounts(spec: Spec, units: tuple[str, ...]) -> Iterator[tuple[str, Source | None]]:
    """Path and source of each number above 0 with one of these units."""
    for path, value, source in walk(spec):
        if _is_amount(value, unit_of(spec, path), units):
            yield path, source


def _is_amount(value: object, unit: str, units: tuple[str, ...]) -> bool:
    """True for a number above 0 with one of the units."""
    return isinstance(value, float) and bool(value) and unit in units


def basis(hardware: H, energy_on: Callable[[H], float], area_on: Callable[[Chosen], float]) -> Basis:
    """What the energy and the area of a pass rest on.

    Args:
        hardware: the accelerator.
        energy_on: the energy of the pass on a changed copy of it [J].
        area_on: the area if the chosen numbers grow [m^2], see `area_if`.
    """
    energy, area = energy_on(hardware), area_on(lambda path, source: False)

    def of_energy(chosen: Chosen) -> float:
        return _share(energy_on(grown(hardware, ENERGY, chosen)), energy)

    def of_area(chosen: Chosen) -> float:
        return _share(area_on(chosen), area)

    return Basis(
        energy=_by_origin(hardware, ENERGY, of_energy),
        area=_by_origin(hardware, AREA, of_area),
        energy_of=_by_number(hardware, ENERGY, of_energy),
        area_of=_by_number(hardware, AREA, of_area),
    )


def _share(larger: float, total: float) -> float:
    return (larger / total - 1) / (GROWTH - 1) if total else 0.0


def _by_origin(hardware: Spec, units: tuple[str, ...], share: Callable[[Chosen], float]) -> dict[str, float]:
    """Origin -> share of all numbers of that origin, the largest first."""
    kinds = dict.fromkeys(origin(source) for _, source in amounts(hardware, units))
    found = {kind: share(lambda path, source, kind=kind: origin(source) == kind) for kind in kinds}  # type: ignore[misc]
    return _largest_first(found)


def _by_number(hardware: Spec, units: tuple[str, ...], share: Callable[[Chosen], float]) -> dict[str, float]:
    """Uncertain number -> its share, the largest first."""
    paths = [path for path, source in amounts(hardware, units) if origin(source) in UNCERTAIN]
    return _largest_first({path: share(lambda other, source, path=path: other == path) for path in paths})  # type: ignore[misc]


def _largest_first(shares: dict[str, float]) -> dict[str, float]:
    return dict(sorted(((name, value) for name, value in shares.items() if value > NOTHING), key=lambda each: -each[1]))


def area_if(machine: Machine, chosen: Chosen) -> float:
    """The area of a machine if the chosen numbers grow [m^2].

    Paths of arrays are those in the accelerator; arrays that rules name have paths below `rules`.
    """
    return sum(times * _chip_area(chip, chosen) for chip, times in zip(machine.by_chip, machine.sharing, strict=True))


def _chip_area(chip: Machine, chosen: Chosen) -> float:
    own = {id(engine.array): role for role, engine in chip.hardware.engines.items() if hasattr(engine, "array")}

    def array_of(array: T, role: str) -> T:
        place = f"{own.get(id(array), f'rules.{role}')}.array."
        return grown(array, AREA, lambda path, source: chosen(f"{place}{path}", source))

    used = Tiles(
        [(role, array if array is None else array_of(array, role), count) for role, array, count in chip.used.kinds],
        [(array_of(array, "attention"), count) for array, count in chip.used.transposable],
    )
    return chip_area(grown(chip.hardware, AREA, chosen), used, chip.heads, chip.softmax)


def area_parts(machine: Machine) -> dict[str, float]:
    """Part -> area [m^2], the largest first."""
    total = area_if(machine, lambda path, source: False)
    found: dict[str, float] = {}
    for part in dict.fromkeys(_part(path) for path, _ in amounts(machine.hardware, AREA)):
        larger = area_if(machine, lambda path, source, part=part: _part(path) == part)  # type: ignore[misc]
        found[part] = (larger - total) / (GROWTH - 1)
    return {part: size for part, size in sorted(found.items(), key=lambda each: -each[1]) if size > NOTHING * total}


def _part(path: str) -> str:
    """The part whose area a number is."""
    if ".cost." in path or path.startswith("chip."):
        return PARTS.get(path.rpartition(".")[2], path)
    return "die of the GPU, digital engines"
