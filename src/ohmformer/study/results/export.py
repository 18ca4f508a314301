"""Stored results of a run as rows: for CSV, Parquet and pandas. Free of torch."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput, check_type
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.spec import PointResult
from ohmformer.study.store.old_code import old_code
from ohmformer.study.store.store import Store, StoredPoint
from ohmformer.terminal.files import write_bytes, write_text
from ohmformer.terminal.plain import escaped

SUFFIXES = (".csv", ".parquet")
"""Files that can be written."""

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""First letters of a text that a spreadsheet takes for a formula."""

COSTS = (
    *("latency_s", "energy_J", "power_W", "area_m2", "throughput_per_s", "tokens_per_s", "efficiency_op_per_J"),
    "lifetime_s",
)
"""Numbers of a cost that get a column each, beside its tables."""


@dataclass(frozen=True)
class StoredRun:
    """The stored results of a run.

    Attributes:
        folder: where they are.
        rows: column -> value of each point that has a result, in the order of the study. A point without a value has
            None, and so has a value that is unknown.
        missing: number of points of the study without a result.
    """

    folder: Path
    rows: tuple[Mapping[str, Any], ...]
    missing: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns."""
        return tuple(self.rows[0]) if self.rows else ()

    def frame(self) -> Any:
        """The rows as a pandas DataFrame.

        Raises:
            BadInput: pandas is not installed.
        """
        pandas = _package("pandas", "read .rows, or write a .csv file")
        return pandas.DataFrame(list(self.rows), columns=list(self.columns))

    def csv(self) -> str:
        """The rows as comma-separated values.

        A text that a spreadsheet would take for a formula begins with an apostrophe; tables and lists are JSON.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(_cell, self.columns))
        writer.writerows([_cell(value) for value in row.values()] for row in self.rows)
        return text.getvalue()

    def parquet(self) -> bytes:
        """The rows as a Parquet file. Columns with values of several types are text.

        Raises:
            BadInput: pyarrow is not installed.
        """
        arrow = _package("pyarrow", "write a .csv file")
        columns = {name: _of_one_type([row[name] for row in self.rows]) for name in self.columns}
        data = io.BytesIO()
        _package("pyarrow.parquet", "write a .csv file").write_table(arrow.table(columns), data)
        return data.getvalue()

    def save(self, file: str | PathLike[str]) -> None:
        """Write the rows to a file, whole or not at all.

        Args:
            file: its path, which ends in .csv or .parquet.

        Raises:
            BadInput: the path ends otherwise, the file cannot be written, or pyarrow is not installed.
        """
        path = Path(file)
        check_suffix(path)
        if path.suffix == ".csv":
            write_text(path, self.csv())
        else:
            write_bytes(path, self.parquet())


def check_suffix(file: Path) -> None:
    """Refuse a file of another kind.

    Raises:
        BadInput: its name ends in neither .csv nor .parquet.
    """
    if file.suffix not in SUFFIXES:
        raise BadInput(f"{file}: is no kind of table that can be written; let its name end in .csv or .parquet")


def results(run: str | PathLike[str]) -> StoredRun:
    """The stored results of a run, finished or not. Nothing is computed.

    Args:
        run: the folder of the run, such as ohmformer-runs/NAME.

    Raises:
        BadInput: there are no stored results, or they are damaged or from a version that listed no points.
    """
    check_type("results", "run", run, (str, PathLike), "the folder of a run")
    folder = Path(run)
    file = folder / "results.sqlite"
    if os.path.isdir(folder) and not os.access(folder, os.X_OK):
        raise BadInput(f"{folder}: may not be entered; change its permissions, or give another folder of a run")
    if not os.path.isfile(file):
        raise BadInput(f"{folder}: holds no results.sqlite; give the folder of a run, such as ohmformer-runs/NAME")
    with Store(file) as store:
        listed, count = store.points(), len(store)
        found = [row for point in listed if (row := _row(store, point))]
        if store.damaged:
            raise BadInput(f"{file}: rows of it are damaged; run the study again, which computes them anew")
    if count and not listed:
        raise BadInput(
            f"{file}: lists no points, since a former version wrote it; run the study again, which computes nothing "
            "that is stored"
        )
    columns = dict.fromkeys(name for row in found for name in row)
    rows = tuple({name: row.get(name) for name in columns} for row in found)
    return StoredRun(folder, rows, len(listed) - len(rows))


def _row(store: Store, point: StoredPoint) -> dict[str, Any]:
    """The columns of a point; empty if nothing is stored for it."""
    accuracy = store.get([point.key]).get(point.key) if point.key else None
    cost = store.cost(point.cost) if point.cost else None
    if accuracy is None and cost is None:
        return {}
    row = {"study": point.study, "label": point.label, **{name: _scalar(value) for name, value in point.set.items()}}
    if accuracy is not None:
        row |= _accuracy_columns(accuracy)
    if cost is not None:
        row |= _cost_columns(cost)
    if version := store.version(point.key if accuracy is not None else point.cost):
        code = old_code(version)
        row |= {"code": code.code, **{f"version.{name}": number for name, number in code.versions.items()}}
    return row


def _accuracy_columns(result: PointResult) -> dict[str, Any]:
    accuracy = result.accuracy
    return {
        "metric": accuracy.metric,
        "level": accuracy.level,
        "kernels": accuracy.kernels,
        "software": accuracy.software,
        "mean": accuracy.mean,
        "ci95_low": accuracy.ci95[0],
        "ci95_high": accuracy.ci95[1],
        "chips": len(accuracy.chips),
        "samples": accuracy.samples,
        "chosen": accuracy.chosen.words if accuracy.chosen else None,
    }


def _cost_columns(cost: CostResult) -> dict[str, Any]:
    tables = {
        "utilization": cost.utilization,
        "energy_by_component_J": cost.energy_by.component,
        "energy_by_engine_J": cost.energy_by.engine,
        "counts": cost.counts,
    }
    parts = {f"{table}.{name}": value for table, values in tables.items() for name, value in values.items()}
    return {**{name: getattr(cost, name) for name in COSTS}, **parts}


def _scalar(value: Any) -> Any:
    """A value of a cell: a number, a text, a truth value, or a table or list as JSON."""
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else value


def _cell(value: Any) -> Any:
    """A value as CSV holds it; text without what controls a terminal or starts a formula."""
    if not isinstance(value, str):
        return "" if value is None else value
    plain = escaped(value)
    return f"'{plain}" if plain.startswith(FORMULAS) else plain


def _of_one_type(values: list[Any]) -> list[Any]:
    """The values of a column; as text if they are of several types. Whole numbers join other numbers."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1:
        return values
    return [None if value is None else str(value) for value in values]


def _package(name: str, other: str) -> Any:
    """An optional package.

    Raises:
        BadInput: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        top = name.split(".")[0]
        raise BadInput(
            f"this needs the package {top}, which is not installed; pip install 'ohmformer[export]', or {other}"
        ) from None
