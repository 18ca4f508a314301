"""What a quantity is whose limit can be searched, and the values at which the search may evaluate it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ohmformer import units
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.study.requirements.arrays import Arrays, C
from ohmformer.study.results.requirements import QuantityUnit
from ohmformer.study.spec import Whole

DIGITS = 4
"""Significant digits of the values at which a quantity is evaluated."""


@dataclass(frozen=True)
class Grid:
    """Values from mild to harsh, numbered by their harm: a whole number that rises with the loss.

    Neighbors differ by a constant ratio, or by one for whole numbers. Values depend on nothing but the ratio, so that
    searches with other bounds find the points that earlier ones have stored.

    Attributes:
        low, high: smallest and largest value.
        step: ratio of neighbors, less 1; None for whole numbers.
        wanted: `largest` if harm rises with the value, `smallest` if it falls.
    """

    low: float
    high: float
    step: float | None
    wanted: Literal["largest", "smallest"]

    @property
    def _ends(self) -> tuple[int, int]:
        """Numbers of the smallest and the largest value."""
        if self.step is None:
            return math.ceil(self.low), math.floor(self.high)
        ratio = math.log1p(self.step)
        return math.ceil(math.log(self.low) / ratio - 1e-9), math.floor(math.log(self.high) / ratio + 1e-9)

    @property
    def mildest(self) -> int:
        """The smallest harm."""
        first, last = self._ends
        return first if self.wanted == "largest" else -last

    @property
    def harshest(self) -> int:
        """The largest harm."""
        first, last = self._ends
        return last if self.wanted == "largest" else -first

    @property
    def growth(self) -> int:
        """Harm between a value and twice this value; 1 for whole numbers."""
        return 1 if self.step is None else max(1, round(math.log(2) / math.log1p(self.step)))

    def value(self, harm: int) -> float:
        """The value of a harm."""
        number = harm if self.wanted == "largest" else -harm
        if self.step is None:
            return float(number)
        return float(f"{math.exp(number * math.log1p(self.step)):.{DIGITS}g}")

    def harm(self, value: float) -> int:
        """The harm of the value nearest to a given one, within the range."""
        number = round(value) if self.step is None else round(math.log(max(value, self.low)) / math.log1p(self.step))
        harm = number if self.wanted == "largest" else -number
        return min(max(harm, self.mildest), self.harshest)


def shown_value(value: float, unit: str) -> str:
    """A value of a quantity with its unit: '3.1 %', '20 us', '2e+07 pulses', '16'."""
    return units.show(value, unit) if unit in ("%", "s") else f"{value:.4g} {unit}".rstrip()


class Quantity(ABC):
    """A number that describes cells, and decides how well they compute.

    A kind says how it reads the number from an array (`value`) and makes a copy of an array with another one
    (`changed`). Arrays with different values keep their ratios: the number of the harshest of them is searched.

    Attributes:
        name: as users write it.
        title: the name in words.
        harm: what a cell is without if the quantity is switched off, in words.
        meaning: what the number says.
        unit: `%` (numbers are shares), `s`, `pulses`, or empty.
        wanted: the `largest` or the `smallest` number is searched.
        low, high: range of the search.
        start: where the search begins if the cells do not have the quantity.
        whole: True for whole numbers.
        is_noise: True if results without it may say what causes a loss.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    harm: ClassVar[str]
    meaning: ClassVar[str]
    unit: ClassVar[QuantityUnit] = ""
    wanted: ClassVar[Literal["largest", "smallest"]] = "largest"
    low: ClassVar[float]
    high: ClassVar[float]
    start: ClassVar[float]
    whole: ClassVar[bool] = False
    is_noise: ClassVar[bool] = False
    kinds: ClassVar[type[Any] | None] = None
    """The family of kinds that a user may choose from; None for none."""

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """The arrays whose cells have the quantity; with a kind, or where no cell has it, all with that kind.

        Args:
            arrays: those that the user chose, with the age and the writes that they have when the study reads them.
            whole: settings of the study.
            kind: name of the kind; None to keep the kinds of the cells.

        Raises:
            BadInput: no limit can be searched; the message says what is missing.
        """
        if kind is not None:
            raise BadInput(f"kind = {kind!r}: {self.name} has no kinds; leave it out")
        return arrays

    @abstractmethod
    def value(self, array: Crossbar) -> float:
        """The number of an array; 0 if its cells do not have the quantity."""

    @abstractmethod
    def changed(self, array: Crossbar, value: float) -> Crossbar:
        """A copy of an array with another number.

        Raises:
            BadInput: the array does not accept it.
        """

    def off(self, array: Crossbar) -> Crossbar | None:
        """A copy of an array without the quantity; None if there is no array without it."""
        return None

    @abstractmethod
    def parameters(self, array: Crossbar) -> dict[str, Any]:
        """The parameters of an array that follow from the number, as plain values."""

    def range(self, arrays: Arrays) -> tuple[float, float]:
        """Smallest and largest number that the arrays accept."""
        return self.low, self.high

    def harshest(self, arrays: Arrays) -> float:
        """The number of the harshest array; 0 if no array has the quantity."""
        values = [value for value in map(self.value, arrays.by_role.values()) if value > 0]
        if not values:
            return 0.0
        return max(values) if self.wanted == "largest" else min(values)

    def grid(self, arrays: Arrays, step: float) -> Grid:
        """The numbers at which the search may evaluate it."""
        return Grid(*self.range(arrays), None if self.whole else step, self.wanted)

    def first(self, arrays: Arrays) -> float:
        """The number where the search begins if the cells do not have the quantity."""
        return self.start

    def put(self, settings: C, arrays: Arrays, value: float | None) -> C:
        """The settings in which the harshest of the arrays has a number; None switches the quantity off.

        Raises:
            BadInput: an array does not accept it.
        """
        return arrays.put(settings, self.arrays_at(arrays, value))

    def arrays_at(self, arrays: Arrays, value: float | None) -> dict[str, Crossbar]:
        """The arrays with a number; None switches the quantity off."""
        found: dict[str, Crossbar] = {}
        reference = self.harshest(arrays)
        for place, array in arrays.by_role.items():
            if value is None:
                found[place] = self.off(array) or array
            else:
                own = self.value(array)
                share = own / reference if reference and own and not self.whole else 1.0
                found[place] = self.changed(array, value * share)
        return found
