"""Annotated types for the numbers of specifications, with or without a unit, all with a lower and an upper bound.

In files, a quantity carries its unit ("10 uS"); in code it is an SI float. A share may be written as "3 %" or 0.03.
Bounds refuse typing errors such as "1e300 S" before they are priced or simulated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from operator import index
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, WrapValidator

from ohmformer import units

LEAST_MAGNITUDE = 1e-12
"""The smallest magnitude, apart from zero, of a number without a unit in a file."""

_NUMBER_AND_UNIT = re.compile(r"[-+]?[0-9][0-9.]*\s*(?![eE][-+]?[0-9])[^\s0-9.].*")
"""A number and a unit, whatever it is; not a number such as 3e-2."""


def _quantity(unit: str, limits: tuple[float, float] | None = None) -> Callable[[Any, ValidationInfo], Any]:
    """A validator that converts text with a unit to an SI float.

    Args:
        unit: the SI unit.
        limits: smallest and largest value that the field accepts, for messages; None for those of the unit.
    """

    def convert(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return units.parse(value, unit, limits)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _bare(value, unit, limits, in_file=bool((info.context or {}).get("file")))
        return value

    return convert


def _bare(value: float, unit: str, limits: tuple[float, float] | None, *, in_file: bool) -> float:
    """A number without a unit as an SI float; in a file it is refused."""
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"is too large; {units.remedy(unit)}") from None
    if in_file and math.isfinite(number):
        text = f"{number:g}" if float(f"{number:g}") == number else repr(number)
        raise ValueError(units.no_unit(text, unit, limits))
    return number


_LIST = {"type": "array", "items": {"type": "number", "unit": "S"}}
"""JSON schema of a list of conductances."""


def _within(least: float, most: float) -> AfterValidator:
    """Accept zero and magnitudes from `least` to `most`; computed numbers may be below LEAST_MAGNITUDE."""

    def check(value: float, info: ValidationInfo) -> float:
        low = least if least > LEAST_MAGNITUDE or (info.context or {}).get("file") else 0.0
        if value == 0 or low <= abs(value) <= most:
            return value
        raise ValueError(f"is not a magnitude that occurs here; take one between {least:g} and {most:g}")

    return AfterValidator(check)


def _in_unit(unit: str) -> Any:
    return Field(allow_inf_nan=False, json_schema_extra={"unit": unit})


_PERCENT = Field(json_schema_extra={"share": True})
"""Marks a number that files may also write as text in percent."""


def _bounded(unit: str) -> AfterValidator:
    return AfterValidator(lambda value: units.check_magnitude(value, unit))


def _narrowed(least: float, most: float, unit: str) -> AfterValidator:
    """Accept zero and magnitudes from `least` to `most`, which lie within the limits of the unit."""

    def check(value: float) -> float:
        if value == 0 or least <= abs(value) <= most:
            return value
        bounds = f"{units.show(least, unit)} and {units.show(most, unit)}"
        raise ValueError(f"is not a magnitude that occurs here; take one between {bounds}")

    return AfterValidator(check)


def _share(value: Any) -> Any:
    """Convert a percentage such as "3 %" to a fraction; text without a unit stays as it is."""
    has_unit = isinstance(value, str) and (value.strip().endswith("%") or _NUMBER_AND_UNIT.fullmatch(value.strip()))
    return units.parse(value, "%") if has_unit else value


class Percentage(float):
    """A fraction that a file gives in percent."""


def _noting_percent(value: Any, validate: Callable[[Any], float]) -> float:
    """Validate a number; a `Percentage` if it is given in percent."""
    number = validate(value)
    return Percentage(number) if isinstance(value, Percentage) or _share(value) is not value else number


def _endless(value: Any) -> Any:
    """Convert the text "inf", which JSON files use, to infinity."""
    return math.inf if isinstance(value, str) and value.strip().lower() in ("inf", "infinity") else value


def _lasting(value: float) -> float:
    """Accept an endurance: a number of writes, or infinity."""
    if 1 <= value <= 1e20 or value == math.inf:
        return value
    raise ValueError("is not an endurance; take a number between 1 and 1e+20, or inf if writing does not wear the cell")


def _tuples(value: Any) -> Any:
    """A list as a tuple, at any depth, so that a specification can be hashed; other values unchanged."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _rows(value: Any) -> Any:
    """A list of lists as a tuple of tuples; a plain list counts as a list of one list."""
    value = _tuples(value)
    if isinstance(value, tuple) and value and not any(isinstance(row, tuple) for row in value):
        return (value,)
    return value


Listed = BeforeValidator(_tuples)
"""Marks a field that files write as a list and specifications hold as a tuple."""

Siemens = Annotated[float, BeforeValidator(_quantity("S")), _in_unit("S"), _bounded("S")]
SiemensRows = Annotated[
    tuple[tuple[Siemens, ...], ...],
    BeforeValidator(_rows),
    WithJsonSchema({"anyOf": [_LIST, {"type": "array", "items": _LIST}]}),
]
"""Lists of conductances [S]; a single list may be written without the outer brackets."""
Ohms = Annotated[float, BeforeValidator(_quantity("ohm")), _in_unit("ohm"), _bounded("ohm")]
Farads = Annotated[float, BeforeValidator(_quantity("F")), _in_unit("F"), _bounded("F")]
Volts = Annotated[float, BeforeValidator(_quantity("V")), _in_unit("V"), _bounded("V")]
Seconds = Annotated[float, BeforeValidator(_quantity("s")), _in_unit("s"), _bounded("s")]
ElectronVolts = Annotated[float, BeforeValidator(_quantity("eV")), _in_unit("eV"), _bounded("eV")]
Kelvins = Annotated[float, BeforeValidator(_quantity("K")), _in_unit("K"), _bounded("K")]
"""An absolute temperature [K]; files may also write degrees Celsius."""
Hertz = Annotated[float, BeforeValidator(_quantity("Hz")), _in_unit("Hz"), _bounded("Hz")]
Duration = Annotated[
    float, BeforeValidator(_quantity("s", (1e-15, 100.0))), _in_unit("s"), _narrowed(1e-15, 100.0, "s")
]
"""Time of one operation, such as a write or a conversion; ages and times of drift may be longer."""
Clock = Annotated[float, BeforeValidator(_quantity("Hz", (1e3, 1e12))), _in_unit("Hz"), _narrowed(1e3, 1e12, "Hz")]
"""Clock frequency of digital logic."""
ConversionRate = Annotated[Hertz, _narrowed(1.0, 1e12, "Hz")]
"""Conversions per second of a converter."""
Joules = Annotated[float, BeforeValidator(_quantity("J")), _in_unit("J"), _bounded("J")]
JoulesPerByte = Annotated[float, BeforeValidator(_quantity("J/B")), _in_unit("J/B"), _bounded("J/B")]
Watts = Annotated[float, BeforeValidator(_quantity("W")), _in_unit("W"), _bounded("W")]
SquareMeters = Annotated[float, BeforeValidator(_quantity("m^2")), _in_unit("m^2"), _bounded("m^2")]
Bytes = Annotated[float, BeforeValidator(_quantity("B")), _in_unit("B"), _bounded("B")]
BytesPerSecond = Annotated[float, BeforeValidator(_quantity("B/s")), _in_unit("B/s"), _bounded("B/s")]
OpsPerSecond = Annotated[float, BeforeValidator(_quantity("op/s")), _in_unit("op/s"), _bounded("op/s")]

Real = Annotated[float, Field(allow_inf_nan=False), _within(LEAST_MAGNITUDE, 1e3)]
"""A coefficient, positive or negative."""
Factor = Annotated[float, Field(allow_inf_nan=False, gt=0), _within(1e-6, 1e6)]
"""A positive ratio, such as operations per element or bytes per value."""
Share = Annotated[
    float, BeforeValidator(_share), _PERCENT, Field(ge=0, le=1, allow_inf_nan=False), _within(LEAST_MAGNITUDE, 1)
]
"""A fraction from 0 to 1, also as text such as "3 %"."""
PositiveShare = Annotated[Share, Field(gt=0)]
Mismatch = Annotated[
    float, BeforeValidator(_share), _PERCENT, Field(ge=0, le=0.5, allow_inf_nan=False), _within(LEAST_MAGNITUDE, 1)
]
"""A fraction from 0 to 0.5, also as text such as "3 %"."""
Efficiency = Annotated[PositiveShare, _within(1e-6, 1)]
"""The share of a peak rate that is reached; times are divided by it."""
FullScale = Annotated[float, BeforeValidator(_share), _PERCENT, Field(gt=0, le=4, allow_inf_nan=False)]
"""Full scale as a share of the largest magnitude, from above 0 to 4; also as text such as "140 %"."""
Fraction = Annotated[
    float, BeforeValidator(_share), _PERCENT, Field(ge=0, allow_inf_nan=False), _within(LEAST_MAGNITUDE, 1e3)
]
"""A non-negative fraction that may exceed 1, such as a relative deviation; also as text such as "3 %"."""
Deviation = Annotated[
    float, BeforeValidator(_share), _PERCENT, Field(ge=0, le=10, allow_inf_nan=False), _within(LEAST_MAGNITUDE, 10)
]
"""A relative deviation or the exponent of a power law, from 0 to 10; also as text such as "3 %"."""
SignedFraction = Annotated[
    float, BeforeValidator(_share), _PERCENT, Field(allow_inf_nan=False), _within(LEAST_MAGNITUDE, 1e3)
]
MetricValue = Annotated[SignedFraction, WrapValidator(_noting_percent)]
"""A value or a difference of a metric; a `Percentage` if given in percent, which only fractions allow."""
Percentile = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False), _within(1e-3, 100)]
Nanometers = Annotated[float, Field(gt=0, allow_inf_nan=False), _within(0.5, 1e4)]
"""A feature size [nm]."""
Endurance = Annotated[float, BeforeValidator(_endless), AfterValidator(_lasting)]
"""Number of writes that a cell survives; infinite if writing does not wear it."""

Count = Annotated[int, Field(ge=1, lt=10**9)]
WholeNumber = Annotated[int, Field(ge=0, lt=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def whole_number(value: object) -> int:
    """A whole number of any integer type as an int; -1 for anything else.

    Arrays and tensors of one element count as that element. Truth values and floats, also whole ones such as 3.0, are
    no whole numbers.
    """
    try:
        if hasattr(value, "dtype") and hasattr(value, "item"):  # of NumPy or PyTorch
            value = value.item()
        return -1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except (TypeError, RuntimeError, ValueError, OverflowError):
        return -1
