"""How the prices of an array follow its size: laws for cells, lines and row drivers, and for converters of inputs.

A price is published for one array. A law gives the price of an array of another size, number of DAC bits or feature
size, relative to that point, so the published price stays exact at its own size. R rows, C columns, F feature size; an
index 0 marks the array that prices are published for.
"""

from __future__ import annotations

from abc import abstractmethod
from math import log, sqrt
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from ohmformer.quantities import Farads, Ohms, Share
from ohmformer.registry import Family, refuse_former_names, register


class ArraySize(NamedTuple):
    """What the prices of an array depend on.

    Attributes:
        rows: R.
        columns: C, without the reference column.
        dac_bits: bits that a row driver converts at once; 1 if inputs are sent bit by bit.
        technology: feature size [nm]; None if it is not known.
        conductance: mean conductance of a cell [S]; None if it is not known.
    """

    rows: int
    columns: int
    dac_bits: int
    technology: float | None
    conductance: float | None = None

    @property
    def cells(self) -> int:
        """Number of cells, R C."""
        return self.rows * self.columns


def _shrink(old: ArraySize, new: ArraySize) -> float:
    """F / F0; 1 if the technology is the same or not known."""
    return new.technology / old.technology if new.technology and old.technology else 1.0


def _conducted(old: ArraySize, new: ArraySize) -> float:
    """G / G0, the ratio of the mean currents of a cell; 1 if the conductance is the same or not known."""
    return new.conductance / old.conductance if new.conductance and old.conductance else 1.0


def _mean_square(bits: int) -> float:
    """Mean square of uniform codes of `bits` bits, as a share of the largest."""
    largest = (1 << bits) - 1
    return (2 * largest + 1) / (6 * largest)


class ArrayLaw(Family):
    """How read energy, time and area of an array follow its size.

    A kind defines the energy of a read and how times grow. All methods take the array of the published prices (`old`)
    and the array that is priced (`new`), and give a published price back where both are equal.
    """

    family: ClassVar[str] = "array_law"
    scales: ClassVar[bool] = True
    """False if prices hold for their own size only."""
    sourced_lines: ClassVar[tuple[int, int] | None] = None
    """Smallest and largest number of rows or columns that the source of the law covers; None if the law is derived from
    cells and wires, for any number."""

    kind: str

    def follows_conductance(self) -> bool:
        """True if `read_energy_ratio` and `write_energy_ratio` hold for cells of another mean conductance, too."""
        return False

    @classmethod
    def check_class(cls) -> None:
        """Refuse a class that still defines a ratio under its former name.

        Raises:
            BadInput: it does.
        """
        former = ("read_energy", "write_energy", "area", "driver_energy", "driver_area", "adder_area")
        refuse_former_names(cls, {name: f"{name}_ratio" for name in former})

    @abstractmethod
    def read_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """Ratio of the energies of one access of the whole array, drivers and lines included."""

    @abstractmethod
    def time(self, seconds: float, old: ArraySize, new: ArraySize) -> float:
        """Time of an access, or of a write of one row [s], that takes `seconds` in the old array.

        Raises:
            ValueError: no array can be that fast.
        """

    def write_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """Ratio of the energies of writing one cell; by default it does not depend on the array.

        `conductance` of both arrays is here the mean of `g_min` and `g_max`.
        """
        return 1.0

    def area_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """Ratio of the areas of the cells: R C F^2."""
        return new.cells / old.cells * _shrink(old, new) ** 2

    def driver_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """Ratio of the energies of driving one row.

        A driver is sized for the line and the cells that it drives (NeuroSim, SwitchMatrix.cpp), so energy is in
        proportion to C, and to F with the capacitance of wires and gates.
        """
        return new.columns / old.columns * _shrink(old, new)

    def driver_area_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """Ratio of the areas of one row driver: C F^2, as for its energy."""
        return new.columns / old.columns * _shrink(old, new) ** 2

    def adder_area_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """Ratio of the areas of the shift-and-add, which keeps one sum for each column: C F^2."""
        return new.columns / old.columns * _shrink(old, new) ** 2


@register
class NoArrayLaw(ArrayLaw):
    """No law: prices hold for the size that they are published for, and pricing any other size is refused."""

    scales: ClassVar[bool] = False

    kind: Literal["none"] = "none"

    def read_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """1, since other sizes are refused."""
        return 1.0

    def time(self, seconds: float, old: ArraySize, new: ArraySize) -> float:
        """`seconds`, since other sizes are refused."""
        return seconds


@register
class LineLaw(ArrayLaw):
    """Cells that conduct, and rows and columns that are wires with resistance and capacitance.

    Energy of an access: every cell conducts for one pulse, V^2 G t, and R rows of C cells and C columns of R cells are
    charged, c V^2. So E = E0 R C / (R0 C0) (1 - k + k G / G0), where k is the share of the published energy that cells
    conduct, and G the mean conductance of a cell. E does not fall with F, since the currents of cells do not. It is in
    proportion to the mean square of the inputs, for uniform codes of a DAC of b bits (2 N + 1) / (6 N) with
    N = 2^b - 1: 1/2 for bits. A row driver charges the gates of access transistors (NeuroSim, SubArray.cpp, 1T1R), so
    its price does not depend on G.

    Time: t = t0 + T - T0. A distributed line of n cells has the time constant r c n^2 / 2 (Elmore); a row settles to
    half a step of a DAC of b bits in (b + 1) ln 2 of them, and then the column does:
    T = (b + 1) ln 2 (r c / 2) (R^2 + C^2). Per cell r rises with 1 / F and c falls with F, so T does not depend on F.

    Write: a row is driven once for all its cells, while each cell charges its own column of R cells and conducts:
    E = E0 ((1 - s) G / G0 + s R / R0), where s is the share of the published energy that charges the column and G the
    mean of both ends of the range, since half of all writes end at either (NeuroSim: half SET and half RESET).

    Defaults are those of a 1T1R cell at 32 nm in DNN+NeuroSim V1.3 (Param.cpp: wires 56 nm wide, aspect ratio 1.8,
    3.7e-8 ohm m, a cell of 4 x 12 widths, 0.2 fF/um), both lines as long as the longer one.
    """

    kind: Literal["lines"] = "lines"
    resistance: Annotated[Ohms, Field(ge=0)] = 4.4
    """r, resistance of a line per cell [ohm]."""
    capacitance: Annotated[Farads, Field(ge=0)] = 0.134e-15
    """c, capacitance of a line per cell [F]."""
    column_share: Share = 0.05
    """s, share of the energy of a write that charges the column. By default 128 cells at 2 V, 69 fJ of 1.38 pJ."""
    conduction_share: Share | None = None
    """k, share of `read_energy` that cells conduct. None if it is not known: prices then hold for the conductances that
    they are published for."""

    def follows_conductance(self) -> bool:
        """True if k is known."""
        return self.conduction_share is not None

    def read_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """R C / (R0 C0), times the ratio of the mean squares of the inputs, times 1 + k (G / G0 - 1)."""
        share = self.conduction_share
        conducted = 1.0 + share * (_conducted(old, new) - 1.0) if share else 1.0
        return new.cells / old.cells * (_mean_square(new.dac_bits) / _mean_square(old.dac_bits)) * conducted

    def settling(self, size: ArraySize) -> float:
        """T, the time in which a row and then a column settle [s]."""
        delay = self.resistance * self.capacitance / 2
        return (size.dac_bits + 1) * log(2) * delay * (size.rows**2 + size.columns**2)

    def time(self, seconds: float, old: ArraySize, new: ArraySize) -> float:
        """t0 + T - T0.

        Raises:
            ValueError: t0 < T0, so the published array could not settle.
        """
        settled = self.settling(old)
        if seconds < settled:
            raise ValueError(
                f"is shorter than the {settled:.3g} s in which the lines of the published array settle; correct "
                "cost.law.resistance and cost.law.capacitance"
            )
        return seconds + (self.settling(new) - settled)

    def write_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """(1 - s) G / G0 + s R / R0."""
        conducted = (1.0 - self.column_share) * (_conducted(old, new) - 1.0)
        return 1.0 + self.column_share * (new.rows / old.rows - 1.0) + conducted


@register
class PumaTables(ArrayLaw):
    """The tables of PUMA's simulator: power and area times 4, latency times 2 where rows and columns are doubled.

    include/constants.py: xbar_pow_dict, xbar_area_dict and xbar_lat_dict from 32 x 32 to 256 x 256. Energy is power
    times latency, so E = E0 n^3 and t = t0 n with n^2 = R C / (R0 C0). Cells then conduct for as long as one converter
    takes for all columns, so this law gives the highest energies of large arrays. The tables know no conductances.
    """

    sourced_lines: ClassVar[tuple[int, int] | None] = (32, 256)

    kind: Literal["puma_tables"] = "puma_tables"

    def read_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
        """n^3."""
        return float((new.cells / old.cells) ** 1.5)

    def time(self, seconds: float, old: ArraySize, new: ArraySize) -> float:
        """t0 n."""
        return seconds * sqrt(new.cells / old.cells)


class DacLaw(Family):
    """How energy and area of a row driver follow the bits that it converts at once."""

    family: ClassVar[str] = "dac_law"
    scales: ClassVar[bool] = True
    """False if prices hold for their own number of bits only."""

    kind: str

    @abstractmethod
    def units(self, bits: int) -> float:
        """Unit elements of a converter of `bits` bits; energy and area are in proportion to them."""


@register
class NoDacLaw(DacLaw):
    """No law: prices hold for their own number of bits, and pricing any other number is refused."""

    scales: ClassVar[bool] = False

    kind: Literal["none"] = "none"

    def units(self, bits: int) -> float:
        """1, since other numbers of bits are refused."""
        return 1.0


@register
class Ladder(DacLaw):
    """A ladder (R-2R, C-2C) has one rung per bit: energy and area in proportion to b.

    The analog model of ZigZag (AimcArray.py) charges 50 fF per bit.
    """

    kind: Literal["ladder"] = "ladder"

    def units(self, bits: int) -> float:
        """b."""
        return float(bits)


@register
class BinaryWeighted(DacLaw):
    """An array of binary-weighted elements has 2^b - 1 units: energy and area in proportion to them.

    Saberi et al., IEEE Transactions on Circuits and Systems I 58(8), 2011: the conventional capacitor array.
    """

    kind: Literal["binary_weighted"] = "binary_weighted"

    def units(self, bits: int) -> float:
        """2^b - 1."""
        return float((1 << bits) - 1)
