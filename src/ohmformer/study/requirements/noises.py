"""Write noise, read noise and drift of any shape as one number each: that of a cell in the middle of its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from ohmformer import units
from ohmformer.array.spec import Crossbar
from ohmformer.device.families import Drift, PowerLawDrift, ReadNoise, WriteNoise
from ohmformer.device.kinds import NoDrift, NoNoise
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput, shown, suggest
from ohmformer.hardware.use import KV_ROLES
from ohmformer.registry import Family, called
from ohmformer.study.requirements.arrays import RULE, Arrays, with_cell
from ohmformer.study.requirements.quantity import Quantity
from ohmformer.study.results.requirements import QuantityUnit
from ohmformer.study.spec import Whole

FIRST = {"sigma": 0.01, "nu": 0.01, "t0": 1.0, "tau": 1.0}
"""Parameters of a kind that the study does not have, before it is scaled: those of this name that it requires."""

CLOSE = 1e-9
"""Relative difference of a scaled number from the required one."""


class Strength(Quantity):
    """A quantity that scales a kind of write noise, read noise or drift, whatever its shape."""

    is_noise = True
    field: ClassVar[str]
    """The field of the cell that holds the kind."""
    default_kind: ClassVar[str]
    """The kind of cells that have none."""

    def number(self, kind: Any, array: Crossbar) -> float:
        """The number of an array whose cell has this kind."""
        raise NotImplementedError

    def without(self) -> Any:
        """The kind of cells without the quantity."""
        return NoNoise()

    def value(self, array: Crossbar) -> float:
        """The number of the cell of an array."""
        return self.number(getattr(array.cell, self.field), array)

    def off(self, array: Crossbar) -> Crossbar:
        """The array without this noise."""
        return with_cell(array, **{self.field: self.without()})

    def parameters(self, array: Crossbar) -> dict[str, Any]:
        """The kind and its parameters."""
        plain: dict[str, Any] = getattr(array.cell, self.field).canonical()
        return plain

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """The arrays whose cells have noise; with a kind, or where no cell has any, all arrays with that kind.

        Arrays in which it does not act, such as drift before its beginning, are left out.
        """
        having = {place: array for place, array in arrays.by_role.items() if self._has(array)}
        if kind is not None:
            made = {place: self._with_kind(kind, array) for place, array in arrays.by_role.items()}
        elif having:
            made = having
        else:
            silent = {place: array for place, array in arrays.by_role.items() if self._silent(array)}
            if not silent:
                raise BadInput(self.without_number(*next(iter(arrays.by_role.items())), whole))
            made = {place: self._with_kind(self._usual_kind(array), array) for place, array in silent.items()}
        for array in made.values():
            called(getattr(array.cell, self.field), "scaled", 1.0)  # refused by name if its class has no strength
        acting = {place: array for place, array in made.items() if self.value(array) > 0}
        if not acting:
            raise BadInput(self.without_number(*next(iter(made.items())), whole))
        return Arrays(acting)

    def _with_kind(self, name: str, array: Crossbar) -> Crossbar:
        return with_cell(array, **{self.field: self.of_kind(name, array)})

    def _usual_kind(self, array: Crossbar) -> str:
        """The kind that a silent cell gets: its own one, such as `sqrt_range` with gamma = 0, or the default one."""
        own: str = getattr(array.cell, self.field).kind
        try:
            self.of_kind(own, array)
        except BadInput:
            return self.default_kind
        return own

    def _has(self, array: Crossbar) -> bool:
        """True if the cell has this noise, of whatever strength above 0."""
        kind = getattr(array.cell, self.field)
        if kind.kind == "none" or (isinstance(kind, WriteNoise) and kind.silent):
            return False
        strengths = [getattr(kind, name) for name in kind.strength]
        return not strengths or any(value != 0 for value in strengths)

    def _silent(self, array: Crossbar) -> bool:
        """True if the cell has no such noise, so that it may get some."""
        return not self._has(array)

    def without_number(self, place: str, array: Crossbar, whole: Whole) -> str:
        """Fault and remedy of a noise whose number is 0."""
        kind = getattr(array.cell, self.field).kind
        return (
            f"{place}: {self.title} of kind {kind!r} is 0 in the middle of the range {shown_age(array)} after the "
            f"write, so that it cannot be scaled; choose another kind for {self.name}, or another age"
        )

    def of_kind(self, name: str, array: Crossbar) -> Any:
        """A kind of this family with small parameters.

        Raises:
            BadInput: there is no such kind, or it has required parameters of other names.
        """
        family: type[Family] = self.kinds  # type: ignore[assignment]
        kinds = {known: cls for known, cls in family.kinds().items() if known != "none"}
        if name not in kinds:
            raise BadInput(f"kind = {shown(name)}: is not a kind of {self.title}; {suggest(name, list(kinds))}")
        cls = kinds[name]
        required = [field for field, info in cls.model_fields.items() if info.is_required()]
        if unknown := [field for field in required if field not in FIRST]:
            raise BadInput(
                f"kind = {shown(name)}: has {unknown[0]}, which no default gives; set {self.field} of the cells in the "
                "study, and leave the kind out"
            )
        return cls(**{field: FIRST[field] for field in required})

    def changed(self, array: Crossbar, value: float) -> Crossbar:
        """The array with the noise times a factor, so that it has this number."""
        kind = getattr(array.cell, self.field)
        factor = _factor(lambda x: self.number(called(kind, "scaled", x), array), value)
        return with_cell(array, **{self.field: called(kind, "scaled", factor)})


def _factor(number: Callable[[float], float], value: float) -> float:
    """The factor for which a rising function has a value; its guess is exact if the function is linear."""
    from scipy.optimize import brentq

    factor = value / number(1.0)
    if math.isclose(number(factor), value, rel_tol=CLOSE):
        return factor
    low, high = factor, factor
    for _ in range(200):
        if number(low) > value:
            low /= 2
        elif number(high) < value:
            high *= 2
        else:
            return float(brentq(lambda x: number(x) - value, low, high, xtol=1e-300, rtol=1e-12))
    raise BadInput(f"a noise whose strength is {value:.4g} cannot be had by scaling its kind; choose another kind")


def _middle(cell: Cell) -> Any:
    """The conductance in the middle of the range, as a tensor [1] in float64 [S]."""
    import torch

    return torch.tensor([(cell.g_min + cell.g_max) / 2], dtype=torch.float64)


class WriteNoiseStrength(Strength):
    """Standard deviation of one write in the middle of the range."""

    name = "write_noise"
    title = harm = "write noise"
    meaning = "standard deviation of one write in the middle of the range, as a share of G_max - G_min"
    unit: ClassVar[QuantityUnit] = "%"
    low, high, start = 1e-4, 1.0, 0.02
    field = "write_noise"
    default_kind = "uniform"
    kinds = WriteNoise

    def number(self, kind: Any, array: Crossbar) -> float:
        """Standard deviation of one write of (G_min + G_max) / 2, read at the age of the array, over the range."""
        cell = array.cell
        std = called(called(kind, "at_age", array.age), "write_std", _middle(cell), cell)
        return float(std) / (cell.g_max - cell.g_min)


class ReadNoiseStrength(Strength):
    """Standard deviation of one read in the middle of the range."""

    name = "read_noise"
    title = harm = "read noise"
    meaning = "standard deviation of one read in the middle of the range, as a share of G_max - G_min"
    unit: ClassVar[QuantityUnit] = "%"
    low, high, start = 1e-4, 1.0, 0.02
    field = "read_noise"
    default_kind = "uniform"
    kinds = ReadNoise

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """As its base class; level `noise` has no reads."""
        if whole.simulation.level == "noise":
            raise BadInput("read_noise: simulation.level = 'noise' leaves read noise out; set it to 'array' or 'cell'")
        return super().prepared(arrays, whole, kind)

    def number(self, kind: Any, array: Crossbar) -> float:
        """Standard deviation of one read of (G_min + G_max) / 2 at the age of the array, over the range."""
        cell = array.cell
        std = kind.read_std(_middle(cell), cell, age=array.age, written=None)
        return float(std) / (cell.g_max - cell.g_min)


class DriftExponent(Strength):
    """Exponent of power-law drift in the middle of the range."""

    name = "drift"
    title = harm = "drift"
    meaning = "exponent nu of the drift (t / t0)^-nu of a cell in the middle of the range"
    low, high, start = 1e-5, 2.0, 0.02
    field = "drift"
    default_kind = "power_law"
    kinds = Drift

    def without(self) -> Any:
        """No drift."""
        return NoDrift()

    def number(self, kind: Any, array: Crossbar) -> float:
        """The exponent of the mean cell; if it is 0, that of a cell one standard deviation above; 0 before t0."""
        if not isinstance(kind, PowerLawDrift) or not called(kind, "acts", array.age):
            return 0.0
        middle = _middle(array.cell)
        for eps in (0.0, 1.0):
            nu = float(called(kind, "exponent", middle, array.cell, middle * 0 + eps))
            if nu:
                return nu
        return 0.0

    def _has(self, array: Crossbar) -> bool:
        return isinstance(array.cell.drift, PowerLawDrift) and super()._has(array)

    def _silent(self, array: Crossbar) -> bool:
        return isinstance(array.cell.drift, PowerLawDrift | NoDrift) and super()._silent(array)

    def of_kind(self, name: str, array: Crossbar) -> Any:
        """As its base class; only power laws have an exponent."""
        kind = super().of_kind(name, array)
        if not isinstance(kind, PowerLawDrift):
            raise BadInput(f"kind = {shown(name)}: has no exponent; take 'power_law', or the quantity retention")
        return kind

    def without_number(self, place: str, array: Crossbar, whole: Whole) -> str:
        """Drift needs a power law, and time."""
        kind = array.cell.drift
        if not isinstance(kind, PowerLawDrift | NoDrift):
            return (
                f"{place}: drift of kind {kind.kind!r} has no exponent, so that no limit can be searched; take the "
                "quantity retention for 'exponential', or choose the kind 'power_law' for drift"
            )
        if isinstance(kind, PowerLawDrift) and not called(kind, "acts", array.age):
            return (
                f"{place}: cells are read {shown_age(array)} after the write, before drift begins at t0 = "
                f"{kind.t0:g} s; {later(place, whole, '1 day')}"
            )
        return super().without_number(place, array, whole)


def shown_age(array: Crossbar) -> str:
    """The age of an array with its unit."""
    return units.show(array.age, "s")


def later(place: str, whole: Whole, age: str) -> str:
    """How a study gets a later age of an array, as a remedy."""
    if place.startswith(RULE):
        return f'set a later age, such as array.age = "{age}" in this rule'
    if place not in KV_ROLES or whole.simulation.age is None:
        return f"set a later age, such as --set 'hardware.{place}.array.age=\"{age}\"'"
    here = " of all tokens in place of the timeline" if whole.simulation.on_timeline else ""
    return f"set a later age{here}, such as --set 'simulation.age=\"{age}\"'"
