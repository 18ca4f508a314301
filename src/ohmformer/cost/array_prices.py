"""The prices of one array at its own size, converter and technology.

A library or a user publishes prices for one array (`ArrayCost.priced_at`, `adc_bits`). Here they are carried over to
the array that is used, by the laws that its table names: `law` for rows, columns and feature size, `dac_law` for the
bits of a row driver, `adc_law` for the converter. A published price is used as it is, to the bit, where nothing
differs. A difference that no law covers is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf
from typing import Any, NamedTuple

from ohmformer.array.prices.array_laws import ArraySize
from ohmformer.array.prices.converter_laws import Converter
from ohmformer.array.prices.spec import ArrayCost
from ohmformer.array.spec import Crossbar, bits_needed
from ohmformer.errors import BadInput
from ohmformer.registry import Family, number_from

MOST_BITS = 16
"""Largest resolution of a converter that is priced [bits]."""
CARRIED = ("read_energy", "area", "adc_energy", "adc_area")
"""Prices that no law carries over where another price includes one of them."""


@dataclass(frozen=True)
class ArrayPrices:
    """Prices of one array. A price that another one includes is 0.

    Attributes:
        read_energy: of one access of the array [J].
        read_time: of one access [s].
        dac_energy: of driving one row once [J].
        sample_energy: of sampling one column once [J].
        shift_add_energy: of adding one converted value [J].
        adc_energy: of one conversion [J].
        adc_time: of one conversion [s].
        access_time: the longer of a read and the conversions of the columns that share a converter [s].
        conversion_time: of the columns that share a converter [s].
        cell_area: of cells and drivers without DACs [m^2].
        dac_area: of one row driver [m^2].
        sample_area: of the sample-and-hold of one column [m^2].
        adc_area: of one converter [m^2].
        shift_add_area: of the shift-and-add of the array [m^2].
        area: of the array with drivers, converters, sample-and-hold circuits and adders [m^2].
        write_energy: of one write of one cell [J]; None if it has no price.
        write_time: of one write of a row [s]; None if it has no price.
    """

    read_energy: float
    read_time: float
    dac_energy: float
    sample_energy: float
    shift_add_energy: float
    adc_energy: float
    adc_time: float
    access_time: float
    conversion_time: float
    cell_area: float
    dac_area: float
    sample_area: float
    adc_area: float
    shift_add_area: float
    area: float
    write_energy: float | None
    write_time: float | None

    def possible(self) -> bool:
        """True if no price is negative or infinite, and no access or conversion takes no time."""
        values = [0.0 if value is None else value for value in vars(self).values()]
        return all(0 <= value < inf for value in values) and self.read_time > 0 and self.adc_time > 0


class Same:
    """A key of a cache: an object, compared by identity, so that its values are not hashed."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


def number(value: float | str) -> float:
    """A price as a number: 0 for "included", since another price contains it."""
    return 0.0 if isinstance(value, str) else value


def array_cost(array: Crossbar, role: str) -> ArrayCost:
    """The table of prices of an array.

    Args:
        array: the array.
        role: role of its engine, such as "projection"; the message names it.

    Raises:
        BadInput: the array has no prices.
    """
    if array.cost is None:
        raise BadInput(
            f"hardware.{role}.array.cost: is missing, so time and energy are unknown; "
            "take an accelerator whose arrays have prices (`ohmformer list`), or add the table"
        )
    return array.cost


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
    at = cost.priced_at
    old = ArraySize(at.rows or array.rows, at.columns or array.columns, at.dac_bits or array.dac_bits, at.technology)
    return old, ArraySize(array.rows, array.columns, array.dac_bits, cost.technology or at.technology)


def priced(array: Crossbar, role: str) -> ArrayPrices:
    """The prices of an array at its own size, converter and technology.

    Args:
        array: the array.
        role: role of its engine, for messages.

    Raises:
        BadInput: the array has no prices, or a price has no law for what differs from the published array.
    """
    return _priced(Same(array), role)


@lru_cache(maxsize=1024)
def _priced(key: Same, role: str) -> ArrayPrices:
    array = key.value
    assert isinstance(array, Crossbar)
    cost = array_cost(array, role)
    check_laws(array, f"hardware.{role}.array")
    try:
        prices: ArrayPrices | None = _carried_over(array, cost, role)
    except ArithmeticError:
        prices = None
    if prices is None or not prices.possible():
        laws = f"law {cost.law.kind!r}, dac_law {cost.dac_law.kind!r} or adc_law {cost.adc_law.kind!r}"
        raise BadInput(
            f"hardware.{role}.array.cost: {laws} gives a price below zero, without a time or beyond all numbers; "
            "correct its values, or take another law"
        )
    return prices


def _carried_over(array: Crossbar, cost: ArrayCost, role: str) -> ArrayPrices:
    """The prices of an array by the laws of its table.

    Raises:
        BadInput: `law` gives no time, or a method of a law fails or does not return a number.
        ArithmeticError: a law that a user defines divides by zero or exceeds all numbers.
    """
    old, new = sizes(array, cost)
    law = cost.law
    read_energy, read_time = number(cost.read_energy), cost.read_time
    dac_energy, dac_area = number(cost.dac_energy), number(cost.dac_area)
    cell_area, adder_area = number(cost.area), number(cost.shift_add_area)
    write_energy, write_time = array.cell.write_energy, array.cell.write_time
    if old.dac_bits != new.dac_bits:
        units = _number_from(cost.dac_law, "units", new.dac_bits) / _number_from(cost.dac_law, "units", old.dac_bits)
        dac_energy, dac_area = dac_energy * units, dac_area * units
    if old != new and law.scales:
        read_energy *= _number_from(law, "read_energy", old, new)
        dac_energy *= _number_from(law, "driver_energy", old, new)
        dac_area *= _number_from(law, "driver_area", old, new)
        cell_area *= _number_from(law, "area", old, new)
        adder_area *= _number_from(law, "adder_area", old, new)
        read_time = _time(array, role, "cost.read_time", read_time, old, new)
        if write_energy is not None:
            write_energy *= _number_from(law, "write_energy", old, new)
        if write_time is not None:
            # a write has two levels, whatever the inputs
            sizes_of_write = old._replace(dac_bits=1), new._replace(dac_bits=1)
            write_time = _time(array, role, "cell.write_time", write_time, *sizes_of_write)
    converter = _converter(cost, converter_bits(array), array.adc.rate, old, new)
    conversion_time = min(array.adc.columns_per_adc, array.columns) * converter.time
    converters = ceil(array.columns / array.adc.columns_per_adc)
    sample_area = number(cost.sample_area)
    return ArrayPrices(
        read_energy=read_energy,
        read_time=read_time,
        dac_energy=dac_energy,
        sample_energy=number(cost.sample_energy),
        shift_add_energy=number(cost.shift_add_energy),
        adc_energy=converter.energy,
        adc_time=converter.time,
        access_time=max(read_time, conversion_time),
        conversion_time=conversion_time,
        cell_area=cell_area,
        dac_area=dac_area,
        sample_area=sample_area,
        adc_area=converter.area,
        shift_add_area=adder_area,
        area=cell_area + array.rows * dac_area + array.columns * sample_area + converters * converter.area + adder_area,
        write_energy=write_energy,
        write_time=write_time,
    )


def _number_from(law: Family, method: str, *arguments: Any) -> float:
    """As `number_from`; errors of arithmetic, which become a message about the price, are raised as they are."""
    return number_from(law, method, *arguments, passing=(ArithmeticError,))


def _converter(cost: ArrayCost, bits: int, rate: float | None, old: ArraySize, new: ArraySize) -> Converter:
    """Energy, time and area of a converter; energy and area follow the feature size in proportion."""
    found = Converter(number(cost.adc_energy), cost.adc_time, number(cost.adc_area))
    if bits != cost.adc_bits or rate is not None:
        found = cost.adc_law.checked("scaled", found, cost.adc_bits, bits, rate)
    if old.technology and new.technology and old.technology != new.technology:
        shrink = new.technology / old.technology
        found = Converter(found.energy * shrink, found.time, found.area * shrink)
    return found


def _time(array: Crossbar, role: str, field: str, seconds: float, old: ArraySize, new: ArraySize) -> float:
    """A time at the size of the array [s].

    Raises:
        BadInput: the law cannot give one.
        ArithmeticError: it divides by zero or exceeds all numbers.
    """
    assert array.cost is not None
    try:
        return number_from(array.cost.law, "time", seconds, old, new, passing=(ArithmeticError, ValueError))
    except ValueError as error:
        raise BadInput(f"hardware.{role}.array.{field} = {seconds:.3g} s: {error}") from None


def check_laws(array: Crossbar, where: str) -> None:
    """Refuse a difference between the published and the priced array that no law covers.

    Args:
        array: an array with prices.
        where: its path, for messages, such as "hardware.projection.array".

    Raises:
        BadInput: one line with the field, its value and the remedy.
    """
    cost = array.cost
    assert cost is not None
    old, new = sizes(array, cost)
    for name in ("rows", "columns"):
        published, wanted = getattr(old, name), getattr(new, name)
        if published != wanted and not cost.law.scales:
            inseparable = any(getattr(cost, price) == "included" for price in CARRIED)
            law = f"keep {old.rows} x {old.columns}, since prices that others include follow no law"
            if not inseparable:
                law = "choose a law such as cost.law.kind = 'lines' (`ohmformer list array_law`)"
            raise BadInput(
                f"{where}.{name} = {wanted}: the prices of the array hold for {old.rows} x {old.columns} and no law "
                f"carries them over; state the new prices with cost.priced_at.{name} = {wanted}, or {law}"
            )
    if cost.technology is not None and old.technology is None:
        raise BadInput(
            f"{where}.cost.technology = {cost.technology:g}: the feature size that the prices hold for is unknown; "
            "state it in cost.priced_at.technology, or leave cost.technology out"
        )
    if old.technology != new.technology and not cost.law.scales:
        raise BadInput(
            f"{where}.cost.technology = {new.technology:g}: the prices of the array hold for {old.technology:g} nm and "
            "no law carries them over; state the new prices with cost.priced_at.technology, or choose a law such as "
            "cost.law.kind = 'lines'"
        )
    _check_drivers(array, where, old, new)
    bits = converter_bits(array)
    if bits > MOST_BITS:
        raise BadInput(
            f"{where}.adc.bits = 'ideal': a converter that loses nothing would have {bits} bits, for which no price "
            f"holds; give it up to {MOST_BITS} bits"
        )
    converter_differs = bits != cost.adc_bits or array.adc.rate is not None
    for name in CARRIED:
        differs = old != new or (converter_differs and name.startswith("adc"))
        if differs and getattr(cost, name) == "included":
            raise BadInput(
                f"{where}.cost.{name} = 'included': another price contains it, so neither follows a law; state both "
                f"apart, or keep {old.rows} x {old.columns} and {cost.adc_bits} bits"
            )


def _check_drivers(array: Crossbar, where: str, old: ArraySize, new: ArraySize) -> None:
    """Refuse another number of DAC bits than that of the prices, unless a law covers it.

    Raises:
        BadInput: one line with the field, its value and the remedy.
    """
    cost = array.cost
    assert cost is not None
    if old.dac_bits == new.dac_bits:
        return
    serial = array.inputs.kind != "amplitude" or old.dac_bits == 1
    field = f"inputs.kind = {array.inputs.kind!r}" if serial else f"inputs.bits = {new.dac_bits}"
    if not cost.dac_law.scales:
        raise BadInput(
            f"{where}.{field}: the prices hold for row drivers of {_bits(old.dac_bits)}, not of {_bits(new.dac_bits)}, "
            f"and no law carries them over; state the new prices with cost.priced_at.dac_bits = {new.dac_bits}, or "
            "choose a law such as cost.dac_law.kind = 'ladder' (`ohmformer list dac_law`)"
        )
    for name in ("dac_energy", "dac_area"):
        if getattr(cost, name) == "included":
            raise BadInput(
                f"{where}.cost.{name} = 'included': another price contains row drivers of {_bits(old.dac_bits)}, so "
                f"it does not hold for {_bits(new.dac_bits)}; state the price of a driver apart"
            )


def _bits(count: int) -> str:
    return f"{count} bit" if count == 1 else f"{count} bits"


class Difference(NamedTuple):
    """What differs between an array with prices and the array that its prices hold for.

    Attributes:
        what: the difference, such as "256 x 256 instead of 128 x 128".
        law: the law that carries prices over, such as "law 'lines'".
        array: True if it changes prices of the array without its converters.
        converters: True if it changes prices of converters.
    """

    what: str
    law: str
    array: bool = True
    converters: bool = False


def differences(array: Crossbar) -> list[Difference]:
    """All differences between an array with prices and the array that its prices hold for."""
    cost = array.cost
    assert cost is not None
    old, new = sizes(array, cost)
    bits, law = converter_bits(array), f"law '{cost.law.kind}'"
    found = []
    if (old.rows, old.columns) != (new.rows, new.columns):
        found.append(Difference(f"{new.rows} x {new.columns} instead of {old.rows} x {old.columns}", law))
    if old.technology != new.technology:
        found.append(Difference(f"{new.technology:g} nm instead of {old.technology:g} nm", law, converters=True))
    if old.dac_bits != new.dac_bits:
        drivers = f"drivers of {_bits(new.dac_bits)} instead of {old.dac_bits}"
        found.append(Difference(drivers, f"dac_law '{cost.dac_law.kind}'"))
    converter: list[str] = []
    if bits != cost.adc_bits:
        converter.append(f"converters of {_bits(bits)} instead of {cost.adc_bits}")
    if array.adc.rate is not None:
        converter.append(f"{array.adc.rate:.3g} instead of {1 / cost.adc_time:.3g} conversions per second")
    adc_law = f"adc_law '{cost.adc_law.kind}'"
    return [*found, *(Difference(what, adc_law, array=False, converters=True) for what in converter)]
