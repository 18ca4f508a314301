"""Measured cells as tables: CSV files and data frames, with columns in any unit."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ohmformer import units
from ohmformer.errors import BadInput, shown
from ohmformer.textfiles import LARGEST_TEXT, home_expanded, read_text

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

MISSING = ("", "-", "--", "?", "na", "n/a", "n.a.", "#n/a", "nan", "null", "none")
LEAST_ROWS = 10
LEAST_CONDUCTANCE, LARGEST_CONDUCTANCE = 1e-15, 1.0
"""Conductances that cells may have [S]."""
LARGEST_CYCLE = 1e20
"""Largest endurance of a cell."""
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
"""A number whose commas may separate thousands."""
_QUOTED = re.compile(r'"[^"]*"')
_HEADER = re.compile(r"(.*?)\s*(?:[\[(]\s*([^\])]*?)\s*[\])]|/\s*(\S+))?\s*", re.DOTALL)


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
        unread: titles of the columns that are not read.
    """

    target: Array
    measured: Array
    time: Array | None
    cycle: Array | None
    cell: Array | None
    left_out: int
    where: str
    unread: tuple[str, ...] = ()

    def rows(self, which: npt.NDArray[np.bool_]) -> Measurements:
        """Return the rows for which `which` is true."""
        optional = {name: getattr(self, name) for name in ("time", "cycle", "cell")}
        columns: dict[str, Any] = {name: None if c is None else c[which] for name, c in optional.items()}
        return replace(self, target=self.target[which], measured=self.measured[which], **columns)


def read_measurements(file: str) -> Measurements:
    """Read a CSV file: a line of names, then one line for each measurement.

    Commas, semicolons or tabs separate columns. Numbers may have decimal commas; in quotes, if commas
    separate columns.

    Raises:
        BadInput: one line with file, column, row and remedy.
    """
    header, rows, numbers = _table(file)
    columns = _named(header, file)
    texts = {name: [row[index] for row in rows] for name, (index, _) in columns.items()}
    _check_commas(texts, file, numbers)
    units_of = {name: unit for name, (_, unit) in columns.items()}
    table = _measurements(texts, units_of, file, numbers, comma=True)
    return replace(table, unread=_unread(header, columns))


def _table(file: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return header, rows and their line numbers of a CSV file, without comments and empty lines.

    Raises:
        BadInput: the file cannot be read, has no rows, or rows differ in length.
    """
    text = read_text(home_expanded(file), LARGEST_TEXT).replace("\r\n", "\n").replace("\r", "\n")
    numbered = [
        (number, line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#") and not (number == 1 and line.startswith("sep="))
    ]
    if len(numbered) < 2:
        raise BadInput(f"{file}: has no measurements; write a line of column names, then one line for each of them")
    separator = _separator([line for _, line in numbered])
    reader = csv.reader((f"{line}\n" for _, line in numbered), delimiter=separator, skipinitialspace=True, strict=True)
    found, numbers = [], []
    try:
        for row in reader:
            found.append(row)
            numbers.append(numbered[reader.line_num - 1][0])
    except csv.Error as error:
        row_number = numbered[min(reader.line_num, len(numbered)) - 1][0]
        if "field limit" in str(error):
            most = f"{csv.field_size_limit():,} characters"
            raise BadInput(f"{file}: row {row_number} has a value of more than {most}; correct it") from None
        raise BadInput(f"{file}: row {row_number} ends a quotation wrongly ({error}); correct its quotes") from None
    header = found[0]
    for number, row in zip(numbers[1:], found[1:], strict=True):
        if len(row) != len(header) > 1:  # a single name lacks columns, whatever follows
            raise BadInput(
                f"{file}: row {number} has {len(row)} values for {len(header)} columns; correct it, or put values with "
                "commas in quotes"
            )
    return header, found[1:], numbers[1:]


def _separator(lines: Sequence[str]) -> str:
    """What separates the names of the columns. Quoted names may hold such marks, and ends of lines."""
    header = ""
    for line in lines:
        header += line
        if header.count('"') % 2 == 0:
            break
    return max(";\t,", key=_QUOTED.sub("", header).count)


def _check_commas(texts: Mapping[str, Sequence[str]], where: str, numbers: Sequence[int]) -> None:
    """Refuse numbers whose commas may be decimal commas or separate thousands, if no number tells which it is.

    Raises:
        BadInput: all numbers with commas are of this kind.
    """
    example = ""
    for name in ("target", "measured", "time"):
        for number, text in zip(numbers, texts.get(name, ()), strict=False):
            if "," not in text:
                continue
            value = text.strip().split()[0]
            if not _GROUPED.fullmatch(value):
                return
            example = example or f"{name}, row {number}: {shown(value)}"
    if example:
        raise BadInput(f"{where}: {example} may have a decimal comma or separate thousands; write decimal points")


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
    units_of = {name: unit or si[name] for name, (_, unit) in columns.items()}
    table = _measurements(values, units_of, "frame", range(2, 2 + len(values["target"])), comma=False)
    return replace(table, unread=_unread([str(name) for name in names], columns))


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
    alone = "; separate columns by commas, and write # before lines above their names" if len(header) == 1 else ""
    for column in ("target", "measured"):
        if column not in found:
            raise BadInput(
                f"{where}: has no column {column!r} among {shown(list(header))}; name it, with its unit, as in "
                f"'{column} [uS]'{alone}"
            )
    return found


def _unread(header: Sequence[str], columns: Mapping[str, tuple[int, str]]) -> tuple[str, ...]:
    """The titles of the columns that nothing is read from."""
    read = {index for index, _ in columns.values()}
    return tuple(title.strip() for index, title in enumerate(header) if index not in read and title.strip())


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


def _check_size(name: str, values: Array, largest: float, where: str, numbers: Sequence[int]) -> None:
    """Refuse conductances and times that do not occur.

    Raises:
        BadInput: there is one; the message has its row.
    """
    wrong = np.flatnonzero(np.abs(values) > largest)
    if len(wrong):
        unit = "s" if name == "time" else "S"
        found = f"{values[wrong[0]]:.4g} {unit} is not a magnitude that occurs"
        raise BadInput(f"{where}: {name}, row {numbers[wrong[0]]}: {found}; correct it, or check the unit")


def _check_cycles(cycle: Array | None, known: npt.NDArray[np.bool_], where: str, numbers: Sequence[int]) -> None:
    """Refuse cycles that are no counts of writes.

    Raises:
        BadInput: one has a fraction, or is beyond any endurance; the message has its row.
    """
    if cycle is None:
        return
    given = np.where(known & ~np.isnan(cycle), cycle, 0.0)
    wrong = np.flatnonzero((given != np.floor(given)) | (given > LARGEST_CYCLE))
    if len(wrong):
        raise BadInput(
            f"{where}: cycle, row {numbers[wrong[0]]}: {given[wrong[0]]:.6g} is not a number of writes; give a whole "
            f"number up to {LARGEST_CYCLE:g}"
        )


def _measurements(
    columns: Mapping[str, Sequence[Any]], unit: Mapping[str, str], where: str, numbers: Sequence[int], *, comma: bool
) -> Measurements:
    """The table from texts or numbers, in SI units; `numbers` are those of the rows, for messages."""
    arrays = {
        name: _column(name, values, unit[name], where, numbers, comma=comma)
        for name, values in columns.items()
        if name != "cell"
    }
    known = np.isfinite(arrays["target"]) & np.isfinite(arrays["measured"])
    if "time" in arrays:
        known &= np.isfinite(arrays["time"])
    for name in ("target", "time", "cycle"):
        if name in arrays and np.any(arrays[name][known] < 0):
            row = numbers[int(np.flatnonzero(known & (arrays[name] < 0))[0])]
            raise BadInput(f"{where}: {name}: is negative in row {row}; correct it")
    _check_cycles(arrays.get("cycle"), known, where, numbers)
    if not np.any(arrays["target"][known] > LARGEST_CONDUCTANCE):  # otherwise the unit is wrong, and the fit says so
        _check_size("measured", np.where(known, arrays["measured"], 0.0), LARGEST_CONDUCTANCE, where, numbers)
    if "time" in arrays:
        _check_size("time", np.where(known, arrays["time"], 0.0), units.LIMITS["s"][1], where, numbers)
    if known.sum() < LEAST_ROWS:
        raise BadInput(f"{where}: has {known.sum()} complete measurements, at least {LEAST_ROWS} are needed; add some")
    cells = columns.get("cell")
    labels = None if cells is None else np.unique([str(cell) for cell in cells], return_inverse=True)[1].astype(float)
    return Measurements(
        target=arrays["target"], measured=arrays["measured"], time=arrays.get("time"), cycle=arrays.get("cycle"),
        cell=labels, left_out=int((~known).sum()), where=where,
    ).rows(known)  # fmt: skip


def _column(name: str, values: Sequence[Any], unit: str, where: str, numbers: Sequence[int], *, comma: bool) -> Array:
    """A column in SI units; NaN where a value is missing.

    Raises:
        BadInput: a value is not a number, its unit is missing or unknown, or a resistance is not above zero.
    """
    dimensions = {"target": ("S", "ohm"), "measured": ("S", "ohm"), "time": ("s",)}.get(name, ())
    factor, inverse = 1.0, False
    if unit and dimensions:
        si = next((si for si in dimensions if _factor(unit, si) is not None), None)
        if si is None:
            raise BadInput(f"{where}: {name}: has the unit {shown(unit)}; write it in {' or '.join(dimensions)}")
        factor, inverse = _factor(unit, si) or 1.0, si == "ohm"
    array = _numbers(values) if unit or not dimensions else None
    if array is None:
        read = [
            _value(value, bool(unit) or not dimensions, dimensions, f"{where}: {name}, row {row}", comma=comma)
            for row, value in zip(numbers, values, strict=True)
        ]
        array, done = np.array([value for value, _ in read]), np.array([done for _, done in read])
    else:
        done = np.zeros(len(array), dtype=bool)
    array = np.where(done, array, array * factor)
    if not inverse:
        return array
    if np.any(~done & (array <= 0)):
        row = numbers[int(np.flatnonzero(~done & (array <= 0))[0])]
        raise BadInput(f"{where}: {name}, row {row}: is not a resistance above 0; correct it, or leave the cell empty")
    return np.where(done, array, 1 / np.where(done, 1.0, array))


def _numbers(values: Sequence[Any]) -> Array | None:
    """Plain finite numbers, converted together; None if some are anything else."""
    try:
        array = np.asarray(values).astype(np.float64)
    except (TypeError, ValueError):
        return None
    plain = array.ndim == 1 and bool(np.isfinite(array).all())
    return array if plain and not any(isinstance(value, str) and "_" in value for value in values) else None


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
    text = text.replace("\u2212", "-")
    if comma:
        text = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    try:
        number = float(text if "_" not in text else "no number")
    except ValueError:
        for si in dimensions:
            try:
                quantity = units.parse(text, si)
            except ValueError:
                continue
            if si == "ohm" and quantity <= 0:
                raise BadInput(
                    f"{where}: {shown(value)} is not a resistance above 0; correct it, or leave it empty"
                ) from None
            return 1 / quantity if si == "ohm" else quantity, True
        raise BadInput(f"{where}: {shown(value)} is not a number; correct it, or leave the cell empty") from None
    if not math.isfinite(number):
        raise BadInput(f"{where}: {shown(value)} is not finite; correct it, or leave the cell empty")
    if not has_unit:
        example = "s" if dimensions == ("s",) else "uS"
        raise BadInput(
            f"{where}: {shown(value)} has no unit; write the unit in the name of the column, as in '[{example}]'"
        )
    return number, False
