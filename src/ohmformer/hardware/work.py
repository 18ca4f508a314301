"""What a stage asks of an engine with exact products, and what the engine takes for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import cast

from ohmformer.errors import BadInput, shown
from ohmformer.registry import Family, called


@dataclass(frozen=True)
class Work:
    """The matrix products of one stage of a layer, over all samples.

    Attributes:
        macs: multiply-accumulate operations.
        values_in: activations, keys and values that are read from memories.
        values_out: values of results that are written to memories.
        vectors: input vectors, that is, tokens of all samples.
        weights: weights that are read from memories, each once.
    """

    macs: int
    values_in: float
    values_out: float
    vectors: int
    weights: float = 0.0


@dataclass(frozen=True)
class Price:
    """Time and energy of an engine for some `Work`.

    Attributes:
        seconds: time for which the engine is busy [s].
        energy: component -> energy [J].
    """

    seconds: float
    energy: Mapping[str, float]


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def holds_numbers(price: object) -> bool:
    """True if a price has numbers for seconds and for the joules of named components."""
    if not isinstance(price, Price) or not isinstance(price.energy, Mapping):
        return False
    named = all(isinstance(component, str) for component in price.energy)
    return named and all(map(is_number, (price.seconds, *price.energy.values())))


def price_of(engine: Family, work: Work) -> Price | None:
    """The price of an exact engine for some work, checked; None if its cost is unknown.

    Raises:
        BadInput: the method fails, or returns anything but a `Price` with numbers, or None.
    """
    price = called(engine, "price", work)
    if price is not None and not holds_numbers(price):
        raise BadInput(f"{type(engine).__name__}.price: returns {shown(price)}; return an ohmformer.Price or None")
    return cast("Price | None", price)


def bits_of(engine: Family) -> int | None:
    """The `operand_bits` of an exact engine, checked.

    Raises:
        BadInput: the method fails, or returns anything but a whole number from 1 to 64, or None.
    """
    bits = called(engine, "operand_bits")
    if bits is not None and (type(bits) is not int or not 1 <= bits <= 64):
        raise BadInput(f"{type(engine).__name__}.operand_bits: returns {shown(bits)}; return 1 to 64, or None")
    return bits


def area_of(engine: Family) -> float:
    """The `own_area` of an exact engine, checked [m^2].

    Raises:
        BadInput: the method fails, or returns anything but a finite number of 0 or more.
    """
    area = called(engine, "own_area")
    if not is_number(area) or not 0 <= area < inf:
        raise BadInput(f"{type(engine).__name__}.own_area: returns {shown(area)}; return square meters, 0 or more")
    return float(area)
