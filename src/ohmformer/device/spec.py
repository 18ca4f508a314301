"""Specification of a memory cell: its conductance range, non-idealities, write-verify, and the cost of a write.

`kinds.py`, `measured_kinds.py`, `retention_kinds.py` and `wear_kinds.py` have the kinds to choose from.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from ohmformer import units
from ohmformer.device.cell_range import LevelList, expanded_range
from ohmformer.device.families import Drift, FaultModel, PositiveSiemens, ReadNoise, WriteNoise
from ohmformer.device.kinds import Faults, NoDrift, NoNoise
from ohmformer.device.measured_kinds import MeasuredTable as MeasuredTable  # its file registers kinds
from ohmformer.device.retention_kinds import Exponential as Exponential  # its file registers kinds
from ohmformer.device.wear_kinds import NoWear, WearModel, WornFaults
from ohmformer.errors import BadInput, Misplaced, cut, shown
from ohmformer.quantities import Duration, Endurance, Fraction, Joules, Siemens, Volts
from ohmformer.registry import called, number_from
from ohmformer.schema import Spec

Writes = Annotated[int, Field(ge=1, le=100_000)]


def _pairs(kind: FaultModel | WearModel, method: str, *arguments: Any) -> tuple[tuple[float, float], ...]:
    """The pairs of place and probability that a method of a kind returns.

    Raises:
        BadInput: the method fails, or returns anything but pairs of numbers.
    """
    states = called(kind, method, *arguments)
    try:
        return tuple((float(place), float(chance)) for place, chance in states)
    except (TypeError, ValueError):
        name = type(kind).__name__
        raise BadInput(f"{name}.{method}: returns {shown(states)}; return pairs of place and probability") from None


def _tuple(value: Any) -> Any:
    """A list as a tuple, so that the spec is hashable; other values unchanged."""
    return tuple(value) if isinstance(value, list) else value


def _check_levels(levels: tuple[float, ...], count: int | None, g_min: float, g_max: float) -> None:
    """Refuse levels that are not distinct, do not span the range, or are not as many as stated."""
    if any(upper <= lower for lower, upper in pairwise(levels)):
        raise ValueError("level_conductances holds a conductance twice; give each level once")
    if count not in (None, len(levels)):
        raise ValueError(f"levels = {count}, but level_conductances has {len(levels)}; leave levels out")
    ends = zip((levels[0], levels[-1]), (g_min, g_max), strict=True)
    if any(abs(level - end) > 1e-6 * g_max for level, end in ends):
        raise ValueError(
            f"level_conductances from {units.show(levels[0], 'S')} to {units.show(levels[-1], 'S')} do not span "
            f"g_min = {units.show(g_min, 'S')} to g_max = {units.show(g_max, 'S')}; correct them, or leave those out"
        )


class WriteVerify(Spec):
    """Write-verify: each write is read back, and a cell that missed its target is written again.

    A write is accepted if |G' - G| <= tolerance (G_max - G_min). Otherwise it is repeated with new noise until the cell
    has been written `writes` times; the result of the last write stays. Reading back is exact.
    """

    writes: Annotated[Writes | Annotated[tuple[Writes, ...], Field(min_length=1)], BeforeValidator(_tuple)]
    """Largest number of writes of a cell: one number for all slices, or a list, the least significant slice first."""
    tolerance: Annotated[Fraction, Field(gt=0)]
    """Largest accepted error, as a share of G_max - G_min."""

    def max_writes(self, index: int) -> int:
        """Largest number of writes of a cell of slice `index`, counted from the least significant slice."""
        return self.writes if isinstance(self.writes, int) else self.writes[index]


class WritePricedAt(Spec):
    """The cell that the prices of a write hold for. What is left out is that of the cell in whose file they stand."""

    g_min: Annotated[Siemens, Field(ge=0)] | None = None
    """Conductance of digit 0 [S]."""
    g_max: PositiveSiemens | None = None
    """Conductance of the largest digit [S]."""
    write_pulses: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Pulses of one write."""


WRITE_PRICES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("g_min", "g_max"), ("write_energy",)),
    (("write_pulses",), ("write_energy", "write_time")),
)
"""Fields of a cell, and the prices of a write that depend on them."""
WRITE_FIELDS = ("g_min", "g_max", "write_pulses")
"""Fields that decide the prices of a write."""
WEAR_FIELDS = ("endurance", "write_pulses")
"""Fields of the cost half that decide how far cells are worn."""


class Cell(Spec):
    """A memristive cell.

    Written conductances are clamped to G >= 0, and to G <= `g_ceiling` if the cell has a ceiling.
    """

    catalog_kind: ClassVar[str] = "cell"
    shorthands: ClassVar[dict[str, tuple[str, ...]]] = {
        "r_on": ("g_max",),
        "r_off": ("g_min",),
        "on_off_ratio": ("g_min",),
        "level_conductances": ("g_min", "g_max"),
    }
    cost_fields: ClassVar[tuple[str, ...]] = ("write_time", "write_energy", "write_pulses", "endurance", "priced_at")

    g_min: Annotated[Siemens, Field(ge=0)]
    """Conductance of digit 0 [S]."""
    g_max: PositiveSiemens
    """Conductance of the largest digit [S]."""
    g_ceiling: PositiveSiemens | None = None
    """Upper clamp of written conductances [S]; None for none."""
    levels: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Number of distinguishable conductances; None for unlimited, or for the number of `level_conductances`."""
    level_conductances: LevelList = ()
    """The distinguishable conductances [S], from G_min to G_max, sorted; files may also write resistances. The steps
    between them may differ. Empty if all steps are equal."""
    sinh_voltage: Annotated[Volts, Field(gt=0)] | None = None
    """V_0 of the current I = G V_r sinh(V / V_0) / sinh(V_r / V_0) at a voltage V [V], where the conductance G is that
    at the read voltage V_r of the array; None for I = G V."""
    write_noise: WriteNoise = NoNoise()
    read_noise: ReadNoise = NoNoise()
    drift: Drift = NoDrift()
    faults: FaultModel = Faults()
    wear: WearModel = NoWear()
    write_time: Annotated[Duration, Field(gt=0)] | None = None
    """Time of one write with all its pulses, such as RESET and SET [s]. All cells of a row are written at once."""
    write_energy: Annotated[Joules, Field(ge=0)] | None = None
    """Energy of one write of one cell with all its pulses [J]."""
    write_pulses: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Pulses of one write that wear the cell: two if a write is a RESET and a SET."""
    endurance: Endurance | None = None
    """Pulses that the cell survives; infinite if writing does not wear it."""
    priced_at: WritePricedAt | None = None
    """The cell that `write_time` and `write_energy` hold for. Other conductances follow from the `law` of the array;
    time and energy are in proportion to the pulses."""

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Expand `r_on`, `r_off` and `on_off_ratio`, and add the range of listed levels."""
        return expanded_range(data)

    @model_validator(mode="after")
    def _order(self) -> Cell:
        if self.g_min >= self.g_max:
            raise ValueError(f"g_min = {self.g_min:g} S is not below g_max = {self.g_max:g} S; correct one of them")
        if self.level_conductances:
            _check_levels(self.level_conductances, self.levels, self.g_min, self.g_max)
        if self.g_ceiling is not None and self.g_ceiling < self.g_max:
            raise ValueError("g_ceiling is below g_max; raise it or leave it out")
        states = _pairs(self.faults, "states")
        if not all(0 <= share <= 1 and 0 <= chance <= 1 for share, chance in states) or sum(p for _, p in states) > 1:
            raise ValueError(
                f"faults: {type(self.faults).__name__} gives the states {cut(repr(states))}; give values that are "
                "shares of the range, from 0 to 1, and probabilities that sum to 1 at most"
            )
        if reason := called(self.write_noise, "unsuited", self):
            raise ValueError(f"write_noise: {reason}")
        if reason := called(self.drift, "unsuited", self):
            raise ValueError(f"drift: {reason}")
        self._check_wear()
        self._bind()
        return self

    def at_age(self, age: float) -> Cell:
        """Return the cell with the write noise of cells that are read `age` seconds after they were written.

        Raises:
            BadInput: the noise of this age is not known.
        """
        noise = called(self.write_noise, "at_age", age)
        return self if noise is self.write_noise else self.model_copy(update={"write_noise": noise})

    def time_to_lose(self, share: float) -> float:
        """Return the time after which a typical cell has lost a share of its conductance by drift [s]; inf for never.

        Raises:
            BadInput: the kind of drift does not say it.
        """
        time = number_from(self.drift, "time_to_lose", share)
        if not time > 0:
            raise BadInput(
                f"refresh_loss = {share:g}: cells with drift {self.drift.kind!r} do not all lose this share at the "
                "same time; state refresh, the time, in its place"
            )
        return time

    def _check_wear(self) -> None:
        """Refuse wear without the endurance that it needs, or without a place where worn cells are stuck."""
        if self.wear.uses_endurance and self.endurance is None:
            raise ValueError(f"wear: {self.wear.kind!r} needs the endurance of the cell; give endurance, in pulses")
        if isinstance(self.wear, NoWear):
            return
        states = _pairs(self.wear, "stuck_states", self.faults)
        if not states and self.endurance != inf:
            raise ValueError(
                "wear: nothing says whether worn cells are stuck at g_min or at g_max; give wear.stuck_at_g_max, the "
                "share of those at g_max, or faults"
            )
        if not all(0 <= x <= 1 and 0 <= part <= 1 for x, part in states) or sum(part for _, part in states) > 1 + 1e-9:
            raise ValueError(
                f"wear: {type(self.wear).__name__} gives the stuck states {cut(repr(states))}; give values that are "
                "shares of the range, from 0 to 1, and parts that sum to 1"
            )

    def worn(self, writes: float) -> Self:
        """Return the cell after a number of writes, with the cells that wear has made stuck among its faults.

        Raises:
            BadInput: a method of the kind of wear returns no usable number.
        """
        if not writes or isinstance(self.wear, NoWear):
            return self
        endurance = inf if self.endurance is None else self.endurance
        share = number_from(self.wear, "stuck_share", self.pulses(writes), endurance)
        if not 0 <= share <= 1:
            name = type(self.wear).__name__
            raise BadInput(f"{name}.stuck_share: returns {shown(share)}; return a probability from 0 to 1")
        if not share:
            return self
        states = _pairs(self.wear, "stuck_states", self.faults)
        worn = WornFaults(original=self.faults, share=share, worn_states=states)
        return self.model_copy(update={"faults": worn})

    def window(self, writes: float) -> tuple[float, float]:
        """Return the part of its range that a cell reaches after a number of writes, as shares: (0, 1) if all of it.

        Raises:
            BadInput: nothing of it is left, or the kind of wear returns anything but two numbers.
        """
        if not writes or isinstance(self.wear, NoWear):
            return 0.0, 1.0
        found = called(self.wear, "window", self.pulses(writes))
        try:
            low, high = map(float, found)
        except (TypeError, ValueError):
            name = type(self.wear).__name__
            raise BadInput(f"{name}.window: returns {shown(found)}; return two shares of the range") from None
        if not 0 <= low < high <= 1:
            raise BadInput(
                f"writes = {writes:g}: wear leaves no window between g_min and g_max (its ends are at {low:.3g} and "
                f"{high:.3g} of the range); lower writes, or the wear of the cell"
            )
        return low, high

    def pulses(self, writes: float) -> float:
        """The pulses of a number of writes."""
        return writes * (self.write_pulses or 1)

    def physical(self) -> dict[str, Any]:
        """See `Spec.physical`; with wear, endurance and pulses decide numbers, too."""
        worn = {} if isinstance(self.wear, NoWear) else {name: self._plain(name) for name in WEAR_FIELDS}
        return {**super().physical(), **worn}

    @property
    def level_count(self) -> int | None:
        """Number of distinguishable conductances; None for unlimited."""
        return len(self.level_conductances) or self.levels

    def unfit_levels(self, used: int) -> str:
        """Say why an array cannot use `used` levels of the cell, as fault and remedy; empty if it can."""
        there = self.level_count
        if there is not None and used > there:
            return f"needs {used} levels but the cell has {there}; lower it or take another cell"
        if there is not None and self.uneven and used != there:
            return (
                f"uses {used} of the {there} levels of the cell, whose steps are uneven; set levels = {there} and "
                f"bits_per_cell = {(there - 1).bit_length()}"
            )
        return ""

    @property
    def uneven(self) -> bool:
        """True if the steps between the levels differ."""
        levels = self.level_conductances
        step = (self.g_max - self.g_min) / max(1, len(levels) - 1)
        return any(abs(g - self.g_min - n * step) > 1e-6 * step for n, g in enumerate(levels))

    def _bind(self) -> None:
        """Complete `priced_at` by the cell in which prices are first read; the cell is not public yet."""
        if self.priced_at is None and self.write_energy is None and self.write_time is None:
            return
        at = self.priced_at or WritePricedAt()
        if None not in (at.g_min, at.g_max, at.write_pulses):
            return
        wanted: dict[str, Any] = {}
        for fields, prices in WRITE_PRICES:
            if any(getattr(self, price) is not None for price in prices):
                wanted |= {name: getattr(self, name) for name in fields if getattr(at, name) is None}
        if any(value is not None for value in wanted.values()):
            object.__setattr__(self, "priced_at", at.model_copy(update=wanted))

    def after_change(self, old: Self) -> Self:
        """This cell, as it was made from another one by changes.

        Prices of a write that are stated together with new conductances or pulses hold for the new cell.

        Raises:
            Misplaced: prices are said to hold for another cell, but are not stated anew.
        """
        at, before = self.priced_at, old.priced_at
        if at is None or before is None:
            return self
        here, was, found = dict(self.provenance), dict(old.provenance), {}
        for fields, prices in WRITE_PRICES:
            missing = [
                name
                for name in prices
                if getattr(self, name) is not None
                and (getattr(self, name), here.get(name)) == (getattr(old, name), was.get(name))
            ]
            for name in fields:
                known, value = getattr(before, name), getattr(self, name)
                if missing and known is not None and getattr(at, name) not in (None, known):
                    reason = f"the prices of a write were given for {known}; state {' and '.join(missing)} anew with it"
                    raise Misplaced(("priced_at", name), getattr(at, name), f"{reason}, or leave it out")
                if not missing and getattr(at, name) == known and value != getattr(old, name):
                    found[name] = value
        return self.model_copy(update={"priced_at": at.model_copy(update=found)}) if found else self

    def written_as_priced(self) -> bool:
        """True if prices of a write hold for the conductances and the pulses of this cell, or there are none."""
        at = self.priced_at
        return at is None or all(getattr(at, name) in (None, getattr(self, name)) for name in WRITE_FIELDS)

    @property
    def pulse_ratio(self) -> float:
        """Pulses of a write, as a multiple of those that its prices hold for; time and energy are in proportion.

        Every pulse takes the same time and energy (NeuroSim, SwitchMatrix.cpp: times the number of write pulses).
        """
        at = self.priced_at
        return self.write_pulses / at.write_pulses if at and at.write_pulses and self.write_pulses else 1.0

    @property
    def write_conductance(self) -> float:
        """Mean conductance of a cell that is written [S]: half of all writes end at either end of the range."""
        return (self.g_min + self.g_max) / 2

    @property
    def priced_conductance(self) -> float:
        """`write_conductance` of the cell that `write_energy` holds for [S]."""
        at = self.priced_at
        if at is None or at.g_min is None or at.g_max is None:
            return self.write_conductance
        return (at.g_min + at.g_max) / 2

    @property
    def on_off_ratio(self) -> float:
        """r = G_max / G_min; infinite for G_min = 0."""
        return self.g_max / self.g_min if self.g_min else float("inf")
