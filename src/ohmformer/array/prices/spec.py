"""Prices of an array and the size that they hold for: `[array.cost]` of a file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ohmformer.array.prices.array_laws import ArrayLaw, DacLaw, NoArrayLaw, NoDacLaw
from ohmformer.array.prices.converter_laws import ConverterLaw, Sar
from ohmformer.quantities import Duration, Joules, Nanometers, SquareMeters
from ohmformer.schema import Spec

Bits = Annotated[int, Field(ge=1, le=16)]
LineCount = Annotated[int, Field(ge=1, le=100_000)]
"""Rows or columns of one array."""
Included = Literal["included"]
"""Marks a price that another price includes; the source of the value says which one."""
Price = Annotated[Joules, Field(ge=0)] | Included
Size = Annotated[SquareMeters, Field(ge=0)] | Included


class PricedAt(Spec):
    """The array that prices hold for. What is left out is that of the array in whose file the prices stand."""

    rows: LineCount | None = None
    columns: LineCount | None = None
    dac_bits: Bits | None = None
    """Bits that a row driver converts at once: 1 if inputs are sent bit by bit, otherwise those of an input code."""
    technology: Nanometers | None = None
    """Feature size [nm]; None if it is not known, so that prices cannot be carried over to another one."""


class ArrayCost(Spec):
    """What using one array costs: times [s], energies per event [J], areas [m^2].

    Prices have no defaults. If a source lacks one, leave out the whole table; pricing the array is then refused. Prices
    hold for the array of `priced_at`. An array of another size is priced by `law`, another number of input bits by
    `dac_law`, another converter by `adc_law` (see cost/array_prices.py).
    """

    by_size: ClassVar[tuple[str, ...]] = (
        "read_time",
        "read_energy",
        "dac_energy",
        "area",
        "dac_area",
        "shift_add_area",
    )
    """Prices that depend on the size of the array."""

    timing: Literal["bit_serial", "one_access"] = "bit_serial"
    """`bit_serial`: one access of the array takes `read_time` for every input bit. `one_access`: a whole input vector
    takes the time of a single access. The energy is that of all accesses in either case."""
    read_time: Annotated[Duration, Field(gt=0)]
    """Time of one access [s], from the inputs to currents that can be sampled."""
    fill_cycles: Annotated[int, Field(ge=0, le=1_000_000)]
    """Depth of the pipeline behind the array (sample-and-hold, shift-and-add), in accesses."""
    read_energy: Price
    """Energy of one access of one array [J]."""
    dac_energy: Price
    """Energy of driving one row once [J]."""
    sample_energy: Price
    """Energy of sampling and holding one column once [J]."""
    adc_energy: Price
    """Energy of one conversion with `adc_bits` bits [J]."""
    adc_time: Annotated[Duration, Field(gt=0)]
    """Time of one conversion with `adc_bits` bits [s]."""
    adc_bits: Bits
    """Resolution for which `adc_energy`, `adc_time` and `adc_area` are given."""
    shift_add_energy: Price
    """Energy of shifting and adding one converted value [J]."""
    area: Size
    """Area of the cells and drivers of one array [m^2]."""
    dac_area: Size
    """Area of one row driver [m^2]."""
    adc_area: Size
    """Area of one converter with `adc_bits` bits [m^2]."""
    sample_area: Size
    """Area of the sample-and-hold of one column [m^2]."""
    shift_add_area: Size
    """Area of the shift-and-add of one array [m^2]."""
    priced_at: PricedAt = PricedAt()
    """The array that the prices hold for, and for which `write_time` and `write_energy` of its cell hold."""
    technology: Nanometers | None = None
    """Feature size of the array [nm]; None for that of its prices."""
    law: ArrayLaw = NoArrayLaw()
    """How prices follow rows, columns and feature size; `none` refuses other sizes."""
    dac_law: DacLaw = NoDacLaw()
    """How the price of a row driver follows the bits that it converts; `none` refuses other numbers of bits."""
    adc_law: ConverterLaw = Sar()
    """How energy, time and area of a converter follow its bits and its rate."""

    def bound(self, rows: int, columns: int, dac_bits: int) -> ArrayCost:
        """The prices with `priced_at` complete; what it leaves out is taken from the array around them."""
        at = self.priced_at
        if None not in (at.rows, at.columns, at.dac_bits):
            return self
        whole = {"rows": at.rows or rows, "columns": at.columns or columns, "dac_bits": at.dac_bits or dac_bits}
        return self.model_copy(update={"priced_at": at.model_copy(update=whole)})
