"""Prices of the other side of an array: writes of its columns, and the second set of a transposable array."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from ohmformer.array.spec import Crossbar
from ohmformer.cost.scaled_array_prices import Same, array_cost, priced
from ohmformer.errors import BadInput


def by_columns(array: Crossbar, role: str) -> Crossbar:
    """The array whose rows are the columns of an array: writing a column costs what writing its rows does.

    Raises:
        BadInput: the array is not square, and no law carries the price of its rows over.
    """
    if array.rows == array.columns:
        return array
    if array.cost is not None and not array.cost.law.scales:
        raise BadInput(
            f"hardware.{role}.write_lines = 'columns': the price of a write holds for rows of {array.columns} cells, "
            f"and no law carries it over to columns of {array.rows}; take write_lines = 'rows', an array with as many "
            "rows as columns, or a law such as cost.law.kind = 'lines'"
        )
    return _turned(Same(array))


@lru_cache(maxsize=256)
def _turned(key: Same) -> Crossbar:
    array = key.value
    assert isinstance(array, Crossbar)
    return array.model_copy(update={"rows": array.columns, "columns": array.rows})


def second_set_area(array: Crossbar, role: str) -> float:
    """Area of what a transposable array has a second time: drivers of columns, converters of rows, and adders [m^2].

    Raises:
        BadInput: the area of one of them is part of another price.
    """
    prices, cost = priced(array, role), array_cost(array, role)
    for name in ("dac_area", "sample_area", "adc_area", "shift_add_area"):
        if getattr(cost, name) == "included":
            raise BadInput(
                f"hardware.{role}.array.cost.{name} = 'included': write_lines = 'transposable' takes a second set of "
                "drivers and converters, whose area is unknown; state it apart, or take write_lines = 'rows'"
            )
    sets, converters = array.column_circuits, ceil(array.rows / array.adc.columns_per_adc)
    drivers = array.columns * prices.dac_area
    samples, adders = sets * array.rows * prices.sample_area, sets * prices.shift_add_area
    return drivers + samples + sets * converters * prices.adc_area + adders
