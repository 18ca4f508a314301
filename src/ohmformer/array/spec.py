"""Specification of a crossbar: size, cell, encoding of values, input streaming and converters.

Symbols: R rows, c bits per cell, S slices. A slice is the set of cells that hold one digit of every value.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ohmformer import units
from ohmformer.array.degradation.wear import check_wear
from ohmformer.array.inputs import Amplitude, BitSerial, InputStreaming
from ohmformer.array.peripherals.spec import Peripherals, unsuited
from ohmformer.array.prices.changed import prices_of_changed
from ohmformer.array.prices.spec import ArrayCost, Bits, Encoding, LineCount, mean_conductance
from ohmformer.array.residual.spec import Residual, unsuited_for_residual
from ohmformer.array.wires.spec import MAX_LOSS, Wires, largest_loss
from ohmformer.device.cell_range import digits_needed
from ohmformer.device.spec import Cell, WriteVerify
from ohmformer.errors import BadInput
from ohmformer.quantities import ConversionRate, Percentile, PositiveShare, Seconds, SignedFraction
from ohmformer.schema import Spec

Level = Literal["cell", "array", "noise"]
"""How faithfully crossbars are simulated; see `ohmformer.array.multiply`."""

Copies = Annotated[int, Field(ge=1, le=1_000)]
VERIFY_FORMS = ("eps_of_error", "parts")
"""Methods of a kind of write noise, its closed forms, that write-verify needs."""
Scale = Literal["tensor", "head", "token", "column"]
"""What shares one scale: a whole matrix (K, V: all heads of a sample), a head, a token, or an output column."""


class FullScale(Spec):
    """The converter spans the full scale of a column: the current with every row at its largest digit and input."""

    kind: Literal["full_scale"] = "full_scale"


class Calibrated(Spec):
    """The converter of each slice spans a percentile of the column currents in calibration data."""

    kind: Literal["calibrated"] = "calibrated"
    percentile: Percentile = 100.0
    """In percent; 100 spans the extremes."""


class Given(Spec):
    """The converter spans given fractions of the full scale of a column."""

    kind: Literal["given"] = "given"
    low: Annotated[SignedFraction, Field(ge=-1, lt=1)] | None = None
    """Lower end; None for -high if currents have both signs, otherwise 0."""
    high: PositiveShare = 1.0
    """Upper end."""

    @model_validator(mode="after")
    def _order(self) -> Given:
        if self.low is not None and self.low >= self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}; exchange or correct them")
        return self


AdcRange = Annotated[FullScale | Calibrated | Given, Field(discriminator="kind")]


class Adc(Spec):
    """Analog-to-digital converter of column currents.

    A step is never finer than one digit times one input unit, the smallest difference between two currents of ideal
    cells, so a converter of `bits_needed` bits is loss-free. If the range has both signs, zero is one of its steps.
    """

    cost_fields: ClassVar[tuple[str, ...]] = ("rate",)

    bits: Bits | Literal["ideal"] = "ideal"
    """Resolution; "ideal" converts without error."""
    range: AdcRange = FullScale()
    """Lowest and highest current that it represents."""
    columns_per_adc: LineCount = 1
    """Columns that share one converter in turn."""
    rate: Annotated[ConversionRate, Field(gt=0)] | None = None
    """Conversions per second [Hz]; None for the speed that its price and its resolution give."""


class Crossbar(Spec):
    """One array of cells with its converters, and how values are encoded in its cells.

    Encoding. `differential`: W = s (G+ - G-) in two arrays; the sign chooses the half, the unused half stays at G_min;
    codes are -(2^bits - 1) .. 2^bits - 1. `offset`: one array holds the code plus 2^(bits - 1), and a reference column
    per array holds that offset, which is subtracted; codes are -(2^(bits-1) - 1) .. 2^(bits-1) - 1.

    Slicing. A code is spread over ceil(bits / c) slices of c bits per cell. Slice k has the weight base^k, which the
    digital shift-and-add applies. A `radix` below 2^c trades resolution for noise: with radix 1 all S cells have
    equal weight, codes are only -S (2^c - 1) .. S (2^c - 1), and the noise of the cells averages. With `levels` L, a
    cell holds a digit from 0 to L - 1 in place of 2^c - 1, the base is L, and as many slices are used as L^S >= 2^bits
    needs.

    Redundancy. Every digit is written into `redundancy` cells, each in an array of its own, and the shift-and-add takes
    the mean of their results. The codes stay the same, the noise averages, and everything that slices take is taken
    `redundancy` times. Slices are counted with their copies, which follow one another.
    """

    renamed: ClassVar[dict[str, str]] = {"copies": "redundancy", "verify": "write_verify", "slice_base": "radix"}
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {"size": ("rows", "columns")}

    catalog_kind: ClassVar[str] = "array"
    cost_fields: ClassVar[tuple[str, ...]] = ("cost",)

    rows: LineCount
    """Rows (inputs) of the array. In files, `size = ...` sets rows and columns."""
    columns: LineCount
    """Columns (outputs) of the array, without the reference column."""
    cell: Cell
    encoding: Encoding = "differential"
    """How a signed code is stored."""
    bits: Bits = 8
    """Bits of a stored code: of the magnitude in a differential pair, of the shifted code with an offset."""
    bits_per_cell: Bits = 2
    """Bits of a cell; equal to `bits` for one cell per value."""
    levels: Annotated[int, Field(ge=2, le=65_536)] | None = None
    """Number of levels of a cell in use, at most 2^bits_per_cell; None for 2^bits_per_cell."""
    radix: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Weight of a slice relative to the slice below it, 1 to the number of levels. None for that number and codes of
    `bits` bits. A number makes every digit of every slice usable: the largest code is (levels - 1) sum_k base^k."""
    redundancy: Copies = 1
    """Redundancy: the number of cells that every digit is written into, whose results are averaged."""
    scale: Scale = "tensor"
    """The values that share one scale."""
    percentile: Percentile = 100.0
    """Percentile of the magnitudes that a scale covers, in percent; larger values saturate."""
    inputs: InputStreaming = BitSerial()
    """How inputs are sent to the rows."""
    subtract: Literal["digital", "analog"] = "digital"
    """`digital`: both halves of a pair (or a column and its reference) are converted, and the results subtracted.
    `analog`: their difference is converted."""
    adc: Adc = Adc()
    """Converters of the columns."""
    wires: Wires | None = None
    """Resistances of the wires; None for wires that lose no voltage."""
    peripherals: Peripherals = Peripherals()
    """Noise, mismatch and distortion of row drivers and converters."""
    age: Annotated[Seconds, Field(ge=0)] = 0.0
    """Time from programming to reading [s]."""
    writes: Annotated[float, Field(ge=0, le=1e20, allow_inf_nan=False)] = 0.0
    """Writes that every cell has seen before, repetitions of verified writes included; they wear it."""
    drift_compensation: Literal["none", "global", "column"] = "none"
    """One digital factor on the results of a matrix (`global`), or of each column, restores a reading of new cells."""
    write_verify: WriteVerify | None = None
    """Write-verify; None writes each cell once. A list of writes by slice counts copies once."""
    residual: Residual | None = None
    """Residual writing; None writes all cells of a value at once."""
    cost: ArrayCost | None = None
    """What using the array costs; None if unknown, so that pricing it is refused."""

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Expand `size = ...`, which stands for as many rows as columns."""
        if "size" not in data:
            return data
        others = {name: value for name, value in data.items() if name != "size"}
        return {"rows": data["size"], "columns": data["size"], **others}

    @model_validator(mode="after")
    def _consistent(self) -> Crossbar:
        if self.cost is not None:
            # prices that name no size hold for the array in which they are first read; the copy is not public yet
            object.__setattr__(self, "cost", self.cost.bound(self))
        if self.bits_per_cell > self.bits and (self.radix is None or self.levels is None):
            raise ValueError(f"bits_per_cell = {self.bits_per_cell} is above bits = {self.bits}; lower it")
        if self.encoding == "offset" and self.bits < 2:
            raise ValueError("bits = 1 is too few for an offset; use 2 or more, or encoding = 'differential'")
        self._check_radix()
        self._check_levels()
        self._check_wires()
        if reason := unsuited(self):
            raise ValueError(reason)
        writes = self.write_verify.writes if self.write_verify else 1
        self._check_age()
        if reason := unsuited_for_residual(self):
            raise ValueError(reason)
        check_wear(self.cell, self.writes, verified=self.write_verify is not None)
        if self.write_verify and (reason := self.cell.write_noise.missing_forms(*VERIFY_FORMS)):
            raise ValueError(f"write_verify: {reason}")
        digits = self.slices() // self.redundancy
        if isinstance(writes, tuple) and len(writes) != digits:
            raise ValueError(
                f"write_verify.writes has {len(writes)} numbers for {digits} slices; give one number, or one for each"
            )
        return self

    def _check_age(self) -> None:
        """Refuse ages at which the write noise is not known, or differs from that which write-verify reads back."""
        try:
            aged, new = self.aged_cell, self.cell.at_age(0.0)
        except BadInput as error:
            raise ValueError(str(error)) from None
        if self.write_verify and aged.write_noise != new.write_noise:
            raise ValueError(
                f"write_verify: writes are read back at once, but write_noise has other parameters at age = "
                f"{units.show(self.age, 's')}; leave write_verify out, or lower age"
            )

    def _check_radix(self) -> None:
        if self.radix is None:
            return
        if self.encoding == "offset":
            raise ValueError(
                f"radix = {self.radix}: an 'offset' array holds the bits of a shifted code; leave radix "
                "out, or use encoding = 'differential'"
            )
        if self.radix > self.used_levels:
            limit = f"2^bits_per_cell = {self.used_levels}" if self.levels is None else f"levels = {self.levels}"
            raise ValueError(
                f"radix = {self.radix} is above {limit}, so that codes between would have no digits; lower it"
            )

    def _check_levels(self) -> None:
        """Refuse levels that the cell does not have, and uneven levels that digits do not number one by one."""
        if self.levels is not None and self.levels > 1 << self.bits_per_cell:
            raise ValueError(
                f"levels = {self.levels} is above 2^bits_per_cell = {1 << self.bits_per_cell}; set bits_per_cell = "
                f"{(self.levels - 1).bit_length()}, or lower levels"
            )
        if reason := self.cell.unfit_levels(self.used_levels):
            what = f"bits_per_cell = {self.bits_per_cell}" if self.levels is None else f"levels = {self.levels}"
            raise ValueError(f"{what} {reason}")
        if self.cell.uneven and self.encoding == "offset":
            raise ValueError(
                "encoding = 'offset': the levels of the cell have uneven steps, so that no reference column holds the "
                "offset; use encoding = 'differential'"
            )

    def _check_wires(self) -> None:
        if self.wires is None:
            return
        if self.encoding == "offset":
            raise ValueError(
                "wires: an 'offset' array shares its rows with a reference column, whose loss is not simulated; use "
                "encoding = 'differential', or leave wires out"
            )
        loss = largest_loss(self.wires, self.rows, self.columns, self.cell.g_max)
        how = self.wires.ir_drop
        if not loss <= MAX_LOSS[how]:
            other = "" if how == "exact" or loss > MAX_LOSS["exact"] else "set it to 'exact', or "
            raise ValueError(
                f"wires.ir_drop = {how!r} holds up to a loss of {MAX_LOSS[how]:g}, but cells at g_max lose {loss:.3g} "
                f"in {self.rows} x {self.columns} cells; {other}lower resistances or the size"
            )

    def after_change(self, old: Self) -> Self:
        """This array, as it was made from another one by changes; `prices_of_changed` says what its prices hold for.

        Raises:
            Misplaced: prices are stated anew, and it is not clear for which array they hold.
        """
        if self.cost is None or old.cost is None or self.cost is old.cost:
            return self
        cost = prices_of_changed(self, self.cost, old, old.cost)
        return self if cost is self.cost else self.model_copy(update={"cost": cost})

    @property
    def aged_cell(self) -> Cell:
        """The cell after `writes` writes, with the write noise of cells that are read `age` seconds after the last."""
        return self.cell.at_age(self.age).worn(self.writes)

    @property
    def saturates(self) -> bool:
        """True if wear keeps cells from reaching all of their range."""
        return self.cell.window(self.writes) != (0.0, 1.0)

    @property
    def used_levels(self) -> int:
        """Number of levels of a cell in use."""
        return 1 << self.bits_per_cell if self.levels is None else self.levels

    @property
    def base(self) -> int:
        """Weight of a slice relative to the slice below it."""
        return self.used_levels if self.radix is None else self.radix

    @property
    def max_code(self) -> int:
        """Largest magnitude of a code."""
        if self.radix is not None:
            return self.capacity(self.slices())
        return (1 << self.bits) - 1 if self.encoding == "differential" else (1 << (self.bits - 1)) - 1

    def capacity(self, slices: int) -> int:
        """Largest number that `slices` slices (copies included) hold: the largest digit in each of them."""
        base, digits = self.base, -(-slices // self.redundancy)
        return self.max_digit * sum(int(base**digit) for digit in range(digits))

    def slice_weight(self, s: int) -> int:
        """Weight of slice s in the sum of all slices, which is `redundancy` times the code."""
        return int(self.base ** (s // self.redundancy))

    def max_writes(self, s: int) -> int:
        """Largest number of writes of a cell of slice s."""
        return 1 if self.write_verify is None else self.write_verify.max_writes(s // self.redundancy)

    @property
    def max_digit(self) -> int:
        """Largest digit of a cell, one less than the number of levels in use."""
        return self.used_levels - 1

    @property
    def step(self) -> float:
        """Conductance of one digit [S]; the mean one if the levels of the cell have uneven steps."""
        return (self.cell.g_max - self.cell.g_min) / self.max_digit

    @property
    def conductance(self) -> float:
        """Mean conductance of a cell [S], with all digits equally likely."""
        return mean_conductance(self.cell.g_min, self.cell.g_max, self.encoding)

    @property
    def polarities(self) -> int:
        """Arrays per value: two in a differential pair."""
        return 2 if self.encoding == "differential" else 1

    @property
    def column_circuits(self) -> float:
        """Sets of column circuits (sample-and-hold, converters, adders) of one array: half of one in an analog pair.

        Such a pair subtracts its currents before they are sampled, so both halves share one set.
        """
        return 0.5 if self.subtract == "analog" and self.encoding == "differential" else 1.0

    def slices(self, max_code: int | None = None) -> int:
        """Slices, copies included, that hold codes up to `max_code`, by default the largest code."""
        if self.encoding == "offset" or max_code is None:
            return digits_needed(self.bits, self.used_levels) * self.redundancy
        base, weight, largest, digits = self.base, 1, 0, 0
        while largest < max_code or digits == 0:
            largest, weight, digits = largest + self.max_digit * weight, weight * base, digits + 1
        return digits * self.redundancy

    def cycles(self) -> int:
        """Input cycles: reads of the array per input vector."""
        inputs = self.inputs  # comparing kinds is faster than `isinstance`
        return inputs.bits if inputs.kind == "bit_serial" else inputs.pulses if inputs.kind == "integrated" else 1

    def conversions(self) -> int:
        """Conversions of one column per input vector."""
        if self.inputs.kind == "integrated":
            return self.inputs.phases
        return self.cycles() if self.inputs.kind == "bit_serial" else 1

    @property
    def dac_bits(self) -> int:
        """Bits that a row driver converts at once."""
        return self.inputs.bits if self.inputs.kind == "amplitude" else 1

    def max_input(self, *, signed: bool) -> int:
        """Largest input code."""
        if self.inputs.kind == "integrated":
            return (1 << self.inputs.pulses) - 1
        return (1 << (self.inputs.bits - 1 if signed else self.inputs.bits)) - 1


@cache
def analog(array: Crossbar) -> Crossbar:
    """The array without digits: one cell per value and one voltage per input.

    Its codes have `bits` bits, whatever `radix` is. Its cells are verified as those of the most significant slice
    of `array`, and each value has as many copies as a digit had, all written at once. Inputs that drive only one
    voltage, and inputs that are predistorted without rounding, meet cells whose current is in proportion to them.
    """
    bits, given = max(2, array.inputs.bits), array.inputs
    inputs = Amplitude(bits=bits, range=given.range, percentile=given.percentile)
    whole: dict[str, Any] = {"bits_per_cell": array.bits, "levels": None, "radix": None, "inputs": inputs}
    whole["residual"] = None
    if (verify := array.write_verify) is not None:
        whole["write_verify"] = verify.model_copy(update={"writes": verify.max_writes(-1)})
    straight = given.kind != "amplitude" or array.peripherals.predistorted
    if array.cell.uneven or (straight and array.cell.sinh_voltage is not None):
        curve = None if straight else array.cell.sinh_voltage
        whole["cell"] = array.cell.model_copy(update={"level_conductances": (), "sinh_voltage": curve})
    return array.model_copy(update=whole)


def bits_needed(
    rows: int, bits_per_cell: int, *, levels: int | None = None, max_input: int = 1, both_signs: bool = False
) -> int:
    """Bits of a loss-free full-scale converter: ceil(log2(R (L - 1) + 1)) for bit-serial inputs, with L levels.

    Args:
        rows: R, rows of the array.
        bits_per_cell: bits of a cell.
        levels: L; None for 2^bits_per_cell.
        max_input: the largest input of one read; 1 for bit-serial inputs.
        both_signs: True if currents have both signs: with analog subtraction, or signed amplitudes.
    """
    top = rows * ((1 << bits_per_cell if levels is None else levels) - 1) * max_input
    return (2 * top + 1 if both_signs else top).bit_length()
