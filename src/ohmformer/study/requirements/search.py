"""The search of the limit of one quantity, all else as in the study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from ohmformer.device.kinds import Faults
from ohmformer.device.wear_kinds import NoWear
from ohmformer.study.requirements.arrays import Arrays, with_array, with_cell
from ohmformer.study.requirements.bisection import last_that_passes
from ohmformer.study.requirements.catalog import QUANTITIES
from ohmformer.study.requirements.conditions import as_read, conditions_of
from ohmformer.study.requirements.evaluations import Asked, Search
from ohmformer.study.requirements.loss import LossBound
from ohmformer.study.requirements.quantity import Grid, Quantity, shown_value
from ohmformer.study.results.requirements import EvaluatedValue, MeasuredLoss, Requirement, Verdict
from ohmformer.study.spec import Whole

OFF = "off"
"""What messages say of a quantity that is switched off."""


@dataclass
class QuantitySearch:
    """The search of one limit.

    Attributes:
        quantity: what is searched.
        whole: the study.
        on: choice of arrays.
        kind: kind of the noise, for cells that have none; None for the default one.
        bound: the loss that the user accepts.
        step: ratio of neighboring values, less 1.
        fixed: what else is set, for messages.
    """

    quantity: Quantity
    whole: Whole
    on: str
    kind: str | None
    bound: LossBound
    step: float
    fixed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the arrays that the quantity acts on.

        Raises:
            BadInput: no limit can be searched.
        """
        chosen = as_read(Arrays.of(self.whole, self.on), self.whole)
        self.arrays = self.quantity.prepared(chosen, self.whole, self.kind)
        same = {place: array for place, array in chosen.by_role.items() if place in self.arrays.by_role}
        self.today = self.quantity.harshest(Arrays(same)) or None
        self.grid: Grid = self.quantity.grid(self.arrays, self.step)
        self.start = self.grid.harm(self.today or self.quantity.first(self.arrays))
        self.points: dict[int, MeasuredLoss] = {}
        self.without: MeasuredLoss | None = None
        conditions_of(self.at(self.grid.value(self.start)).whole)  # refuses here what the study refuses at any value

    def at(self, value: float | None) -> Asked:
        """The point at a value; None switches the quantity off."""
        text = OFF if value is None else shown_value(value, self.quantity.unit)
        return Asked({**self.fixed, self.quantity.name: text}, self.quantity.put(self.whole, self.arrays, value))

    @property
    def can_be_off(self) -> bool:
        """True if the quantity can be switched off."""
        return all(self.quantity.off(array) is not None for array in self.arrays.by_role.values())

    @property
    def _switched_off(self) -> str:
        """What is switched off, in words, with its arrays if the user chose some."""
        places = "" if self.on == "all" else f" of {', '.join(self.arrays.by_role)}"
        return f"without {self.quantity.harm}{places}"

    def run(self) -> Search[Requirement]:
        """Bisect twice: for the far end of the interval of the loss, which decides, and for the near end.

        If the first value fails, the quantity is switched off next: where that fails, too, no value can hold.
        """
        start = self.start
        self.points[start] = yield self.at(self.grid.value(start))
        if self.can_be_off and not self.bound.holds(self.points[start]):
            self.without = yield self.at(None)
            if not self.bound.holds(self.without):
                causes = yield from self._causes(self.at(None), self._switched_off, self.without)
                return self._requirement("never", None, None, [causes])
        holding, breaking = yield from self._bisect(start, self.grid.growth, self.bound.holds)
        if holding is None:
            told = yield from self._why_not_even_the_mildest()
            return self._requirement("never", None, None, [*self._doubts(), told])
        nearby = max(1, self.grid.growth // 2)
        _, certain = yield from self._bisect(holding if breaking is None else breaking, nearby, self.bound.may_hold)
        verdict: Verdict = "limit" if breaking is not None else "no limit found"
        return self._requirement(verdict, holding, certain, self._doubts())

    def _bisect(
        self, start: int, growth: int, passes: Callable[[MeasuredLoss], bool]
    ) -> Search[tuple[int | None, int | None]]:
        search = last_that_passes(start, self.grid.mildest, self.grid.harshest, growth)
        harm = next(search)
        while True:
            if harm not in self.points:
                self.points[harm] = yield self.at(self.grid.value(harm))
            try:
                harm = search.send(passes(self.points[harm]))
            except StopIteration as stop:
                found: tuple[int | None, int | None] = stop.value
                return found

    def _requirement(self, verdict: Verdict, holding: int | None, certain: int | None, notes: list[str]) -> Requirement:
        quantity, grid = self.quantity, self.grid
        limit = None if holding is None else grid.value(holding)
        at_limit = {} if limit is None else quantity.arrays_at(self.arrays, limit)
        off = [] if self.without is None else [EvaluatedValue(value=None, loss=self.without)]
        measured = [EvaluatedValue(value=grid.value(harm), loss=loss) for harm, loss in sorted(self.points.items())]
        ends = grid.value(grid.mildest), grid.value(grid.harshest)
        return Requirement(
            quantity=quantity.name,
            title=quantity.title,
            meaning=quantity.meaning,
            unit=quantity.unit,
            wanted=quantity.wanted,
            on=tuple(self.arrays.by_role),
            today=self.today,
            verdict=verdict,
            limit=limit,
            fails_from=None if certain is None else grid.value(certain),
            searched=(min(ends), max(ends)),
            parameters={place: quantity.parameters(array) for place, array in at_limit.items()},
            evaluations=len(off) + len(measured),
            points=(*off, *measured),
            notes=tuple(notes),
        )

    def _doubts(self) -> list[str]:
        """A sentence if a harsher value has certainly less loss than a milder one, or holds where that one does not."""
        quantity, text = self.quantity, self.bound.text
        for (mild, before), (harsh, after) in combinations(sorted(self.points.items()), 2):
            holds_again = not self.bound.holds(before) and self.bound.holds(after)
            if holds_again or after.far < before.near:
                first, second = (shown_value(self.grid.value(harm), quantity.unit) for harm in (mild, harsh))
                way = "larger" if quantity.wanted == "largest" else "smaller"
                return [
                    f"The loss does not rise steadily with {way} {quantity.title}: it is {text(before)} at {first}, "
                    f"but {text(after)} at {second}; the limit assumes that it does."
                ]
        return []

    def _why_not_even_the_mildest(self) -> Search[str]:
        """A sentence on the loss below all values of the search."""
        mildest = self.grid.value(self.grid.mildest)
        if self.without is not None:
            least = shown_value(mildest, self.quantity.unit)
            return (
                f"Without {self.quantity.harm} the loss is {self.bound.text(self.without)}, but {least} is too much "
                "already."
            )
        loss = self.points[self.grid.mildest]
        return (yield from self._causes(self.at(mildest), "at the mildest value", loss))

    def _causes(self, base: Asked, where: str, loss: MeasuredLoss) -> Search[str]:
        """A sentence on the loss of a point, and on what it is without each other noise that acts."""
        parts = [f"Even {where} the loss is {self.bound.text(loss)}"]
        for name, whole in other_noises(base.whole, self.quantity, self.arrays):
            other = yield Asked({**base.set, name: OFF}, whole)
            parts.append(f"without {name} as well it is {self.bound.text(other)}")
        if len(parts) == 1:
            parts.append("no other noise of cells acts, so codes, converters, inputs or clips cause it")
        hint = (
            " The mean is within the bound; more chips or samples (trials.chips, task.limit) narrow the interval."
            if loss.mean <= self.bound.most
            else ""
        )
        return f"{'; '.join(parts)}.{hint}"


def other_noises(whole: Whole, quantity: Quantity, searched: Arrays) -> list[tuple[str, Whole]]:
    """Title of each other noise of the cells that acts, and the study without it.

    Arrays that are not searched may have the noise of the quantity, too.

    Args:
        whole: the study.
        quantity: what is searched.
        searched: the arrays whose limit is searched.
    """
    arrays, found = as_read(Arrays.of(whole), whole), []
    for other in QUANTITIES.values():
        if not other.is_noise:
            continue
        here = {
            place: array
            for place, array in arrays.by_role.items()
            if other.value(array) > 0 and not (other is quantity and place in searched.by_role)
        }
        changed = {place: array for place, array in zip(here, map(other.off, here.values()), strict=True) if array}
        if here:
            name = f"{other.harm} of {', '.join(here)}" if other is quantity else other.harm
            found.append((name, arrays.put(whole, changed)))
    stuck = {
        place: with_cell(array, faults=Faults())
        for place, array in arrays.by_role.items()
        if any(chance > 0 for _, chance in array.cell.faults.states())
    }
    worn = {
        place: with_cell(with_array(array, writes=0.0), wear=NoWear())
        for place, array in arrays.by_role.items()
        if array.writes and (quantity.name != "endurance" or array.saturates)
    }
    others = {"stuck cells": stuck, "wear": worn}
    return [*found, *((name, arrays.put(whole, changed)) for name, changed in others.items() if changed)]
