"""What was put is on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.store import Store


def test_results_survive(tmp_path: Path) -> None:
    result = {"accuracy": {"mean": 0.1 + 0.2, "chips": [1 / 3]}, "text": "γ"}
    with Store(tmp_path / "results.sqlite") as store:
        store.put("a", {"old": 1})
        store.put("a", result)
        store.put("b", {})
    with Store(tmp_path / "results.sqlite") as store:
        assert store.get(["a", "b", "c"]) == {"a": result, "b": {}}
        store.forget(["a", "c"])
        assert store.get(["a", "b"]) == {"b": {}}


def test_an_uncommitted_reader_sees_each_result_at_once(tmp_path: Path) -> None:
    with Store(tmp_path / "results.sqlite") as writer, Store(tmp_path / "results.sqlite") as reader:
        assert reader.get(["a"]) == {}
        writer.put("a", {"x": 1})
        assert reader.get(["a"]) == {"a": {"x": 1}}


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    file.write_text("something else entirely, and long enough to be looked at " * 20)
    before = file.read_bytes()
    with pytest.raises(BadInput, match=r"results\.sqlite: cannot hold results"):
        Store(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["{", "3", "", "null"])
def test_a_damaged_row_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.sqlite"
    with Store(file) as store:
        store.put("a", {"x": 1})
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE results SET result = ?", (text,))
    with Store(file) as store, pytest.raises(BadInput, match=r"results\.sqlite: the result a is damaged; .*--fresh"):
        store.get(["a"])


@pytest.mark.parametrize("columns", ["key TEXT", "name TEXT, result TEXT"])
def test_a_table_of_another_shape_is_one_line(tmp_path: Path, columns: str) -> None:
    file = tmp_path / "results.sqlite"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f"CREATE TABLE results ({columns})")
    with pytest.raises(BadInput, match=r"results\.sqlite: cannot hold results \(no such column"):
        Store(file)


def test_a_table_with_more_columns_is_one_line_at_put(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE results (key TEXT, result TEXT, more TEXT NOT NULL)")
    with Store(file) as store, pytest.raises(BadInput, match="cannot hold results"):
        store.put("a", {})


def test_a_locked_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, connect = tmp_path / "results.sqlite", sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, timeout=0.01))
    with Store(file) as store, closing(connect(file)) as other:
        store.put("a", {})
        other.execute("BEGIN EXCLUSIVE")
        for action in (lambda: store.put("b", {}), lambda: store.forget(["a"])):
            with pytest.raises(BadInput, match="another program holds it"):
                action()
