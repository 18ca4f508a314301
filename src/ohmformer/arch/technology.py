"""Carrying figures of one technology over to another.

Two rules, each named where it is used. `linear`: energies times the ratio of feature sizes, as PUMAsim does for its
arithmetic units from 45 to 32 nm (x 32/45). `dennard`: constant-field scaling (Dennard et al. 1974): energy with the
third power of the ratio, delay with the first, area with the second. Neither holds for analog parts: arrays and
converters keep the figures of their source.
"""

from __future__ import annotations

from typing import Literal

from ohmformer.arch.cost import Cost
from ohmformer.errors import BadInput

Rule = Literal["linear", "dennard"]

_POWERS: dict[str, tuple[int, int, int]] = {"linear": (1, 0, 2), "dennard": (3, 1, 2)}
"""Rule -> exponents of energy, time and area."""


def _ratio(old: float, new: float) -> float:
    if old <= 0 or new <= 0:
        raise BadInput(f"technology = {old:g} -> {new:g} nm: must be > 0; correct it")
    return new / old


def scale(cost: Cost, old: float, new: float, rule: Rule = "linear") -> Cost:
    """A cost at a feature size of `old` nm, at `new` nm."""
    energy, time, _ = _POWERS[rule]
    ratio = _ratio(old, new)
    return cost.scaled(ratio**energy, ratio**time)


def scale_area(area: float, old: float, new: float, rule: Rule = "linear") -> float:
    """An area at a feature size of `old` nm, at `new` nm."""
    return float(area * _ratio(old, new) ** _POWERS[rule][2])
