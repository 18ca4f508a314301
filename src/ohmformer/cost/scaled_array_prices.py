"""The prices of one array at its own size, converter and technology.

A library or a user publishes prices for one array (`ArrayCost` in array/prices/spec.py, with `priced_at` and
`adc_bits`). Here they are carried over to the array that is used, by the laws that its table names: `law` for rows,
columns, feature size and conductances, `dac_law` for the bits of a row driver, `adc_law` for the converter. A published
price is used as it is, to the bit, where nothing differs. A difference that no law covers is refused
(`array/prices/differences.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf
from typing import Any

from ohmformer.array.prices.array_laws import ArraySize
from ohmformer.array.prices.converter_laws import Converter
from ohmformer.array.prices.differences import check_laws, converter_bits, sizes, sizes_of_write
from ohmformer.array.prices.spec import ArrayCost
from ohmformer.array.spec import Crossbar
from ohmformer.cost.designs.per_design import largest
from ohmformer.errors import BadInput
from ohmformer.registry import Family, number_from


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
        write_energy_ratio: energy of one write of one cell with all its pulses, over `Cell.write_energy`.
        write_time: of one write of a row with all its pulses [s]; None if it has no price.
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
    write_energy_ratio: float
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
    write_energy_ratio, write_time = 1.0, array.cell.write_time
    if old.dac_bits != new.dac_bits:
        units = _number_from(cost.dac_law, "units", new.dac_bits) / _number_from(cost.dac_law, "units", old.dac_bits)
        dac_energy, dac_area = dac_energy * units, dac_area * units
    if old != new and law.scales:
        read_energy *= _number_from(law, "read_energy_ratio", old, new)
        dac_energy *= _number_from(law, "driver_energy_ratio", old, new)
        dac_area *= _number_from(law, "driver_area_ratio", old, new)
        cell_area *= _number_from(law, "area_ratio", old, new)
        adder_area *= _number_from(law, "adder_area_ratio", old, new)
        read_time = _time(array, role, "cost.read_time", read_time, old, new)
    if law.scales and (old != new or not array.cell.written_as_priced()):
        written = sizes_of_write(array, cost)
        if array.cell.write_energy is not None:
            write_energy_ratio = _number_from(law, "write_energy_ratio", *written)
        if write_time is not None:
            write_time = _time(array, role, "cell.write_time", write_time, *written)
    converter = _converter(cost, converter_bits(array), array.adc.rate, old, new)
    conversion_time = min(array.adc.columns_per_adc, array.columns) * converter.time
    sets, converters = array.column_circuits, ceil(array.columns / array.adc.columns_per_adc)
    sample_area = number(cost.sample_area)
    return ArrayPrices(
        read_energy=read_energy,
        read_time=read_time,
        dac_energy=dac_energy,
        sample_energy=number(cost.sample_energy),
        shift_add_energy=number(cost.shift_add_energy),
        adc_energy=converter.energy,
        adc_time=converter.time,
        access_time=largest(read_time, conversion_time),
        conversion_time=conversion_time,
        cell_area=cell_area,
        dac_area=dac_area,
        sample_area=sample_area,
        adc_area=converter.area,
        shift_add_area=adder_area,
        area=cell_area
        + array.rows * dac_area
        + sets * array.columns * sample_area
        + sets * converters * converter.area
        + sets * adder_area,
        write_energy_ratio=write_energy_ratio * array.cell.pulse_ratio,
        write_time=None if write_time is None else write_time * array.cell.pulse_ratio,
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
