"""Measured cells as tables: CSV files and data frames, with columns in any unit."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ohmformer import units
from ohmformer.errors import BadInput, shown
from ohmformer.textfiles import home_expanded, read_text

Array = npt.NDArray[np.float64]

NAMES = {
    "target": ("target", "target_conductance", "target_resistance", "g_target", "r_target", "gtarget"),
    "measured": (
        *("measured", "measured_conductance", "measured_resistance", "g_measured", "r_measured"),
        *("conductance", "resistance", "g", "r", "read"),
    ),
    "time": ("time", "t", "age", "time_after_write"),
    "cycle": ("cycle", "cycles", "write"),
    "cell": ("cell", "cell_id", "device", "device_id", "id"),
}
"""Column -> the names that files may give it, in lower case with underscores."""

MISSING = ("", "-", "na", "n/a", "nan", "null", "none")
LEAST_ROWS = 10
_HEADER = re.compile(r"(.*?)\s*(?:[\[(]\s*([^\])]*?)\s*[\])]|/\s*(\S+))?\s*")


@dataclass(frozen=True)
class Measurements:
    """Measured conductances.

    Attributes:
        target: [N], conductances that were to be written [S].
        measured: [N], conductances that were measured [S].
        time: [N], times from the write to the measurement [s]; None if there is no such column.
        cycle: [N], numbers of the write of the cell; None likewise.
        cell: [N], numbers of the cells; None likewise.
        left_out: number of rows without a target or a measured value.
        where: name of the file or table, for messages.
    """

    target: Array
    measured: Array
    time: Array | None
    cycle: Array | None
    cell: Array | None
    left_out: int
    where: str

    def rows(self, which: npt.NDArray[np.bool_]) -> Measurements:
        """Return the rows for which `which` is true."""
        optional = {name: getattr(self, name) for name in ("time", "cycle", "cell")}
        columns: dict[str, Any] = {name: None if c is None else c[which] for name, c in optional.items()}
        return replace(self, target=self.target[which], measured=self.measured[which], **columns)


def read_measurements(file: str) -> Measurements:
    """Read a CSV file: a line of names, then one line for each measurement.

    Commas, semicolons or tabs separate columns. Where they are semicolons or tabs, numbers may have decimal commas.

    Raises:
        BadInput: one line with file, column, row and remedy.
    """
    path = home_expanded(file)
    lines = [line for line in read_text(path).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) < 2:
        raise BadInput(f"{file}: has no measurements; write a line of column names, then one line for each of them")
    separator = max(";\t,", key=lambda mark: lines[0].count(mark))
    try:
        header, *rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator, skipinitialspace=True)
    except csv.Error as error:
        raise BadInput(f"{file}: is not a table ({error}); save it as CSV") from None
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise BadInput(
                f"{file}: row {number} has {len(row)} values for {len(header)} columns; correct it, or put values with "
                "commas in quotes"
            )
    columns = _named(header, file)
    texts = {name: [row[index] for row in rows] for name, (index, _) in columns.items()}
    return _measurements(texts, {name: unit for name, (_, unit) in columns.items()}, file, comma=separator != ",")


def measurements_of(frame: Any) -> Measurements:
    """Read a data frame, or a mapping from names to columns. Numbers without a unit in their name are in S and s.

    Raises:
        BadInput: one line with column, row and remedy.
    """
    if isinstance(frame, Measurements):
        return frame
    names = list(frame) if isinstance(frame, Mapping) or hasattr(frame, "columns") else None
    if names is None:
        raise BadInput("fit_cell: frame: is no table; give a pandas.DataFrame, a dictionary of columns or a CSV file")
    columns = _named([str(name) for name in names], "frame")
    values = {name: list(np.asarray(frame[names[index]]).ravel()) for name, (index, _) in columns.items()}
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise BadInput(f"frame: columns have different lengths {lengths}; give one value for each measurement")
    si = {"target": "S", "measured": "S", "time": "s", "cycle": "", "cell": ""}
    return _measurements(values, {name: unit or si[name] for name, (_, unit) in columns.items()}, "frame", comma=False)


def _named(header: Sequence[str], where: str) -> dict[str, tuple[int, str]]:
    """Column -> its index and its unit, from the names of a header.

    Raises:
        BadInput: target or measured conductance is missing, or stated twice.
    """
    found: dict[str, tuple[int, str]] = {}
    for index, title in enumerate(header):
        name, unit = _name_and_unit(title)
        column = next((column for column, names in NAMES.items() if name in names), None)
        if column is None:
            continue
        if column in found:
            raise BadInput(
                f"{where}: {shown(header[found[column][0]])} and {shown(title)} are both {column}; rename one of them"
            )
        found[column] = (index, unit)
    for column in ("target", "measured"):
        if column not in found:
            raise BadInput(
                f"{where}: has no column {column!r} among {shown(list(header))}; name it, with its unit, as in "
                f"'{column} [uS]'"
            )
    return found


def _name_and_unit(title: str) -> tuple[str, str]:
    """'Target (uS)' -> ('target', 'uS'); 'g_target_uS' likewise."""
    match = _HEADER.fullmatch(title.strip().strip("\ufeff"))
    assert match is not None
    name, unit = match[1], match[2] or match[3] or ""
    name = re.sub(r"[\s\-]+", "_", name.strip())
    stem, _, last = name.rpartition("_")
    if not unit and stem and any(_factor(last, si) is not None for si in ("S", "ohm", "s")) and last not in ("t",):
        name, unit = stem, last
    return name.lower(), unit


def _factor(unit: str, si: str) -> float | None:
    """SI value of one unit; None if it has another dimension."""
    try:
        return units.parse(f"1 {unit}", si)
    except ValueError:
        return None


def _measurements(
    columns: Mapping[str, Sequence[Any]], unit: Mapping[str, str], where: str, *, comma: bool
) -> Measurements:
    """The table from texts or numbers, in SI units."""
    arrays = {
        name: _column(name, values, unit[name], where, comma=comma)
        for name, values in columns.items()
        if name != "cell"
    }
    known = np.isfinite(arrays["target"]) & np.isfinite(arrays["measured"])
    if "time" in arrays:
        known &= np.isfinite(arrays["time"])
    for name in ("target", "time"):
        if name in arrays and np.any(arrays[name][known] < 0):
            row = int(np.flatnonzero(known & (arrays[name] < 0))[0]) + 2
            raise BadInput(f"{where}: {name}: is negative in row {row}; correct it")
    if known.sum() < LEAST_ROWS:
        raise BadInput(f"{where}: has {known.sum()} complete measurements, at least {LEAST_ROWS} are needed; add some")
    cells = columns.get("cell")
    labels = None if cells is None else np.unique([str(cell) for cell in cells], return_inverse=True)[1].astype(float)
    return Measurements(
        target=arrays["target"], measured=arrays["measured"], time=arrays.get("time"), cycle=arrays.get("cycle"),
        cell=labels, left_out=int((~known).sum()), where=where,
    ).rows(known)  # fmt: skip


def _column(name: str, values: Sequence[Any], unit: str, where: str, *, comma: bool) -> Array:
    """A column in SI units; NaN where a value is missing.

    Raises:
        BadInput: a value is not a number, or its unit is missing or unknown.
    """
    dimensions = {"target": ("S", "ohm"), "measured": ("S", "ohm"), "time": ("s",)}.get(name, ())
    factor, inverse = 1.0, False
    if unit and dimensions:
        si = next((si for si in dimensions if _factor(unit, si) is not None), None)
        if si is None:
            raise BadInput(f"{where}: {name}: has the unit {shown(unit)}; write it in {' or '.join(dimensions)}")
        factor, inverse = _factor(unit, si) or 1.0, si == "ohm"
    read = [
        _value(value, bool(unit) or not dimensions, dimensions, f"{where}: {name}, row {row}", comma=comma)
        for row, value in enumerate(values, start=2)
    ]
    array = np.array([value if done else value * factor for value, done in read])
    inverted = np.array([inverse and not done for _, done in read])
    with np.errstate(divide="ignore"):
        return np.where(inverted, np.where(array > 0, 1 / np.where(array > 0, array, 1.0), np.nan), array)


def _value(value: Any, has_unit: bool, dimensions: tuple[str, ...], where: str, *, comma: bool) -> tuple[float, bool]:
    """A number, and True if it is in SI units already; NaN if it is missing."""
    if not isinstance(value, str):
        if value is None:
            return math.nan, True
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise BadInput(f"{where}: {shown(value)} is not a number; correct it") from None
        return number, False
    text = value.strip().strip('"')
    if text.lower() in MISSING:
        return math.nan, True
    if comma:
        text = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    try:
        number = float(text)
    except ValueError:
        for si in dimensions:
            try:
                quantity = units.parse(text, si)
            except ValueError:
                continue
            return (1 / quantity if quantity else math.nan) if si == "ohm" else quantity, True
        raise BadInput(f"{where}: {shown(value)} is not a number; correct it, or leave the cell empty") from None
    if not math.isfinite(number):
        raise BadInput(f"{where}: {shown(value)} is not finite; correct it, or leave the cell empty")
    if not has_unit:
        raise BadInput(f"{where}: {shown(value)} has no unit; write the unit in the name of the column, as in '[uS]'")
    return number, False
