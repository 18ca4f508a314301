"""What differs between the array that prices hold for and the array that is priced, and which law carries prices over.

A difference that no law covers is refused, with all its fields in one line.
"""

from __future__ import annotations

from typing import NamedTuple

from ohmformer import units
from ohmformer.array.prices.array_laws import ArraySize
from ohmformer.array.prices.spec import ArrayCost, used_array
from ohmformer.array.spec import Crossbar, bits_needed
from ohmformer.errors import BadInput
from ohmformer.registry import called

MOST_BITS = 16
"""Largest resolution of a converter that is priced [bits]."""
CARRIED = ("read_energy", "area", "adc_energy", "adc_area")
"""Prices that no law carries over where another price includes one of them."""
PLACES = {"g_min": "cell.g_min", "g_max": "cell.g_max", "technology": "cost.technology"}
"""Field of `priced_at` -> field of the array, where the names differ."""
CONDUCTANCES = ("g_min", "g_max", "encoding")
"""Fields that decide the mean conductance of a cell."""


def converter_bits(array: Crossbar) -> int:
    """Resolution of the ADC that is priced [bits]; an ideal ADC is priced as the smallest that loses nothing."""
    if array.adc.bits != "ideal":
        return array.adc.bits
    serial = array.inputs.kind == "bit_serial"
    top = 1 if serial else array.max_input(signed=True)
    both = array.subtract == "analog" or not serial
    return bits_needed(array.rows, array.bits_per_cell, levels=array.levels, max_input=top, both_signs=both)


def sizes(array: Crossbar, cost: ArrayCost) -> tuple[ArraySize, ArraySize]:
    """The array that the prices hold for, and the array that is priced."""
    at, here = cost.priced_at, array.conductance
    old = ArraySize(
        at.rows or array.rows,
        at.columns or array.columns,
        at.dac_bits or array.dac_bits,
        at.technology,
        at.conductance or here,
    )
    return old, ArraySize(array.rows, array.columns, array.dac_bits, cost.technology or at.technology, here)


def sizes_of_write(array: Crossbar, cost: ArrayCost) -> tuple[ArraySize, ArraySize]:
    """The same for a write: it has two levels, whatever the inputs, and its prices are those of a cell."""
    old, new = sizes(array, cost)
    before = here = None
    if follows_conductance(cost):
        before, here = array.cell.priced_conductance, array.cell.write_conductance
    return old._replace(dac_bits=1, conductance=before), new._replace(dac_bits=1, conductance=here)


def follows_conductance(cost: ArrayCost) -> bool:
    """True if the law of a table carries prices over to cells of another conductance."""
    return cost.law.scales and bool(called(cost.law, "follows_conductance"))


class _Uncovered(NamedTuple):
    """Fields that differ, and what would cover them.

    Attributes:
        fields: names of fields of `priced_at`.
        remedy: the law that would carry prices over, or what to keep.
    """

    fields: list[str]
    remedy: str


def check_laws(array: Crossbar, where: str) -> None:
    """Refuse a difference between the published and the priced array that no law covers.

    Args:
        array: an array with prices.
        where: its path, for messages, such as "hardware.projection.array".

    Raises:
        BadInput: one line with the fields, their values and the remedy.
    """
    cost = array.cost
    assert cost is not None
    old, new = sizes(array, cost)
    bits = converter_bits(array)
    converter_differs = bits != cost.adc_bits or array.adc.rate is not None
    if old == new and not converter_differs:
        return
    if cost.technology is not None and old.technology is None:
        raise BadInput(
            f"{where}.cost.technology = {cost.technology:g}: the feature size that the prices hold for is unknown; "
            "state it in cost.priced_at.technology, or leave cost.technology out"
        )
    _refuse(array, cost, where, _uncovered(cost, old, new, _changed(array, cost)))
    if old.dac_bits != new.dac_bits:
        _check_drivers(cost, where, old, new)
    if bits > MOST_BITS:
        raise BadInput(
            f"{where}.adc.bits = 'ideal': a converter that loses nothing would have {bits} bits, for which no price "
            f"holds; give it up to {MOST_BITS} bits"
        )
    resized = old._replace(conductance=None) != new._replace(conductance=None)
    for name in CARRIED:
        differs = resized or (name == "read_energy" and old != new) or (name.startswith("adc") and converter_differs)
        if differs and getattr(cost, name) == "included":
            raise BadInput(
                f"{where}.cost.{name} = 'included': another price contains it, so neither follows a law; state both "
                f"apart, or keep {old.rows} x {old.columns} and {cost.adc_bits} bits"
            )


def check_write(array: Crossbar, where: str) -> None:
    """Refuse prices of a write that hold for another cell, unless a law carries them over.

    Args:
        array: the array whose cells are written.
        where: its path, for messages.

    Raises:
        BadInput: one line with the fields, their values and the remedy.
    """
    cell = array.cell
    at = cell.priced_at
    if at is None or cell.written_as_priced():
        return
    same = cell.write_energy is None or cell.priced_conductance == cell.write_conductance
    names = [] if same or (array.cost is not None and follows_conductance(array.cost)) else ["g_min", "g_max"]
    found = {name: getattr(at, name) for name in names}
    found = {name: known for name, known in found.items() if known is not None and known != getattr(cell, name)}
    if not found:
        return
    here = ", ".join(f"cell.{name} = {_value(name, getattr(cell, name))}" for name in found)
    before = ", ".join(f"{name} = {_value(name, known)}" for name, known in found.items())
    raise BadInput(
        f"{where}.{here}: cell.write_energy holds for {before}, which no law carries over; state a new one, with "
        f"{' and '.join(f'cell.priced_at.{name}' for name in found)}, or keep the published cell"
    )


def _changed(array: Crossbar, cost: ArrayCost) -> dict[str, tuple[object, object]]:
    """Field of `priced_at` -> the values that prices hold for and that the array has, where they differ."""
    here = {**used_array(array), "technology": cost.technology or cost.priced_at.technology}
    pairs = {name: (getattr(cost.priced_at, name), value) for name, value in here.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] is not None and pair[0] != pair[1]}


def _uncovered(
    cost: ArrayCost, old: ArraySize, new: ArraySize, changed: dict[str, tuple[object, object]]
) -> list[_Uncovered]:
    """The differences that no law of the table covers."""
    found = []
    resized: list[str] = [name for name in ("rows", "columns", "technology") if name in changed]
    conducting = [name for name in CONDUCTANCES if name in changed and old.conductance != new.conductance]
    lines = "cost.law.kind = 'lines'"
    if resized and not cost.law.scales:
        law = f"choose a law such as {lines} (`ohmformer list array_law`)"
        if any(getattr(cost, price) == "included" for price in CARRIED):
            law = f"keep {_held(cost, resized)}, since prices that others include follow no law"
        found.append(_Uncovered(resized, law))
    if conducting and not follows_conductance(cost):
        law = "say what share of read_energy cells conduct, with cost.law.conduction_share"
        found.append(_Uncovered(conducting, law if cost.law.kind == "lines" else f"{law} of {lines}"))
    if "dac_bits" in changed and not cost.dac_law.scales:
        law = "choose a law such as cost.dac_law.kind = 'ladder' (`ohmformer list dac_law`)"
        found.append(_Uncovered(["dac_bits"], law))
    return found


def _refuse(array: Crossbar, cost: ArrayCost, where: str, uncovered: list[_Uncovered]) -> None:
    """Refuse all differences that no law covers, in one line.

    Raises:
        BadInput: there are some.
    """
    if not uncovered:
        return
    here = {**used_array(array), "technology": cost.technology or cost.priced_at.technology}
    names = [name for each in uncovered for name in each.fields]
    fields = ", ".join(_field(array, cost, name, here[name]) for name in names)
    stated = " and ".join(f"cost.priced_at.{name} = {_value(name, here[name])}" for name in names)
    raise BadInput(
        f"{where}.{fields}: the prices of the array hold for {_held(cost, names)} and no law carries them over; state "
        f"the new prices with {stated}, or {' and '.join(each.remedy for each in uncovered)}"
    )


def _field(array: Crossbar, cost: ArrayCost, name: str, value: object) -> str:
    """A field of an array and its value; for drivers, the field of the inputs that decides their bits."""
    if name == "dac_bits":
        serial = array.inputs.kind != "amplitude" or cost.priced_at.dac_bits == 1
        return f"inputs.kind = {array.inputs.kind!r}" if serial else f"inputs.bits = {value}"
    return f"{PLACES.get(name, name)} = {_value(name, value)}"


def _value(name: str, value: object) -> str:
    """A value as a file holds it."""
    if name in ("g_min", "g_max") and isinstance(value, float):
        return f"'{value * 1e6:.6g} uS'"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _held(cost: ArrayCost, names: list[str]) -> str:
    """The array that prices hold for, in words, by the fields that are named."""
    at, parts = cost.priced_at, []
    if "rows" in names or "columns" in names:
        parts.append(f"{at.rows} x {at.columns}")
    if "technology" in names:
        parts.append(f"{at.technology:g} nm")
    parts += [f"{name} = {_value(name, getattr(at, name))}" for name in CONDUCTANCES if name in names]
    if "dac_bits" in names and at.dac_bits is not None:
        parts.append(f"row drivers of {counted_bits(at.dac_bits)}")
    return ", ".join(parts)


def _check_drivers(cost: ArrayCost, where: str, old: ArraySize, new: ArraySize) -> None:
    """Refuse another number of DAC bits where another price includes that of the drivers.

    Raises:
        BadInput: one line with the field, its value and the remedy.
    """
    for name in ("dac_energy", "dac_area"):
        if getattr(cost, name) == "included":
            raise BadInput(
                f"{where}.cost.{name} = 'included': another price contains row drivers of "
                f"{counted_bits(old.dac_bits)}, so it does not hold for {counted_bits(new.dac_bits)}; state the price "
                "of a driver apart"
            )


def counted_bits(count: int) -> str:
    """'1 bit', '2 bits'."""
    return f"{count} bit" if count == 1 else f"{count} bits"


class Difference(NamedTuple):
    """What differs between an array with prices and the array that its prices hold for.

    Attributes:
        what: the difference, such as "256 x 256 instead of 128 x 128".
        law: the law that carries prices over, such as "law 'lines'"; "proportion" for pulses.
        prices: which prices it changes: those of reading ("array"), of converters ("adc") and of writing ("cell").
    """

    what: str
    law: str
    prices: tuple[str, ...]


def differences(array: Crossbar) -> list[Difference]:
    """All differences between an array with prices and the array that its prices hold for."""
    cost = array.cost
    assert cost is not None
    old, new = sizes(array, cost)
    bits, law = converter_bits(array), f"law '{cost.law.kind}'"
    found = []
    if (old.rows, old.columns) != (new.rows, new.columns):
        what = f"{new.rows} x {new.columns} instead of {old.rows} x {old.columns}"
        found.append(Difference(what, law, ("array", "cell")))
    if old.technology != new.technology:
        what = f"{new.technology:g} nm instead of {old.technology:g} nm"
        found.append(Difference(what, law, ("array", "adc", "cell")))
    before, after = sizes_of_write(array, cost)
    for kind, a, b in (("array", old, new), ("cell", before, after)):
        if a.conductance != b.conductance and (kind == "array" or array.cell.write_energy is not None):
            words = "a written cell" if kind == "cell" else "a cell"
            what = f"{units.show(b.conductance or 0, 'S')} instead of {units.show(a.conductance or 0, 'S')} in {words}"
            found.append(Difference(what, law, (kind,)))
    if old.dac_bits != new.dac_bits:
        drivers = f"drivers of {counted_bits(new.dac_bits)} instead of {old.dac_bits}"
        found.append(Difference(drivers, f"dac_law '{cost.dac_law.kind}'", ("array",)))
    if array.cell.priced_at is not None and array.cell.pulse_ratio != 1:
        pulses = f"{array.cell.write_pulses} pulses to a write instead of {array.cell.priced_at.write_pulses}"
        found.append(Difference(pulses, "proportion", ("cell",)))
    converter: list[str] = []
    if bits != cost.adc_bits:
        converter.append(f"converters of {counted_bits(bits)} instead of {cost.adc_bits}")
    if array.adc.rate is not None:
        converter.append(f"{array.adc.rate:.3g} instead of {1 / cost.adc_time:.3g} conversions per second")
    return [*found, *(Difference(what, f"adc_law '{cost.adc_law.kind}'", ("adc",)) for what in converter)]
