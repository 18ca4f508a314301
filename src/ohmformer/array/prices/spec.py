"""Prices of an array and the size that they hold for: `[array.cost]` of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field

from ohmformer.array.prices.array_laws import ArrayLaw, DacLaw, NoArrayLaw, NoDacLaw
from ohmformer.array.prices.converter_laws import AdcLaw, Sar
from ohmformer.errors import Misplaced
from ohmformer.quantities import Duration, Joules, Nanometers, Siemens, SquareMeters
from ohmformer.schema import Spec

if TYPE_CHECKING:
    from ohmformer.array.spec import Crossbar

Bits = Annotated[int, Field(ge=1, le=16)]
LineCount = Annotated[int, Field(ge=1, le=100_000)]
"""Rows or columns of one array."""
Included = Literal["included"]
"""Marks a price that another price includes; the source of the value says which one."""
Price = Annotated[Joules, Field(ge=0)] | Included
Size = Annotated[SquareMeters, Field(ge=0)] | Included


Encoding = Literal["differential", "offset"]


class PricedAt(Spec):
    """The array that prices hold for. What is left out is that of the array in whose file the prices stand."""

    rows: LineCount | None = None
    columns: LineCount | None = None
    dac_bits: Bits | None = None
    """Bits that a row driver converts at once: 1 if inputs are sent bit by bit, otherwise those of an input code."""
    technology: Nanometers | None = None
    """Feature size [nm]; None if it is not known, so that prices cannot be carried over to another one."""
    g_min: Annotated[Siemens, Field(ge=0)] | None = None
    """Conductance of digit 0 [S]."""
    g_max: Annotated[Siemens, Field(gt=0)] | None = None
    """Conductance of the largest digit [S]."""
    encoding: Encoding | None = None
    """How a signed code is stored: one half of each differential pair stays at `g_min`."""

    @property
    def conductance(self) -> float | None:
        """Mean conductance of a cell [S]; None if it is not known."""
        if self.g_min is None or self.g_max is None or self.encoding is None:
            return None
        return mean_conductance(self.g_min, self.g_max, self.encoding)


def mean_conductance(g_min: float, g_max: float, encoding: Encoding) -> float:
    """Mean conductance of a cell [S]: all digits are equally likely, and one half of each differential pair is unused.

    It does not depend on the bits of a cell.
    """
    return g_min + (g_max - g_min) * (0.25 if encoding == "differential" else 0.5)


class Group(NamedTuple):
    """Fields that say what prices hold for, and the prices that depend on them.

    Attributes:
        fields: names of the fields.
        prices: names of the prices.
    """

    fields: tuple[str, ...]
    prices: tuple[str, ...]


class ArrayCost(Spec):
    """What using one array costs: times [s], energies per event [J], areas [m^2].

    Prices have no defaults. If a source lacks one, leave out the whole table; pricing the array is then refused. Prices
    hold for the array of `priced_at`. An array of another size is priced by `law`, another number of input bits by
    `dac_law`, another converter by `adc_law` (see cost/scaled_array_prices.py).
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
    groups: ClassVar[tuple[Group, ...]] = (
        Group(("rows", "columns"), by_size),
        Group(("dac_bits",), ("read_time", "read_energy", "dac_energy", "dac_area")),
        Group(("technology",), (*by_size, "adc_energy", "adc_area")),
        Group(("g_min", "g_max", "encoding"), ("read_energy",)),
    )
    """Fields of `priced_at`, and the prices that depend on them."""
    converter: ClassVar[Group] = Group(("adc_bits",), ("adc_energy", "adc_time", "adc_area"))
    """The field that says which converter prices hold for, and these prices."""

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
    adc_law: AdcLaw = Sar()
    """How energy, time and area of a converter follow its bits and its rate."""

    def bound(self, array: Crossbar) -> ArrayCost:
        """The prices with `priced_at` complete; what it leaves out is taken from the array around them."""
        at = self.priced_at
        if None not in (at.rows, at.columns, at.dac_bits, at.g_min, at.g_max, at.encoding):
            return self
        wanted = {name: value for name, value in used_array(array).items() if getattr(at, name) is None}
        return self.model_copy(update={"priced_at": at.model_copy(update=wanted)})

    def after_change(self, old: Self) -> Self:
        """These prices, as they were made from others by changes.

        A field that a new table `priced_at` leaves out keeps its value.

        Raises:
            Misplaced: they are said to hold for another array or converter, but are not stated anew.
        """
        kept = {name: value for name, value in old.priced_at if name != "provenance" and value is not None}
        kept = {name: value for name, value in kept.items() if getattr(self.priced_at, name) is None}
        if kept:
            whole = self.priced_at.model_copy(update=kept)
            return self.model_copy(update={"priced_at": whole}).after_change(old)
        for group in (*self.groups, self.converter):
            here, before = (self, old) if group is self.converter else (self.priced_at, old.priced_at)
            for name in group.fields:
                known = getattr(before, name)
                if known is None or getattr(here, name) == known:
                    continue
                given = dict(before.provenance).get(name)
                missing = self.not_stated(old, group.prices, earlier=given is not None and given.kind != "user")
                if missing:
                    raise Misplaced(
                        (name,) if group is self.converter else ("priced_at", name),
                        getattr(here, name),
                        f"the prices were given for {known}; state {_listed(missing)} anew with it, or leave it out",
                    )
        return self

    def stated(self, old: ArrayCost, names: tuple[str, ...]) -> list[str]:
        """The prices among `names` that changes stated anew."""
        now, was = dict(self.provenance), dict(old.provenance)
        return [name for name in names if (getattr(self, name), now.get(name)) != (getattr(old, name), was.get(name))]

    def not_stated(self, old: ArrayCost, names: tuple[str, ...], *, earlier: bool = False) -> list[str]:
        """The prices among `names` that changes did not state anew, without those that another price includes.

        Args:
            old: the prices before the changes.
            names: names of the prices.
            earlier: True if prices count that a user stated before these changes.
        """
        anew, sources = self.stated(old, names), dict(self.provenance)
        if earlier:
            anew += [name for name in names if name in sources and sources[name].kind == "user"]
        return [name for name in names if name not in anew and getattr(self, name) != "included"]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def used_array(array: Crossbar) -> dict[str, Any]:
    """What `priced_at` says of an array, without its feature size."""
    return {
        "rows": array.rows,
        "columns": array.columns,
        "dac_bits": array.dac_bits,
        "g_min": array.cell.g_min,
        "g_max": array.cell.g_max,
        "encoding": array.encoding,
    }
