"""`PerDesign`: a number of each of N designs, with which formulas that are written for one number compute all of them.

Arithmetic goes design by design. A decision, such as `if energy`, `max(read, convert)` or `ceil(time)`, must come out
alike for all designs; where it does not, `Disagreement` says which designs decide alike, so that they can be priced
apart. So every design takes the branches that it takes alone, and each result is that of the design alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import reduce
from math import floor
from numbers import Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Binary = Callable[[Any, Any], Any]


class Disagreement(Exception):
    """A decision does not come out alike for all designs.

    Attributes:
        outcomes: [N], the outcome of each design.
    """

    def __init__(self, outcomes: npt.NDArray[Any]) -> None:
        super().__init__("designs decide differently")
        self.outcomes = outcomes


def _arithmetic(operation: Binary) -> tuple[Binary, Binary]:
    """The methods of a binary operation: with a number on the right, and with one on the left."""

    def forward(self: PerDesign, other: object) -> Any:
        values = _operand(other)
        return NotImplemented if values is None else PerDesign(operation(self.values, values))

    def backward(self: PerDesign, other: object) -> Any:
        values = _operand(other)
        return NotImplemented if values is None else PerDesign(operation(values, self.values))

    return forward, backward


def _comparison(operation: Binary) -> Binary:
    """The method of a comparison, which is True or False for all designs."""

    def compare(self: PerDesign, other: object) -> Any:
        values = _operand(other)
        return NotImplemented if values is None else bool(_agreed(operation(self.values, values)))

    return compare


def _operand(other: object) -> Any:
    """The values of the other side of an operation; None if it is no number."""
    if isinstance(other, PerDesign):
        return other.values
    return other if isinstance(other, Real) else None


def _agreed(outcomes: npt.NDArray[Any]) -> Any:
    """The outcome of all designs.

    Raises:
        Disagreement: there are several.
    """
    first = outcomes[0]
    if (outcomes != first).any():
        raise Disagreement(outcomes)
    return first


class PerDesign:
    """A number of each of N designs.

    It computes with numbers and with others of its kind. Arrays of NumPy are refused, since their axes mean something
    else; so is `float`, since there is no one number.

    Attributes:
        values: [N].
    """

    __slots__ = ("values",)
    __array_ufunc__ = None

    def __init__(self, values: Array) -> None:
        self.values = values

    __add__, __radd__ = _arithmetic(operator.add)
    __sub__, __rsub__ = _arithmetic(operator.sub)
    __mul__, __rmul__ = _arithmetic(operator.mul)
    __truediv__, __rtruediv__ = _arithmetic(operator.truediv)
    __pow__, __rpow__ = _arithmetic(operator.pow)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, np.ndarray):
            raise TypeError("PerDesign: cannot be compared with an array")
        values = _operand(other)
        return False if values is None else bool(_agreed(self.values == values))

    def __hash__(self) -> int:
        return hash(self.values.tobytes())

    def __neg__(self) -> PerDesign:
        return PerDesign(-self.values)

    def __pos__(self) -> PerDesign:
        return self

    def __abs__(self) -> PerDesign:
        return PerDesign(abs(self.values))

    def __bool__(self) -> bool:
        return bool(_agreed(self.values != 0))

    def __ceil__(self) -> int:
        return int(_agreed(np.ceil(self.values)))

    def __floor__(self) -> int:
        return int(_agreed(np.floor(self.values)))

    def __trunc__(self) -> int:
        return int(_agreed(np.trunc(self.values)))

    __int__ = __trunc__

    def __repr__(self) -> str:
        return f"PerDesign({self.values!r})"


Real.register(PerDesign)


def largest(*numbers: float) -> float:
    """The largest number, design by design; `max`, in contrast, is a decision."""
    return _chosen(np.maximum, numbers) if PerDesign in map(type, numbers) else max(numbers)


def smallest(*numbers: float) -> float:
    """The smallest number, design by design; `min`, in contrast, is a decision."""
    return _chosen(np.minimum, numbers) if PerDesign in map(type, numbers) else min(numbers)


def rounded_down(number: float) -> float:
    """The largest whole number that is not above a number, design by design; `floor`, in contrast, is a decision."""
    found: Any = PerDesign(np.floor(number.values)) if isinstance(number, PerDesign) else floor(number)
    return cast("float", found)


def _chosen(choose: Binary, numbers: Iterable[object]) -> float:
    found: Any = PerDesign(reduce(choose, map(_operand, numbers)))
    return cast("float", found)


def values_of(number: Any, count: int) -> Array:
    """The numbers of all designs [N], where `number` is one for each or one for all."""
    return number.values if isinstance(number, PerDesign) else np.full(count, float(number))


def value_at(number: Any, place: int) -> float:
    """The number of one design, where `number` is one for each or one for all."""
    return float(number.values[place] if isinstance(number, PerDesign) else number)


def beside(number: Any, axes: int) -> Any:
    """A number that meets an array with `axes` axes; one for each of N designs becomes an array [N, 1, ...]."""
    return number.values.reshape(-1, *(1,) * axes) if isinstance(number, PerDesign) else number


def of_designs(values: Any) -> float:
    """A number that was computed with arrays: one for each design if there is an axis for them."""
    found: Any = PerDesign(values) if getattr(values, "ndim", 0) else float(values)
    return cast("float", found)


def count_of(number: Any) -> int:
    """N, if there is a number for each of N designs; 1 if there is one for all."""
    return len(number.values) if isinstance(number, PerDesign) else 1
