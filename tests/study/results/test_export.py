"""Stored results as rows, CSV, Parquet and a pandas frame."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import ohmformer as of
from ohmformer.study.results.key import Keys
from ohmformer.study.store.store import Store, StoredPoint
from tests.report.results import answer

VERSION = '{"code":"3f2a9c0123","versions":{"ohmformer":"0.1.0"}}'
CLIP = {"alpha": 2.0, "beta": 0.25}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two points with results, and one without."""
    with Store(tmp_path / "results.sqlite") as store:
        for key in "ab":
            store.put(key, answer(1), Keys(key, f"asked {key}", VERSION))
        values = ({"seed": 0, "mitigation.clip": "none"}, {"seed": 1, "mitigation.clip": CLIP}, {"seed": 2})
        labels = ("", "=cmd()", "")
        store.note_points(
            "s", [StoredPoint("s", *parts) for parts in zip(values, labels, ("a", "b", "c"), strict=True)]
        )
    return tmp_path


def test_there_is_one_row_for_each_point_with_a_result(run: Path) -> None:
    stored = of.results(run)
    assert stored.missing == 1
    first, second = stored.rows
    assert (first["seed"], second["seed"]) == (0, 1)
    assert second["mitigation.clip"] == '{"alpha": 2.0, "beta": 0.25}'
    assert first["mean"] == answer(1).accuracy.mean
    assert (first["ci95_low"], first["ci95_high"]) == answer(1).accuracy.ci95
    assert first["code"] == "3f2a9c01"
    assert first["version.ohmformer"] == "0.1.0"


def test_csv_has_these_rows_and_no_formula(run: Path) -> None:
    of.results(run).save(run / "out.csv")
    first, second = csv.DictReader(io.StringIO((run / "out.csv").read_text()))
    assert float(first["mean"]) == answer(1).accuracy.mean
    assert second["label"] == "'=cmd()"
    assert first["label"] == ""


def test_parquet_and_pandas_have_these_rows(run: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    stored = of.results(run)
    stored.save(run / "out.parquet")
    read = pandas.read_parquet(run / "out.parquet")
    assert list(read.columns) == list(stored.columns)
    assert list(read["mean"]) == list(stored.frame()["mean"]) == [row["mean"] for row in stored.rows]


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_a_missing_package_is_one_line(run: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("ohmformer.study.results.export.import_module", without)
    stored = of.results(run)
    with pytest.raises(of.BadInput, match=rf"needs the package {package}, .*pip install 'ohmformer\[export\]', or"):
        stored.frame() if package == "pandas" else stored.save(run / "out.parquet")
    assert not (run / "out.parquet").exists()


def test_what_cannot_be_exported_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(of.BadInput, match=r"nowhere: holds no results\.sqlite; give the folder of a run"):
        of.results(tmp_path / "nowhere")
    with pytest.raises(of.BadInput, match=r"out\.xlsx: is no kind of table .* \.csv or \.parquet"):
        of.results(run).save(run / "out.xlsx")
    with closing(sqlite3.connect(run / "results.sqlite")) as database, database:
        database.execute("DELETE FROM points")
    with pytest.raises(of.BadInput, match="lists no points, since a former version wrote it; run the study again"):
        of.results(run)


def test_a_folder_that_may_not_be_entered_is_named(foreign: Path) -> None:
    (foreign / "run").mkdir(mode=0o600)
    with pytest.raises(of.BadInput, match=r"run: may not be entered; change its permissions"):
        of.results(foreign / "run")
