"""What a stage asks of an engine with exact products, and what the engine takes for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real


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
