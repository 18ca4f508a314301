"""A budget for the protection of K and V, and the cost of one way to protect them, each for both halves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

from ohmformer.array.residual.spec import Residual
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import Clip, Conditioning
from ohmformer.quantities import WholeNumber
from ohmformer.schema import Spec

UNLIMITED = "unlimited"
"""Text of a limit that allows everything."""

MOST = 1e6
"""Largest limit, as a factor."""

ROUNDING = 1e-9
"""Relative excess over a limit that comes from rounding."""

LONGEST = 64
"""Largest number of characters of a limit."""

_CHANGE = re.compile(r"([-+]?)\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%")
_EXAMPLES = "write an increase such as '+10 %', a factor such as 1.1, or 'unlimited'"


def _limit(value: Any) -> float | None:
    """A limit as a factor of what doing nothing takes; None without a limit.

    Raises:
        ValueError: the value is no limit.
    """
    if value is None or value == UNLIMITED:
        return None
    if isinstance(value, str):
        value = _factor(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"is no limit; {_EXAMPLES}")
    if value < 1:
        raise ValueError(f"is less than doing nothing takes, which must be within the budget; {_EXAMPLES}")
    if not value <= MOST:  # also refuses NaN
        raise ValueError(f"is not a factor from 1 to {MOST:g}; {_EXAMPLES}")
    return float(value)


def _factor(text: str) -> float:
    """The factor of an increase: 1.1 for '+10 %'.

    Raises:
        ValueError: the text is no increase.
    """
    match = _CHANGE.fullmatch(text.strip()) if len(text) <= LONGEST else None
    if match is None:
        raise ValueError(f"is no limit; {_EXAMPLES}")
    sign, percent = match.groups()
    if not sign:
        raise ValueError(f"has no sign; {_EXAMPLES}")
    return float(1 + Decimal(f"{sign}{percent}") / 100)


def _true(value: Any) -> bool:
    """The mark of a budget.

    Raises:
        ValueError: it is not true.
    """
    if value is not True:
        raise ValueError("marks a budget; write auto = true, or another kv, such as 'none'")
    return True


Limit = Annotated[
    float | None,
    BeforeValidator(_limit),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 1, "maximum": MOST}, {"type": "string"}, {"type": "null"}],
            "description": "an increase such as '+10 %', a factor such as 1.1, or 'unlimited'",
        }
    ),
]
"""Largest factor of what doing nothing takes."""


@dataclass(frozen=True)
class KVCost:
    """The cost of one whole pass of a model whose K and V are protected in one way; only `cells` counts K and V alone.

    All numbers are absolute. `ratios` divides them by those of doing nothing.

    Attributes:
        latency: time of the pass [s].
        energy: energy of the pass [J].
        cells: number of cells that hold K and V.
        area: area of all chips [m^2].
        writes: number of writes of cells in the pass; None if unknown.
        lifetime: time until the first cells wear out [s]; None if unknown or unlimited.
    """

    latency: float
    energy: float
    cells: float
    area: float
    writes: float | None = None
    lifetime: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            BadInput: one of them is not a finite number of 0 or more.
        """
        for name, value in asdict(self).items():
            if value is None and name in ("writes", "lifetime"):
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                raise BadInput(f"KVCost: {name} = {value!r}: must be a finite number of 0 or more")

    def ratios(self, plain: KVCost) -> dict[str, float]:
        """Each quantity that a budget may limit, as a factor of that of `plain`."""
        return {name: _ratio(getattr(self, name), getattr(plain, name)) for name in LIMITED}


LIMITED = ("latency", "energy", "cells", "area")
"""The quantities that a budget may limit."""

PriceKV = Callable[[Mapping[str, Clip | tuple[Clip, ...]], Mapping[str, Conditioning]], KVCost]
"""The cost of a model for clips and conditionings by operand; operands that both leave out are unprotected."""


def _ratio(value: float, plain: float) -> float:
    if plain > 0:
        return value / plain
    return 1.0 if value == 0 else math.inf


class KVBudget(Spec):
    """What the protection of K and V may cost; the best candidate within the budget is chosen.

    Every limit is a factor of what doing nothing takes, or an increase such as "+10 %". Doing nothing is always within
    the budget. Without any limit, the best of all candidates is chosen.

    Attributes:
        auto: True; marks the table as a budget.
        latency: limit of the time of a pass; None without one.
        energy: limit of the energy of a pass.
        cells: limit of the number of cells that hold K and V. Below 2, candidates with two copies are left out.
        area: limit of the area.
        residual: the read-back of the candidates that use residual writing.
        first_tokens: number of tokens at the start of a sequence that candidates may keep digital; 0 for candidates
            whose tokens are all in cells.
    """

    auto: Annotated[Literal[True], BeforeValidator(_true)] = True
    latency: Limit = None
    energy: Limit = None
    cells: Limit = None
    area: Limit = None
    residual: Residual = Residual()
    first_tokens: WholeNumber = 0

    @property
    def limits(self) -> dict[str, float]:
        """Quantity -> its limit, as a factor of what doing nothing takes; quantities without one are left out."""
        limits = {name: getattr(self, name) for name in LIMITED}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def holds(self, cost: KVCost, plain: KVCost) -> bool:
        """True if a cost is within all limits.

        Args:
            cost: the cost of a candidate.
            plain: the cost of doing nothing.
        """
        ratios = cost.ratios(plain)
        return all(ratios[name] <= limit * (1 + ROUNDING) for name, limit in self.limits.items())
