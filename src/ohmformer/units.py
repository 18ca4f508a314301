"""Quantities with units: "2 pJ" in files is 2e-12 in code. No other module knows prefixes."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from ohmformer.errors import shown

_PREFIX = {"f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12}
_PREFIX |= {"\u00b5": -6, "\u03bc": -6}  # both mu
_CELSIUS = {"degC": Decimal("273.15"), "\u00b0C": Decimal("273.15")}
"""Unit of a temperature -> what is added to it for kelvins."""
_NAMES = {"K": "K or degC"}
"""SI unit -> the units of a quantity in messages, where another one is as usual."""
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}
_TIME = {"min": 60, "h": 3600, "hour": 3600, "day": 86400, "month": 2629800, "year": 31557600}
_SECONDS = {name: Decimal(seconds) for word, seconds in _TIME.items() for name in (word, f"{word}s")}
_EXAMPLE = {"S": "10 uS", "ohm": "100 kohm", "V": "200 mV", "A": "10 uA", "J": "2 pJ", "W": "5 mW", "s": "50 ns"}
_EXAMPLE |= {
    "Hz": "1 GHz",
    "m^2": "25 um^2",
    "m": "30 nm",
    "F": "10 fF",
    "B": "80 GB",
    "J/B": "10 pJ/B",
    "B/s": "10 GB/s",
}
_EXAMPLE |= {"op/s": "10 Top/s", "%": "1 %", "eV": "0.6 eV", "K": "300 K"}
"""SI unit -> an example of a quantity within `LIMITS`, for messages."""
_QUANTITY = re.compile(r"([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*([^\s0-9.]\S*)?")
_LONGEST = 64
"""Maximum number of characters of a quantity."""

LIMITS = {
    "S": (1e-15, 1.0), "ohm": (1e-3, 1e15), "V": (1e-9, 1e4), "A": (1e-18, 1e4), "F": (1e-21, 1.0), "m": (1e-12, 10.0),
    "m^2": (1e-18, 0.1), "J": (1e-24, 1e-3), "J/B": (1e-21, 1e-6), "W": (1e-15, 1e5), "s": (1e-15, 1e11),
    "Hz": (1e-9, 1e12), "B": (1.0, 1e15), "B/s": (1.0, 1e17), "op/s": (1.0, 1e17), "eV": (1e-3, 10.0),
    "K": (1.0, 2000.0),
}  # fmt: skip
"""SI unit -> smallest and largest magnitude that is accepted; a value beyond them is taken for a typing error. Energies
are those of one event, such as a conversion or a write; areas are those of one part, at most a wafer."""


def _factor(written: str, unit: str) -> Decimal | None:
    """SI factor of a written unit ('uS' for 'S': 1e-6); None if it has another dimension."""
    if unit == "%":
        return Decimal("0.01") if written in ("%", "percent") else None
    if unit == "s" and written in _SECONDS:
        return _SECONDS[written]
    if unit == "ohm":
        written = re.sub("(Ohm|[\u2126\u03a9])$", "ohm", written)
    if not written.endswith(unit):
        return None
    if unit == "B" and written.removesuffix(unit) in _BINARY:
        return Decimal(2 ** _BINARY[written.removesuffix(unit)])
    prefix = _PREFIX.get(written.removesuffix(unit))
    power = 2 if unit.endswith("^2") else 1
    return None if prefix is None else Decimal(10) ** (prefix * power)


def _example(unit: str) -> str:
    return repr(_EXAMPLE.get(unit, f"10 {unit}"))


def parse(text: str, unit: str, limits: tuple[float, float] | None = None) -> float:
    """Read a quantity: parse('2 pJ', 'J') is exactly the float of the literal 2e-12.

    Args:
        text: a number and a unit with any prefix from f to T; times also in min, h, day, month and year, temperatures
            in degC, bytes in KiB, MiB, GiB and TiB, fractions in % or percent.
        unit: the unit expected: 'S', 'ohm', 'V', 'A', 'J', 'W', 's', 'Hz', 'm^2', 'B', 'K', 'eV', or '%' (a fraction).
        limits: smallest and largest value that the caller accepts, for messages; None for those of `LIMITS`.

    Raises:
        ValueError: the text is not a number with a unit, its unit has another dimension, or the number is too small or
            too large for a float.
    """
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if not match:
        raise ValueError(f"is not a quantity; write a number and a unit, such as {_example(unit)}")
    number, written = match.groups()
    if not written:
        raise ValueError(no_unit(number, unit, limits))
    zero = _CELSIUS.get(written, Decimal(0)) if unit == "K" else Decimal(0)
    factor = Decimal(1) if zero else _factor(written, unit)
    if factor is None:
        name = _NAMES.get(unit, unit)
        raise ValueError(
            f"has the unit {shown(written)} where {name} is expected; write it in {name}, such as {_example(unit)}"
        )
    try:
        exact = Decimal(number) * factor + zero
        value = float(exact)
    except ArithmeticError:
        raise ValueError(f"is beyond all numbers; {remedy(unit)}") from None
    if value == 0 and exact != 0:
        raise ValueError(f"is beyond all numbers; {remedy(unit)}")
    return value


def no_unit(number: str, unit: str, limits: tuple[float, float] | None = None) -> str:
    """Fault and remedy of a number without a unit. The number is repeated only where it would be accepted with one.

    Args:
        number: the number as text.
        unit: the SI unit expected.
        limits: smallest and largest value that is accepted; None for those of `LIMITS`.
    """
    least, most = limits or LIMITS.get(unit, (0.0, math.inf))
    if unit == "K" and least <= float(number) + float(_CELSIUS["degC"]) <= most:  # may be meant in either unit
        kelvins = f" or '{number} K'" if least <= float(number) <= most else ""
        return f"has no unit; write '{number} degC'{kelvins}"
    if float(number) > 0 and least <= float(number) <= most:
        return f"has no unit; write '{number} {unit}', with a prefix if you like"
    return f"has no unit; write a number and a unit, such as {_example(unit)}"


def remedy(unit: str) -> str:
    """The remedy for a number that is too large or too small, as text."""
    least, most = LIMITS.get(unit, (0.0, 0.0))
    return f"take one between {least:g} and {most:g} {unit}" if most else "correct its exponent"


def check_magnitude(value: float, unit: str) -> float:
    """The value in SI units, if it is zero or within `LIMITS`.

    Raises:
        ValueError: it is not.
    """
    least, most = LIMITS[unit]
    if value == 0 or least <= abs(value) <= most:
        return value
    raise ValueError(f"is not a magnitude that occurs in {unit}; {remedy(unit)}")


def square_mm(area: float) -> str:
    """An area [m^2] as text in square millimeters: square_mm(61.5e-6) is '61.5 mm²', square_mm(0.0217) '21,700 mm²'."""
    return f"{area * 1e6:,.4g} mm²" if area < 1e-2 else f"{area * 1e6:,.0f} mm²"


def show(value: float, unit: str) -> str:
    """A quantity as text with four significant digits: show(2e-12, 'J') is '2 pJ'."""
    if unit == "%":
        return f"{100 * value:.4g} %"
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    power = 2 if unit.endswith("^2") else 1
    rounded = abs(float(f"{value:.3e}"))
    exponent = max(-15, min(12, 3 * math.floor((math.log10(rounded) + 1e-9) / (3 * power))))
    prefix = next(name for name, size in _PREFIX.items() if size == exponent)
    return f"{value / 10.0 ** (exponent * power):.4g} {prefix}{unit}"
