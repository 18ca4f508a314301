"""The tables of a store, their checksums, and stores of former versions.

| table | a row |
|---|---|
| `results` | key, question and version (see `results.key.Keys`), result as JSON text, checksum |
| `points` | a point of a study: swept values as JSON text, label, keys of accuracy and cost in `results`, checksum |
| `versions` | the code that computed results, in the order in which it first did |
| `attempts` | the key of a point that was begun and has not ended |
| `shown` | what was shown of a study last, see `shown_again`, as JSON text, checksum |

A checksum is the SHA-256 of all other columns. Former versions stored no questions and versions, and before that no
checksums; such stores are brought up to date when they are opened, where they may be written.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing, suppress
from itertools import pairwise
from os.path import abspath, getsize, isfile
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

COLUMNS = ["key", "question", "version", "result", "checksum"]
TABLE = (
    "(key TEXT PRIMARY KEY, question TEXT NOT NULL, version TEXT NOT NULL, result TEXT NOT NULL, "
    "checksum TEXT NOT NULL) WITHOUT ROWID"
)
"""Without row numbers there is no index beside the table that could disagree with it."""

OTHERS = (
    "CREATE TABLE IF NOT EXISTS attempts (key TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS versions (number INTEGER PRIMARY KEY, version TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS shown (study TEXT PRIMARY KEY, content TEXT NOT NULL, checksum TEXT NOT NULL) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS points (study TEXT, position INTEGER, name TEXT NOT NULL, label TEXT NOT NULL, "
    "key TEXT NOT NULL, cost TEXT NOT NULL, checksum TEXT NOT NULL, PRIMARY KEY (study, position)) WITHOUT ROWID",
)

ROWS = "SELECT {key}, {result}, {question}, {version}, {checksum} FROM results"
FORMER = {
    ("key", "result"): "SELECT {key}, {result}, '', '', NULL FROM results",
    ("key", "result", "checksum"): "SELECT {key}, {result}, '', '', {checksum} FROM results",
}
"""Columns of a store of a former version -> the query for its rows."""

AS_TEXT = {name: name for name in COLUMNS}
AS_BYTES = {name: f"CAST({name} AS BLOB)" for name in COLUMNS}


def checksum(*texts: str) -> str:
    """SHA-256 of the texts of a row."""
    return hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()


def row_checksum(key: str, result: str, question: str = "", version: str = "") -> str:
    """The checksum of a result; without question and version, that of former versions."""
    return checksum(key, result, question, version) if question or version else checksum(key, result)


def columns(database: sqlite3.Connection, table: str) -> list[str]:
    """The names of the columns of a table; empty if there is no such table."""
    return [str(row[1]) for row in database.execute(f"PRAGMA table_info({table})")]


def query_of_row(database: sqlite3.Connection) -> str:
    """The query for the row of a key: key, result, question, version and checksum, which is None in old stores.

    Raises:
        sqlite3.Error: there is no table of results.
    """
    database.execute("SELECT key, result FROM results LIMIT 0")
    query = FORMER.get(tuple(columns(database, "results")), ROWS)
    return f"{query.format(**AS_TEXT)} WHERE key = ?"


def make_tables(database: sqlite3.Connection) -> int:
    """Make what is missing, and bring a store of a former version up to date.

    Returns:
        The number of damaged rows that were dropped.
    """
    there, dropped = columns(database, "results"), 0
    if there and there != COLUMNS and tuple(there) not in FORMER:
        return 0  # what is not a store is told when it is read
    with database:
        database.execute("BEGIN IMMEDIATE")
        for table in OTHERS:
            database.execute(table)
        if not there:
            database.execute(f"CREATE TABLE IF NOT EXISTS results {TABLE}")
        elif tuple(there) in FORMER:
            dropped = _refill(database, FORMER[tuple(there)])
        elif not _keys_ascend(database):
            dropped = _refill(database, ROWS)
    return dropped


def _keys_ascend(database: sqlite3.Connection) -> bool:
    """True if the keys are in order. A damaged key breaks the order, so that lookups of other keys fail."""
    keys = [row[0] for row in database.execute("SELECT CAST(key AS BLOB) FROM results")]
    return all(one < two for one, two in pairwise(keys))


def _refill(database: sqlite3.Connection, query: str) -> int:
    """Replace the table by its intact rows, in order of their keys; the others are computed again.

    Args:
        database: the open store.
        query: for key, result, question, version and checksum; a checksum None is computed.

    Returns:
        The number of rows that were left out.
    """
    found, kept = database.execute(query.format(**AS_BYTES)).fetchall(), []
    for key, result, question, version, stored in found:
        with suppress(UnicodeError, AttributeError):
            texts = [each if isinstance(each, str) else each.decode() for each in (key, result, question, version)]
            computed = row_checksum(*texts)
            if stored is None or stored == computed.encode():
                kept.append((texts[0], texts[2], texts[3], texts[1], computed))
    database.execute("DROP TABLE results")
    database.execute(f"CREATE TABLE results {TABLE}")
    database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", kept)
    return len(found) - len(kept)


def open_readonly(file: Path) -> sqlite3.Connection:
    """Open a store for reading, without the files that SQLite otherwise makes beside it.

    If a run was killed, a log beside the file holds results that the file does not hold yet. Then a copy of both is
    read.
    """
    log = Path(f"{file}-wal")
    if not (isfile(log) and getsize(log)):
        return sqlite3.connect(f"file:{quote(abspath(file))}?mode=ro&immutable=1", uri=True)
    memory = sqlite3.connect(":memory:")
    try:
        with TemporaryDirectory() as folder:
            copies = [shutil.copyfile(each, Path(folder) / each.name) for each in (file, log)]
            with closing(sqlite3.connect(copies[0])) as copy:
                copy.backup(memory)
    except OSError as error:
        memory.close()
        raise sqlite3.OperationalError(str(error)) from error
    except BaseException:
        memory.close()
        raise
    return memory
