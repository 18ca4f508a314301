"""What a crossbar is: its size, its cell, how values become digits, how inputs are sent, how currents are converted."""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.device.spec import Cell, WriteVerify
from ohmformer.quantities import Joules, Percentile, PositiveShare, Seconds, SignedFraction, SquareMetres
from ohmformer.schema import Spec

Bits = Annotated[int, Field(ge=1, le=16)]
Lines = Annotated[int, Field(ge=1, le=100_000)]
"""Rows or columns of one array."""
Copies = Annotated[int, Field(ge=1, le=1_000)]
VERIFY_FORMS = ("normal_of", "parts")
"""The closed forms of write noise that write-verify needs."""
Scale = Literal["tensor", "head", "token", "column"]


class Inputs(Spec):
    """Common to both ways of sending inputs: `bits` and where their range comes from.

    `calibrated`: the percentile of magnitudes seen on a calibration batch, fixed afterwards. `dynamic`: the largest
    magnitude of each input vector, found by the digital side at run time.
    """

    bits: Annotated[int, Field(ge=2, le=16)] = 8
    range: Literal["calibrated", "dynamic"] = "calibrated"
    percentile: Percentile = 100.0


class BitSerial(Inputs):
    """Inputs are sent bit by bit, one read of the array for each: two's complement if signed, plain binary if not."""

    kind: Literal["bit_serial"] = "bit_serial"


class Amplitude(Inputs):
    """Inputs are voltages (of either sign) from a DAC of `bits` bits, one read of the array for each vector."""

    kind: Literal["amplitude"] = "amplitude"


InputStreaming = Annotated[BitSerial | Amplitude, Field(discriminator="kind")]


class FullScale(Spec):
    """The converter spans all that a column can give: every row of the array at its largest digit and input."""

    kind: Literal["full_scale"] = "full_scale"


class Calibrated(Spec):
    """The converter spans the percentile of what columns gave on a calibration batch, per slice."""

    kind: Literal["calibrated"] = "calibrated"
    percentile: Percentile = 100.0


class Given(Spec):
    """The converter spans these fractions of full scale; without `low`, from -high where currents have both signs."""

    kind: Literal["given"] = "given"
    low: Annotated[SignedFraction, Field(ge=-1, lt=1)] | None = None
    high: PositiveShare = 1.0

    @model_validator(mode="after")
    def _order(self) -> Given:
        if self.low is not None and self.low >= self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}; exchange or correct them")
        return self


AdcRange = Annotated[FullScale | Calibrated | Given, Field(discriminator="kind")]


class Adc(Spec):
    """Converts column currents: `bits` over a range, or without error where bits are "ideal".

    A step is never finer than one digit times one input unit, the smallest difference that ideal cells can make: so
    `bits_needed` bits lose nothing. A range with both signs has zero among its steps.
    """

    bits: Bits | Literal["ideal"] = "ideal"
    range: AdcRange = FullScale()
    columns_per_adc: Lines = 1
    """How many columns take turns at one converter."""


Included = Literal["included"]
"""A price that is part of another one, which the value's source names."""
Price = Annotated[Joules, Field(ge=0)] | Included
Size = Annotated[SquareMetres, Field(ge=0)] | Included


class ArrayCost(Spec):
    """What using one array costs: times in s, energies in J per event, areas in m^2.

    Nothing has a default: what no source gives is left out together with the whole table, and pricing refuses.
    `bit_serial` takes one access of the array for every input bit; `one_access` charges the time of a single access for
    a whole input vector (energy is that of all accesses in either case).
    """

    timing: Literal["bit_serial", "one_access"] = "bit_serial"
    read_time: Annotated[Seconds, Field(gt=0)]
    """One access: from the inputs to currents that can be sampled."""
    fill_cycles: Annotated[int, Field(ge=0, le=1_000_000)]
    """Accesses that a vector spends in the pipeline behind the array (sampling, shifting and adding)."""
    read_energy: Price
    """One access of one array."""
    dac_energy: Price
    """Driving one row once."""
    sample_energy: Price
    """Sampling and holding one column once."""
    adc_energy: Price
    """One conversion with `adc_bits` bits; proportional to bits."""
    adc_time: Annotated[Seconds, Field(gt=0)]
    """One conversion with `adc_bits` bits; proportional to bits."""
    adc_bits: Bits
    """The resolution for which energy and time of a conversion are given."""
    shift_add_energy: Price
    """Shifting and adding one converted value."""
    area: Size
    """Cells and drivers of one array."""
    dac_area: Size
    """One row driver."""
    adc_area: Size
    """One converter."""
    sample_area: Size
    """One column's sample-and-hold."""
    shift_add_area: Size
    """Shift-and-add of one array."""


class Crossbar(Spec):
    """One array of cells and its converters.

    `differential`: W = s (G+ - G-), two arrays; the sign chooses the half, the unused half stays at G_min; codes span
    -(2^bits - 1) .. 2^bits - 1. `offset`: one array holds the code shifted by 2^(bits - 1), and a reference column per
    array holds the shift itself, to be subtracted; codes span -(2^(bits-1) - 1) .. 2^(bits-1) - 1.

    A code is spread over ceil(bits / c) slices of c bits per cell, and slice k counts base^k, which is what the digital
    shift-and-add does with it. A `slice_base` below 2^c exchanges resolution for noise: with base 1 all S cells count
    alike, codes span -S (2^c - 1) .. S (2^c - 1) only, and their noise averages.

    With `copies` every digit is written into so many cells, each in an array of its own, and the shift-and-add takes
    the mean of their results: codes stay what they are, their noise averages, and all that slices take is taken so many
    times. Slices are counted with their copies, which follow one another.
    """

    catalog_kind: ClassVar[str] = "array"
    cost_fields: ClassVar[tuple[str, ...]] = ("cost",)

    rows: Lines
    columns: Lines
    cell: Cell
    encoding: Literal["differential", "offset"] = "differential"
    bits: Bits = 8
    """Bits of a stored code: the magnitude in a differential pair, the shifted code with an offset."""
    bits_per_cell: Bits = 2
    """`bits` for one cell per value."""
    slice_base: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """What a slice counts against the one below it, 1 to 2^bits_per_cell; None for 2^bits_per_cell and codes of `bits`
    bits. A number makes every digit of every slice usable: the largest code is (2^c - 1) sum_k base^k."""
    copies: Copies = 1
    """Cells that every digit is written into, whose results are averaged."""
    scale: Scale = "tensor"
    """What shares one scale: a whole matrix (K, V: all heads of a sample), a head, a token, or an output column."""
    percentile: Percentile = 100.0
    """Which percentile of the magnitudes that share it a scale covers; values above saturate."""
    inputs: InputStreaming = BitSerial()
    subtract: Literal["digital", "analog"] = "digital"
    """Whether the halves of a pair (a column and its reference) are converted each, or their difference once."""
    adc: Adc = Adc()
    age: Annotated[Seconds, Field(ge=0)] = 0.0
    """Time from programming to reading."""
    verify: WriteVerify | None = None
    """Whether writes are read back and repeated; None writes once. Numbers by slice count copies once."""
    cost: ArrayCost | None = None
    """What using it costs; None where that is not known, so that pricing it is refused."""

    @model_validator(mode="after")
    def _consistent(self) -> Crossbar:
        if self.bits_per_cell > self.bits:
            raise ValueError(f"bits_per_cell = {self.bits_per_cell} is above bits = {self.bits}; lower it")
        if self.encoding == "offset" and self.bits < 2:
            raise ValueError("bits = 1 is too few for an offset; use 2 or more, or encoding = 'differential'")
        self._check_slice_base()
        if self.cell.levels is not None and 2**self.bits_per_cell > self.cell.levels:
            raise ValueError(
                f"bits_per_cell = {self.bits_per_cell} needs {2**self.bits_per_cell} levels but the cell has "
                f"{self.cell.levels}; lower it or take another cell"
            )
        writes = self.verify.writes if self.verify else 1
        if self.verify and (why := self.cell.write_noise.without(*VERIFY_FORMS)):
            raise ValueError(f"verify: {why}")
        digits = self.slices() // self.copies
        if isinstance(writes, tuple) and len(writes) != digits:
            raise ValueError(
                f"verify.writes has {len(writes)} numbers for {digits} slices; give one number, or one for each"
            )
        return self

    def _check_slice_base(self) -> None:
        if self.slice_base is None:
            return
        if self.encoding == "offset":
            raise ValueError(
                f"slice_base = {self.slice_base}: an 'offset' array holds the bits of a shifted code; leave slice_base "
                "out, or use encoding = 'differential'"
            )
        if self.slice_base > 1 << self.bits_per_cell:
            raise ValueError(
                f"slice_base = {self.slice_base} is above 2^bits_per_cell = {1 << self.bits_per_cell}, so that codes "
                "between would have no digits; lower it"
            )

    @property
    def base(self) -> int:
        """What a slice counts against the one below it."""
        return 1 << self.bits_per_cell if self.slice_base is None else self.slice_base

    @property
    def max_code(self) -> int:
        """Largest magnitude of a code."""
        if self.slice_base is not None:
            return self.capacity(self.slices())
        return (1 << self.bits) - 1 if self.encoding == "differential" else (1 << (self.bits - 1)) - 1

    def capacity(self, slices: int) -> int:
        """Largest number that so many slices spell: the largest digit in each of them."""
        return sum(self.max_digit * self.place(s) for s in range(0, slices, self.copies))

    def place(self, s: int) -> int:
        """What slice s counts in the sum of all slices, which is `copies` times the code."""
        return int(self.base ** (s // self.copies))

    def writes(self, s: int) -> int:
        """The most writes of a cell of slice s."""
        return 1 if self.verify is None else self.verify.of_slice(s // self.copies)

    @property
    def max_digit(self) -> int:
        """Largest digit of a cell, 2^c - 1."""
        return (1 << self.bits_per_cell) - 1

    @property
    def step(self) -> float:
        """Conductance of one digit [S]."""
        return (self.cell.g_max - self.cell.g_min) / self.max_digit

    @property
    def polarities(self) -> int:
        """Arrays per value: two in a differential pair."""
        return 2 if self.encoding == "differential" else 1

    def slices(self, max_code: int | None = None) -> int:
        """Cells per value and polarity, copies included, enough for codes up to `max_code` (by default the largest)."""
        if self.encoding == "offset" or max_code is None:
            return -(-self.bits // self.bits_per_cell) * self.copies
        slices = self.copies
        while self.capacity(slices) < max_code:
            slices += self.copies
        return slices

    def cycles(self) -> int:
        """Reads of the array per input vector."""
        return self.inputs.bits if isinstance(self.inputs, BitSerial) else 1

    def max_input(self, *, signed: bool) -> int:
        """Largest input code."""
        return (1 << (self.inputs.bits - 1 if signed else self.inputs.bits)) - 1


@cache
def analog(array: Crossbar) -> Crossbar:
    """The array with one cell per value and one voltage per input, of any value: what it would be without digits.

    Its codes are those of `bits` bits, whatever the slices of the array count, and its cells are verified as those of
    the most significant slice are. A value has as many copies as a digit had.
    """
    inputs = Amplitude(bits=array.inputs.bits, range=array.inputs.range, percentile=array.inputs.percentile)
    verify = array.verify
    if verify is not None:
        verify = verify.model_copy(update={"writes": verify.of_slice(-1)})
    whole = {"bits_per_cell": array.bits, "slice_base": None, "inputs": inputs, "verify": verify}
    return array.model_copy(update=whole)


def bits_needed(rows: int, bits_per_cell: int, *, max_input: int = 1, both_signs: bool = False) -> int:
    """Bits of a full-scale converter that loses nothing: ceil(log2(R (2^c - 1) + 1)) with 1-bit inputs.

    Args:
        rows: R, of the array.
        bits_per_cell: c.
        max_input: the largest input of one read; 1 if sent bit by bit.
        both_signs: whether currents have both signs: analog subtraction, or signed amplitudes.
    """
    top = rows * ((1 << bits_per_cell) - 1) * max_input
    return (2 * top + 1 if both_signs else top).bit_length()
