"""Range and levels of a cell: how files state them, and how many digits of some levels hold a number."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from ohmformer import units
from ohmformer.errors import Misplaced
from ohmformer.quantities import Listed, Siemens

SHORTHANDS = {
    "r_on": ("g_max", "1 / r_on"),
    "r_off": ("g_min", "1 / r_off"),
    "on_off_ratio": ("g_min", "g_max / on_off_ratio"),
}
"""Shorthand -> the field that it stands for, and how the field follows from it."""


def _from_resistance(value: Any) -> Any:
    """A resistance as text as its conductance; other values unchanged."""
    if isinstance(value, str) and value.strip().lower().endswith(("ohm", "\u2126", "\u03a9")):
        return f"{1 / _resistance(value)!r} S"
    return value


def _sorted(levels: tuple[float, ...]) -> tuple[float, ...]:
    if len(levels) == 1:
        raise ValueError("has one level; give two or more")
    return tuple(sorted(levels))


LevelList = Annotated[
    tuple[Annotated[Siemens, BeforeValidator(_from_resistance), Field(ge=0)], ...],
    Listed,
    Field(max_length=65_536),
    AfterValidator(_sorted),
]
"""Conductances of levels [S], sorted; files may also write resistances."""


def expanded_range(data: dict[str, Any]) -> dict[str, Any]:
    """Replace the shorthands of a cell's table by `g_min` and `g_max`.

    Args:
        data: the table. A value may be bare, or a table with `value` and its source.

    Returns:
        The table without shorthands. A list of levels also gives the ends of the range that the table leaves out.

    Raises:
        Misplaced: a shorthand has no usable value, or its field is stated as well.
    """
    levels = _bare(data.get("level_conductances"))
    if isinstance(levels, (str, int, float)):
        raise Misplaced(("level_conductances",), levels, "must be a list; put it in [ ]")
    if not any(key in data for key in SHORTHANDS) and not isinstance(levels, (list, tuple)):
        return data
    result = {key: value for key, value in data.items() if key not in SHORTHANDS}
    for key, (field, derivation) in SHORTHANDS.items():
        if key not in data:
            continue
        if field in result:
            other = next((k for k, (f, _) in SHORTHANDS.items() if f == field and k in data and k != key), field)
            raise Misplaced((key,), _bare(data[key]), f"and {other} both state {field}; leave one of them out")
        value = data[key] if isinstance(data[key], dict) else {"value": data[key], "kind": "user"}
        how = derivation + (f"; {value['how']}" if "how" in value else "")
        result[field] = {**value, "value": _conductance(key, _bare(value), result.get("g_max")), "how": how}
    if isinstance(levels, (list, tuple)) and levels:
        _add_ends(result, levels)
    return result


def _add_ends(result: dict[str, Any], levels: list[Any] | tuple[Any, ...]) -> None:
    """Add the ends of the range that listed levels state and the table leaves out.

    Raises:
        Misplaced: a level is no conductance or resistance that occurs; otherwise the ends would be said to be wrong.
    """
    listed = []
    for n, level in enumerate(levels):
        try:
            listed.append(_level(level))
        except (ValueError, OverflowError) as error:
            raise Misplaced(("level_conductances", str(n)), level, _reason(error)) from None
    listed.sort()
    for field, end in (("g_min", listed[0]), ("g_max", listed[-1])):
        result.setdefault(field, {"value": f"{end!r} S", "kind": "derived", "how": "an end of level_conductances"})


def _conductance(key: str, value: Any, g_max: Any) -> str:
    """The conductance that a shorthand states, as text with a unit.

    Args:
        key: the shorthand.
        value: its value.
        g_max: G_max as the table states it, which an on/off ratio needs; None if it does not.
    """
    try:
        if key != "on_off_ratio":
            return f"{1 / _resistance(value)!r} S"
        ratio = math.inf if value == "inf" else float(value) if isinstance(value, (int, float)) else math.nan
        if isinstance(value, bool) or not ratio > 1:
            raise ValueError("is not an on/off ratio; write a number above 1, or inf")
        if g_max is None:
            raise ValueError("needs the other end of the range; give g_max or r_on")
    except (ValueError, OverflowError) as error:
        raise Misplaced((key,), value, _reason(error)) from None
    try:
        return f"{_siemens(_bare(g_max)) / ratio!r} S"
    except (ValueError, OverflowError) as error:
        raise Misplaced(("g_max",), _bare(g_max), _reason(error)) from None


def _reason(error: Exception) -> str:
    """The fault and remedy of a number that cannot be used."""
    return "is beyond all numbers; correct its exponent" if isinstance(error, OverflowError) else str(error)


def _resistance(value: Any) -> float:
    """A resistance [ohm].

    Raises:
        ValueError: the value is not a resistance above zero, as text with a unit.
    """
    if not isinstance(value, str):
        raise ValueError("is not a resistance; write a number and a unit in quotes, such as '100 kohm'")
    resistance = units.check_magnitude(units.parse(value, "ohm"), "ohm")
    if resistance <= 0:
        raise ValueError("is not a resistance above 0; correct it")
    return resistance


def _siemens(value: Any) -> float:
    """A conductance [S] from a number or from text, also from that of a resistance.

    Raises:
        ValueError: the value is neither.
        OverflowError: it is too large for a float.
    """
    if isinstance(value, str):
        is_ohm = value.strip().lower().endswith(("ohm", "\u2126", "\u03a9"))
        return 1 / _resistance(value) if is_ohm else units.parse(value, "S")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("is not a conductance; write a number and a unit in quotes, such as '10 uS'")
    return float(value)


def _level(value: Any) -> float:
    """The conductance of a level [S].

    Raises:
        ValueError: the value is no conductance of at least 0, and no resistance.
        OverflowError: it is too large for a float.
    """
    level = _siemens(value)
    if isinstance(value, (int, float)) and not math.isfinite(level):
        raise ValueError("must be finite; write a finite number")
    if level < 0:
        raise ValueError("must be >= 0; raise it")
    return units.check_magnitude(level, "S")


def _bare(value: Any) -> Any:
    """A value without its source."""
    return value["value"] if isinstance(value, dict) and "value" in value else value


def digits_needed(bits: int, levels: int) -> int:
    """Number of digits from 0 to `levels` - 1 that hold any number of `bits` bits."""
    if levels & (levels - 1) == 0:
        return -(-bits // (levels.bit_length() - 1))
    digits, numbers = 1, levels
    while numbers < 1 << bits:
        digits, numbers = digits + 1, numbers * levels
    return digits
