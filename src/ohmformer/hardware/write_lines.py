"""Lines of arrays that writing selects one after another, and where they are possible."""

from __future__ import annotations

from typing import Any, Literal

from ohmformer.array.spec import Crossbar

WriteLines = Literal["rows", "columns", "transposable"]


def check_transposable(write_lines: WriteLines, array: Crossbar) -> None:
    """Refuse a transposable array whose sums along its other axis would have another length.

    Raises:
        ValueError: it is not square.
    """
    if write_lines == "transposable" and array.rows != array.columns:
        raise ValueError(
            f"write_lines = 'transposable': array.rows = {array.rows} and array.columns = {array.columns}, so the "
            "other axis would sum over another number of cells; give the array as many rows as columns, or take 'rows'"
        )


def check_weights(write_lines: WriteLines | None) -> None:
    """Refuse transposable arrays for weights.

    Raises:
        ValueError: they are transposable.
    """
    if write_lines == "transposable":
        raise ValueError(
            "projection.write_lines = 'transposable': inputs of weights come along the rows alone, so a second set "
            "of drivers and converters would be idle; take 'rows' or 'columns'"
        )


def in_both_roles(data: dict[str, Any]) -> dict[str, Any]:
    """A table of attention in which `write_lines` is moved into the engines of both roles."""
    if "write_lines" not in data or not all(isinstance(data.get(role), dict) for role in ("key", "value")):
        return data
    lines = {"write_lines": data["write_lines"]}
    rest = {name: value for name, value in data.items() if name != "write_lines"}
    return {**rest, "key": {**lines, **data["key"]}, "value": {**lines, **data["value"]}}
