"""The endurance of cells that wear as they are written, as a quantity whose limit can be searched."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from ohmformer.array.spec import Crossbar
from ohmformer.device.wear_kinds import NoWear, Weibull
from ohmformer.errors import BadInput
from ohmformer.hardware.use import KV_ROLES
from ohmformer.study.requirements.arrays import RULE, Arrays, with_cell
from ohmformer.study.requirements.conditions import as_read
from ohmformer.study.requirements.quantity import Quantity
from ohmformer.study.results.requirements import QuantityUnit
from ohmformer.study.spec import Whole

SMALLEST, LARGEST = 1e-3, 1e12
"""Range of the searched endurance, as multiples of the pulses that cells have seen."""

USUAL_STUCK_AT_G_MAX = 0.5
"""Share of the worn cells that are stuck at G_max, for cells of which the study says neither wear nor faults."""


class Endurance(Quantity):
    """Number of pulses after which 63 % of all cells are stuck."""

    name = "endurance"
    title = "endurance"
    harm = "cells that wear has made stuck"
    meaning = "pulses N_63 after which 63 % of all cells are stuck by wear, at the writes that the study makes"
    unit: ClassVar[QuantityUnit] = "pulses"
    wanted: ClassVar[Literal["largest", "smallest"]] = "smallest"
    low, high, start = 1.0, 1e20, 1e8

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """The written arrays whose cells wear; where none do, all written arrays, with wear of kind `weibull`."""
        if kind not in (None, "weibull"):
            raise BadInput(
                f"kind = {kind!r}: only 'weibull' needs no more numbers; set cell.wear in the study, and leave the "
                "kind out"
            )
        wearing = {place: array for place, array in arrays.by_role.items() if not isinstance(array.cell.wear, NoWear)}
        worn = {place: array for place, array in wearing.items() if array.cell.wear.uses_endurance}
        if wearing and not worn:
            place, array = next(iter(wearing.items()))
            raise BadInput(
                f"{self.name}: {place} has wear of kind {array.cell.wear.kind!r}, which reads no endurance; choose "
                "the kind 'weibull', or another quantity"
            )
        written = self._written(worn or self._with_wear(arrays, whole), whole)
        if not written:
            places = list(worn or arrays.by_role)
            raise BadInput(self._without_writes(next((p for p in places if p in KV_ROLES), places[0])))
        return Arrays(written)

    def _with_wear(self, arrays: Arrays, whole: Whole) -> dict[str, Crossbar]:
        """The arrays that the study writes, or may write if it has hours of use, with wear."""
        found = {}
        for place, array in arrays.by_role.items():
            if whole.simulation.hours and place in KV_ROLES:
                faulty = any(chance > 0 for _, chance in array.cell.faults.states())
                wear = Weibull(stuck_at_g_max=None if faulty else USUAL_STUCK_AT_G_MAX)
                endurance = self.start if array.cell.endurance is None else array.cell.endurance
                found[place] = with_cell(array, wear=wear, endurance=endurance)
        return found

    def _written(self, wearing: dict[str, Crossbar], whole: Whole) -> dict[str, Crossbar]:
        """Those of arrays that wear whose cells are written, with their writes in the study."""
        arrays = Arrays(wearing)
        counted = as_read(arrays, arrays.put(whole, wearing)).by_role if wearing else {}
        return {place: array for place, array in counted.items() if array.writes > 0}

    def _without_writes(self, place: str) -> str:
        """Fault and remedy of cells without writes."""
        if place in KV_ROLES:
            remedy = "say how long it is in use, such as --set simulation.hours=1000"
        else:
            path = "array" if place.startswith(RULE) else f"hardware.{place}.array"
            remedy = f"say how often, such as {path}.writes = 1e6 beside the wear of its cells"
        return f"{self.name}: the cells of {place} have not been written before, so that nothing has worn; {remedy}"

    def value(self, array: Crossbar) -> float:
        """N_63 in pulses; 0 for cells that do not wear, or never wear out."""
        endurance = array.cell.endurance
        if isinstance(array.cell.wear, NoWear) or endurance is None or endurance == float("inf"):
            return 0.0
        return endurance

    def changed(self, array: Crossbar, value: float) -> Crossbar:
        """The array with another endurance."""
        return with_cell(array, endurance=value)

    def off(self, array: Crossbar) -> Crossbar:
        """The array with cells that never get stuck; a window that shrinks with writes stays."""
        return with_cell(array, endurance=float("inf"))

    def first(self, arrays: Arrays) -> float:
        """Ten times the pulses that cells have seen."""
        return 10 * max(map(_pulses, arrays.by_role.values()))

    def parameters(self, array: Crossbar) -> dict[str, Any]:
        """The wear, the endurance, what cells have seen, and the share of them that is stuck then."""
        stuck = sum(chance for _, chance in array.aged_cell.faults.states())
        numbers = {"endurance": self.value(array), "writes": array.writes, "pulses": _pulses(array), "stuck": stuck}
        wear = array.cell.wear.canonical()
        if array.cell.window(array.writes) == (0.0, 1.0):
            wear.pop("moves", None)  # no window moves
        return {**wear, **numbers}

    def range(self, arrays: Arrays) -> tuple[float, float]:
        """From far below the pulses that cells have seen to far above."""
        pulses = [_pulses(array) for array in arrays.by_role.values()]
        return max(self.low, min(pulses) * SMALLEST), min(self.high, max(pulses) * LARGEST)


def _pulses(array: Crossbar) -> float:
    """The pulses that each cell has seen."""
    return array.cell.pulses(array.writes)
