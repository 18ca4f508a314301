"""Quantities of cells beside noise: tolerance of verified writes, retention, and number of levels."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from ohmformer.array.spec import Crossbar
from ohmformer.changed_copy import with_values
from ohmformer.device.kinds import NoDrift
from ohmformer.device.retention_kinds import Exponential
from ohmformer.errors import BadInput
from ohmformer.study.requirements.arrays import Arrays, with_array, with_cell
from ohmformer.study.requirements.noises import later, shown_age
from ohmformer.study.requirements.quantity import Quantity
from ohmformer.study.results.requirements import QuantityUnit
from ohmformer.study.spec import Whole

SHORTEST_TAU, LONGEST_TAU = 1e-3, 1e6
"""Range of the searched time constants, as multiples of the age of the cells."""

MOST_LEVELS = 1024
"""Largest number of levels that is searched."""


class VerifyTolerance(Quantity):
    """Largest error at which a verified write is accepted; an error of reading back is part of it."""

    name = "verify_tolerance"
    title = harm = "read-back error of write-verify"
    meaning = "largest error of an accepted write, that of reading back included, as a share of G_max - G_min"
    unit: ClassVar[QuantityUnit] = "%"
    low, high, start = 1e-4, 1.0, 0.02

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """The arrays whose writes are verified."""
        arrays = super().prepared(arrays, whole, kind)
        having = {place: array for place, array in arrays.by_role.items() if array.write_verify is not None}
        if not having:
            place = next(iter(arrays.by_role))
            raise BadInput(
                f"{self.name}: no writes are verified; say how often a cell may be written, such as --set "
                f"'hardware.{place}.array.write_verify={{ writes = 10, tolerance = \"5 %\" }}'"
            )
        return Arrays(having)

    def value(self, array: Crossbar) -> float:
        """The tolerance; 0 for writes that are not verified."""
        return array.write_verify.tolerance if array.write_verify else 0.0

    def changed(self, array: Crossbar, value: float) -> Crossbar:
        """The array with another tolerance."""
        if array.write_verify is None:
            return array
        return with_array(array, write_verify=array.write_verify.model_copy(update={"tolerance": value}))

    def parameters(self, array: Crossbar) -> dict[str, Any]:
        """Tolerance and largest number of writes."""
        return array.write_verify.canonical() if array.write_verify else {}


class Retention(Quantity):
    """Time constant of a charge that leaks away."""

    name = "retention"
    title = "retention"
    harm = "decay"
    meaning = "time constant tau of the decay exp(-(t / tau)^stretch) at the temperature of the cells: their median"
    unit: ClassVar[QuantityUnit] = "s"
    wanted: ClassVar[Literal["largest", "smallest"]] = "smallest"
    low, high, start = 1e-12, 1e12, 1.0
    is_noise = True

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """The arrays whose cells decay; where none do, all arrays that are read some time after the write."""
        if kind not in (None, "exponential"):
            raise BadInput(f"kind = {kind!r}: retention is that of drift of kind 'exponential'; leave the kind out")
        having = {place: array for place, array in arrays.by_role.items() if isinstance(array.cell.drift, Exponential)}
        still = {place: array for place, array in arrays.by_role.items() if isinstance(array.cell.drift, NoDrift)}
        if not having and not still:
            place, array = next(iter(arrays.by_role.items()))
            raise BadInput(
                f"{self.name}: {place} has drift of kind {array.cell.drift.kind!r}, which has no time constant; take "
                "the quantity drift, or set its drift to 'exponential' in the study"
            )
        aged = {place: array for place, array in (having or still).items() if array.age > 0}
        if not aged:
            place, array = next(iter((having or still).items()))
            raise BadInput(
                f"{self.name}: cells of {place} are read {shown_age(array)} after the write, when nothing has decayed; "
                f"{later(place, whole, '1 s')}"
            )
        if having:
            return Arrays(aged)
        longest = max(array.age for array in aged.values())
        return Arrays({
            place: with_cell(array, drift=Exponential(tau=max(longest, self.low))) for place, array in aged.items()
        })  # fmt: skip

    def value(self, array: Crossbar) -> float:
        """tau at the temperature of the cells; 0 for cells that do not decay."""
        return array.cell.drift.tau_now if isinstance(array.cell.drift, Exponential) else 0.0

    def changed(self, array: Crossbar, value: float) -> Crossbar:
        """The array with another tau at the temperature of its cells."""
        drift = array.cell.drift
        if not isinstance(drift, Exponential):
            return array
        tau = value if drift.tau_now == drift.tau else value * (drift.tau / drift.tau_now)
        try:
            return with_cell(array, drift=with_values(drift, {"tau": tau}))
        except ValueError as error:
            raise BadInput(f"{self.name} = {value:.4g} s: {error}") from None

    def off(self, array: Crossbar) -> Crossbar:
        """The array with cells that keep what was written."""
        return with_cell(array, drift=NoDrift())

    def first(self, arrays: Arrays) -> float:
        """One second, or ten times the longest age if that is far from it."""
        longest = max(array.age for array in arrays.by_role.values())
        return self.start if longest / 10 <= self.start <= 1000 * longest else 10 * longest

    def parameters(self, array: Crossbar) -> dict[str, Any]:
        """The drift, tau at the temperature of the cells, and the age of cells, the longest one of all tokens."""
        drift = array.cell.drift
        now = {"tau_now": drift.tau_now} if isinstance(drift, Exponential) and drift.temperature is not None else {}
        return {**drift.canonical(), **now, "age": array.age}

    def range(self, arrays: Arrays) -> tuple[float, float]:
        """From far below the smallest age to far above the largest one."""
        ages = [array.age for array in arrays.by_role.values()]
        return max(self.low, min(ages) * SHORTEST_TAU), min(self.high, max(ages) * LONGEST_TAU)


class Levels(Quantity):
    """Number of levels of a cell in use, with as many cells for each value as in the study."""

    name = "levels"
    title = harm = "levels of a cell"
    meaning = "conductances of a cell in use, with as many cells for each value as in the study"
    wanted: ClassVar[Literal["largest", "smallest"]] = "smallest"
    low, high, start = 2.0, float(MOST_LEVELS), 16.0
    whole = True

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """All arrays, if their levels can be chosen."""
        arrays = super().prepared(arrays, whole, kind)
        if whole.simulation.level == "noise":
            raise BadInput(
                "levels: simulation.level = 'noise' has no digits, so that levels do not act; take 'array' or 'cell'"
            )
        for place, array in arrays.by_role.items():
            if array.cell.uneven:
                raise BadInput(
                    f"levels: {place} has cells with a list of uneven levels, which are all used; give levels"
                )
            if array.encoding == "offset":
                raise BadInput(
                    f"levels: {place} has encoding = 'offset', whose codes have whole bits; set encoding = "
                    "'differential'"
                )
        return arrays

    def value(self, array: Crossbar) -> float:
        """The levels in use."""
        return float(array.used_levels)

    def changed(self, array: Crossbar, value: float) -> Crossbar:
        """The array with another number of levels, and the codes that as many cells as before hold."""
        levels, cells = round(value), array.slices() // array.redundancy
        bits = math.floor(cells * math.log2(levels) + 1e-9)
        per_cell = (levels - 1).bit_length()
        radix = array.radix if array.radix is None else min(array.radix, levels)
        if levels == 1 << per_cell:
            return with_array(array, bits=bits, bits_per_cell=per_cell, levels=None, radix=radix)
        return with_array(array, bits=bits, bits_per_cell=per_cell, levels=levels, radix=radix or levels)

    def parameters(self, array: Crossbar) -> dict[str, Any]:
        """How values are divided among cells."""
        names = ("levels", "bits", "bits_per_cell", "radix", "encoding")
        return {**{name: array.canonical()[name] for name in names}, "cells": array.slices() * array.polarities}

    def range(self, arrays: Arrays) -> tuple[float, float]:
        """From 2 to the number of levels of the cells, or to what fits the bits of the arrays."""
        most = [MOST_LEVELS]
        for array in arrays.by_role.values():
            cells = array.slices() // array.redundancy
            most.append(1 << max(1, 16 // cells))
            if array.cell.level_count is not None:
                most.append(array.cell.level_count)
        return 2.0, float(min(most))
