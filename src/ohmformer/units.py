"""Quantities at the edge: "2 pJ" in files, 2e-12 in code. Nothing else in the package knows prefixes."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_PREFIX = {"f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12}
_PREFIX |= {"\u00b5": -6, "\u03bc": -6}  # both mu
_TIME = {"min": 60, "h": 3600, "hour": 3600, "day": 86400, "month": 2629800, "year": 31557600}
_SECONDS = {name: Decimal(seconds) for word, seconds in _TIME.items() for name in (word, f"{word}s")}
_EXAMPLE = {"S": "10 uS", "ohm": "100 kohm", "V": "200 mV", "A": "10 uA", "J": "2 pJ", "W": "5 mW", "s": "50 ns"}
_EXAMPLE |= {"Hz": "1 GHz", "m^2": "25 um^2", "%": "1 %"}
"""SI unit -> a quantity in it, as people write it."""
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


def _factor(written: str, unit: str) -> Decimal | None:
    """SI factor of a written unit ('uS' for 'S': 1e-6), or None where it is of another dimension."""
    if unit == "%":
        return Decimal("0.01") if written == "%" else None
    if unit == "s" and written in _SECONDS:
        return _SECONDS[written]
    if unit == "ohm":
        written = re.sub("(Ohm|[\u2126\u03a9])$", "ohm", written)
    if not written.endswith(unit):
        return None
    prefix = _PREFIX.get(written.removesuffix(unit))
    power = 2 if unit.endswith("^2") else 1
    return None if prefix is None else Decimal(10) ** (prefix * power)


def _example(unit: str) -> str:
    return repr(_EXAMPLE.get(unit, f"10 {unit}"))


def parse(text: str, unit: str) -> float:
    """'2 pJ', 'J' -> 2e-12: exactly the float that the literal 2e-12 gives.

    Args:
        text: a number and a unit with any prefix from f to T; times also in min, h, day, month and year.
        unit: the SI unit expected: 'S', 'ohm', 'V', 'A', 'J', 'W', 's', 'Hz', 'm^2', or '%' (a fraction).

    Raises:
        ValueError: the text is no number with a unit, or its unit is of another dimension.
    """
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(f"is not a quantity; write a number and a unit, such as {_example(unit)}")
    number, written = match.groups()
    if not written:
        raise ValueError(f"has no unit; write '{number} {unit}', with a prefix if you like")
    factor = _factor(written, unit)
    if factor is None:
        raise ValueError(
            f"has the unit {written!r} where {unit} is expected; write it in {unit}, such as {_example(unit)}"
        )
    return float(Decimal(number) * factor)


def show(value: float, unit: str) -> str:
    """2e-12, 'J' -> '2 pJ', with four significant digits."""
    if unit == "%":
        return f"{100 * value:.4g} %"
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    power = 2 if unit.endswith("^2") else 1
    rounded = abs(float(f"{value:.3e}"))
    exponent = max(-15, min(12, 3 * math.floor((math.log10(rounded) + 1e-9) / (3 * power))))
    prefix = next(name for name, size in _PREFIX.items() if size == exponent)
    return f"{value / 10.0 ** (exponent * power):.4g} {prefix}{unit}"
