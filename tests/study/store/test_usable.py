"""A file that is there without holding results is no store, and the runs that find one say so."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from ohmformer import cli
from ohmformer.study.run import run_study
from ohmformer.study.store.store import Store
from ohmformer.study.store.usable import why_empty
from tests.study.small import note, study


def without_tables(file: Path) -> None:
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE passing (x)")
    database.execute("DROP TABLE passing")
    database.commit()
    database.close()


def test_what_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    assert why_empty(file) == ""
    file.touch()
    assert "has no bytes" in why_empty(file)
    without_tables(file)
    assert "has no tables" in why_empty(file)
    Path(f"{file}-wal").write_bytes(b"log")
    assert why_empty(file) == ""
    Path(f"{file}-wal").unlink()
    with Store(file):
        pass
    assert why_empty(file) == ""
    file.write_bytes(b"something else, which opening refuses")
    assert why_empty(file) == ""


def test_runs_say_that_a_store_is_empty(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "results.sqlite").touch()
    run_study(study(0, 1), tmp_path / "0", evaluate=note)
    assert "0/results.sqlite: has no bytes, so nothing is stored there, and all points are" in capsys.readouterr().err
    run_study(study(0, 1), tmp_path / "0", evaluate=note)
    assert capsys.readouterr().err == ""
    for said in (["1/results.sqlite: has no bytes, so nothing is stored there, and all points are computed"], []):
        monkeypatch.setattr(sys, "argv", ["ohmformer", "cost", "bert_base", "--out", "1"])
        assert cli.main() == 0
        assert capsys.readouterr().err.splitlines() == said
