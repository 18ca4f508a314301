"""Reads `array` or `engine` of an accelerator, which stand for the engines of all roles."""

from __future__ import annotations

from typing import Any

from ohmformer.errors import Misplaced


def with_shared_engine(data: dict[str, Any]) -> dict[str, Any]:
    """Expand `engine = ...`, one engine that all roles without one share, or `array = ...`, their crossbars.

    Args:
        data: the keys of an accelerator as a user gives them.

    Returns:
        The keys `projection` and `attention` in place of `engine` or `array`.

    Raises:
        Misplaced: both are given, or every role has an engine of its own.
    """
    given = [name for name in ("array", "engine") if name in data]
    if not given:
        return data
    attention = data.get("attention", {})
    own = set(attention) if isinstance(attention, dict) else {"array"}
    if len(given) > 1 or ("projection" in data and ("array" in own or {"key", "value"} <= own)):
        reason = "is given beside keys that set the same engines; leave it out, or leave those out"
        raise Misplaced((given[0],), None, reason)
    engine = data["engine"] if "engine" in data else {"kind": "crossbar", "array": data["array"]}
    if "array" not in own:
        shared = {"arrays": "shared"} if "engine" in data else {}
        attention = {"key": engine, "value": engine, **shared, **attention}
    rest = {name: value for name, value in data.items() if name not in given}
    return {"projection": engine, **rest, "attention": attention}
