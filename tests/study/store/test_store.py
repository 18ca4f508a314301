"""What was put is on disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.results.key import Keys
from ohmformer.study.results.spec import PointResult
from ohmformer.study.store.store import Store, StoredPoint
from tests.report.results import answer

EMPTY, ONE = answer(0), answer(1)
VERSION = '{"code":"3f2a9c01","versions":{"ohmformer":"0.1.0"}}'


def small_answer(gamma: float) -> PointResult:
    """A result without the scores of samples, so that the file has one page of rows."""
    whole = answer(gamma)
    return whole.model_copy(update={"accuracy": whole.accuracy.model_copy(update={"score_sums": None})})


def test_results_survive(tmp_path: Path) -> None:
    result = answer(0.1 + 0.2, "γ")
    with Store(tmp_path / "results.sqlite") as store:
        store.put("a", answer(9))
        store.put("a", result)
        store.put("b", EMPTY)
    with Store(tmp_path / "results.sqlite") as store:
        assert store.get(["a", "b", "c"]) == {"a": result, "b": EMPTY}
        store.forget(["a", "c"])
        assert store.get(["a", "b"]) == {"b": EMPTY}


def test_an_uncommitted_reader_sees_each_result_at_once(tmp_path: Path) -> None:
    with Store(tmp_path / "results.sqlite") as writer, Store(tmp_path / "results.sqlite") as reader:
        assert reader.get(["a"]) == {}
        writer.put("a", ONE)
        assert reader.get(["a"]) == {"a": ONE}


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    file.write_text("something else entirely, and long enough to be looked at " * 20)
    before = file.read_bytes()
    with pytest.raises(BadInput, match=r"results\.sqlite: cannot hold results"):
        Store(file)
    assert file.read_bytes() == before


def test_what_is_not_a_regular_file_is_told_as_such(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "folder", "dangling", "loop"):
        with pytest.raises(BadInput, match=rf"{name}: is not a regular file; move it away or choose another --out$"):
            Store(tmp_path / name)


@pytest.mark.parametrize("text", ["{", "3", "", "null"])
def test_a_damaged_row_counts_as_missing_and_is_noted(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.sqlite"
    with Store(file) as store:
        store.put("a", ONE)
        store.put("b", ONE)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE results SET result = ? WHERE key = 'a'", (text,))
    with Store(file) as store:
        assert store.get(["a", "b"]) == {"b": ONE}
        assert store.damaged == ["a"]


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
        store.put("a", EMPTY)


def test_a_locked_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, connect = tmp_path / "results.sqlite", sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, timeout=0.01))
    with Store(file) as store, closing(connect(file)) as other:
        store.put("a", EMPTY)
        other.execute("BEGIN EXCLUSIVE")
        for action in (lambda: store.put("b", EMPTY), lambda: store.forget(["a"])):
            with pytest.raises(BadInput, match="another program holds it"):
                action()


def old_store(file: Path, rows: dict[str, object]) -> None:
    """A store as it was before checksums."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE results (key TEXT PRIMARY KEY, result TEXT NOT NULL)")
        database.executemany("INSERT INTO results VALUES (?, ?)", rows.items())


def test_a_store_without_checksums_gets_them(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    old_store(file, {"a": json.dumps(ONE.model_dump(by_alias=True)), "b": b"\xff", "c": "{"})
    with Store(file) as store:
        assert store.get(["a", "b", "c"]) == {"a": ONE}
        assert store.damaged == ["", "c"]
        store.put("d", EMPTY)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE results SET result = '{\"x\": 2}' WHERE key = 'a'")
    with Store(file) as store:
        assert store.get(["a", "d"]) == {"d": EMPTY}


@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_without_questions_is_read_and_brought_up_to_date(
    tmp_path: Path, readonly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a former version keep their checksums; a damaged one is dropped."""
    file = tmp_path / "results.sqlite"
    texts = {
        "a": json.dumps(ONE.model_dump(by_alias=True)),
        "b": json.dumps(EMPTY.model_dump(by_alias=True)),
        "c": "{}",
    }
    rows = [(key, text, hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()) for key, text in texts.items()]
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE results (key TEXT PRIMARY KEY, result TEXT NOT NULL, checksum TEXT NOT NULL)")
        database.executemany("INSERT INTO results VALUES (?, ?, ?)", [*rows[:2], (*rows[2][:2], "0" * 64)])
    if readonly:
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with Store(file) as store:
        assert bool(store.readonly) == readonly
        assert store.get("abc") == {"a": ONE, "b": EMPTY}
        assert store.damaged == (["c"] if readonly else [""])
        assert store.older({"x": Keys("x", "", "")}) == {}
        assert store.points() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE results SET result = '{\"x\": 2}'",
        "UPDATE results SET result = CAST(result AS BLOB)",
        "UPDATE results SET result = x'fffe'",
        "UPDATE results SET checksum = ''",
        "UPDATE results SET question = 'x'",
        "UPDATE results SET version = ''",
        "UPDATE results SET question = '', version = ''",
        "UPDATE results SET checksum = x'00'",
        "UPDATE results SET key = 'b' WHERE key = 'a'",
    ],
)
def test_a_row_that_was_changed_counts_as_missing(tmp_path: Path, change: str) -> None:
    file = tmp_path / "results.sqlite"
    with Store(file) as store:
        store.put("a", ONE, Keys("a", "question", VERSION))
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(change)
    with Store(file) as store:
        assert store.get(["a", "b"]) == {}
        assert len(store.damaged) == 1
        store.put("a", answer(3))
        assert store.get(["a"]) == {"a": answer(3)}


def test_answers_of_other_code_are_found_by_their_question(tmp_path: Path) -> None:
    """Of several, the one of the code that came last."""
    with Store(tmp_path / "results.sqlite") as store:
        for key, version in (("z", "1"), ("y", "2"), ("x", "1")):
            store.put(key, ONE, Keys(key, "asked" if key != "x" else "other", version))
        wanted = {"new": Keys("new", "asked", "3"), "unknown": Keys("unknown", "never asked", "3")}
        assert store.older(wanted) == {"new": "y"}
        assert store.version("y") == "2"
        assert store.older({"y": Keys("y", "asked", "2")}) == {"y": "z"}


def test_points_are_listed_in_order_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    points = [StoredPoint("s", {"seed": seed, "rules": {"a": 1}}, "λ", f"k{seed}", "c") for seed in range(12)]
    with Store(file) as store:
        store.note_points("s", points[:3])
        store.note_points("other", [StoredPoint("other", {})])
        store.note_points("s", points[2:5], further=True)
        assert store.points() == [StoredPoint("other", {}), *points[:5]]
        store.note_points("s", points)
        assert store.points() == [StoredPoint("other", {}), *points]
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE points SET label = 'x' WHERE position = 3")
    with Store(file) as store:
        assert store.points() == [StoredPoint("other", {}), *points[:3], *points[4:]]
        assert store.damaged == [""]


def test_a_network_file_system_is_refused_for_new_stores_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.sqlite"
    with Store(file) as store:
        store.put("a", ONE)
    monkeypatch.setattr("ohmformer.study.store.store.network_file_system", lambda path: "nfs4")
    with Store(file) as store:
        assert store.get(["a"]) == {"a": ONE}
        assert store.readonly == "is on a network file system (nfs4), where results could be lost, so it is only read"
    with pytest.raises(
        BadInput, match=r"is on a network file system \(nfs4\), .*; give --out a folder on a local disk"
    ):
        Store(tmp_path / "new.sqlite")
    assert not (tmp_path / "new.sqlite").exists()


def test_no_flipped_bit_changes_a_result(tmp_path: Path) -> None:
    file, result = tmp_path / "results.sqlite", small_answer(0.5)
    with Store(file) as store:
        for key in "abcdefgh":
            store.put(key, result)
    intact, draw = file.read_bytes(), random.Random(0)
    for place in [*range(16, 100, 4), *(draw.randrange(4096, len(intact)) for _ in range(50)), 7342]:
        damaged = bytearray(intact)
        damaged[place] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        with suppress(BadInput), Store(file) as store:
            found = store.get("abcdefgh")
            assert all(value == result for value in found.values()), f"byte {place}"
            for key in "abcdefgh":
                store.put(key, small_answer(2))
            assert store.get("abcdefgh") == {key: small_answer(2) for key in "abcdefgh"}, f"byte {place}"
        for name in ("-wal", "-shm"):
            file.with_name(f"{file.name}{name}").unlink(missing_ok=True)


def test_a_schema_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    """Python's module raises an error without a code of SQLite where names are not UTF-8."""
    file = tmp_path / "results.sqlite"
    with Store(file) as store:
        store.put("a", ONE)
    intact, refused = file.read_bytes(), 0
    schema = [i for i in range(100, 4096) if intact[i]]
    for place in schema[::2]:
        file.write_bytes(intact[:place] + b"\xff" + intact[place + 1 :])
        try:
            with Store(file) as store:
                assert store.get(["a"]) in ({"a": ONE}, {}), f"byte {place}"
        except BadInput as error:
            refused += "cannot hold results" in str(error)
    assert refused > len(schema) / 8


def test_attempts_are_known_to_the_next_run_until_they_end(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    with Store(file) as store:
        for key in "abc":
            store.begin_attempt(key)
        store.put("a", EMPTY)
        store.end_attempts(["b"])
    with Store(file) as store:
        assert store.unfinished_attempts() == {"c"}


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "with a log"])
def test_a_store_in_a_read_only_folder_is_read(tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.sqlite"
    with Store(file) as store:
        store.put("a", ONE)
        if killed:
            copies = {name: Path(f"{file}{name}").read_bytes() for name in ("", "-wal")}
    if killed:
        for name, content in copies.items():
            Path(f"{file}{name}").write_bytes(content)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with Store(file) as store:
        assert store.readonly
        assert store.get(["a", "b"]) == {"a": ONE}
        assert store.unfinished_attempts() == set()
        with pytest.raises(BadInput, match="--fresh cannot be had"):
            store.forget(["a"])
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_disk_without_room_for_a_new_store_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty file that is there was once opened for reading, and told to lack a table."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL

    def full(self: Store) -> None:
        raise error

    monkeypatch.setattr(Store, "_make_tables", full)
    with pytest.raises(BadInput, match=r"cannot hold results \(database or disk is full\); make room on the disk"):
        Store(tmp_path / "results.sqlite")


def test_permissions_that_are_missing_are_named(foreign: Path) -> None:
    out, file = foreign / "run", foreign / "run" / "results.sqlite"
    out.mkdir()
    for mode, said in ((0o500, "cannot be made, since its folder is not writable"), (0o600, "may not be entered")):
        out.chmod(mode)
        with pytest.raises(BadInput, match=rf"results\.sqlite: .*{said}; change the folder's permissions, or choose"):
            Store(file)
    out.chmod(0o700)
    Store(file).__exit__(None, None, None)
    file.chmod(0)
    with pytest.raises(BadInput, match=r"results\.sqlite: may not be read; change its permissions, or choose"):
        Store(file)
