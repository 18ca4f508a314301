"""Results on disk: one SQLite file, written by the driver only, one commit per result, a checksum with each.

Table `results` holds key, result (JSON text) and checksum, the SHA-256 of both. Older stores have no checksums: when
one is opened, its rows get checksums of what they then hold. Table `attempts` holds the keys of points that were begun
and have not ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from ohmformer.errors import BadInput
from ohmformer.study.results.spec import PointResult, parse_result

COLUMNS = ["key", "result", "checksum"]
TABLE = "(key TEXT PRIMARY KEY, result TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID"
"""Without row numbers there is no index beside the table that could disagree with it."""

ATTEMPTS = "CREATE TABLE IF NOT EXISTS attempts (key TEXT PRIMARY KEY) WITHOUT ROWID"
ROW = "SELECT result, checksum FROM results WHERE key = ?"
BEFORE_CHECKSUMS = ["key", "result"]

NO_ROOM = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN)
"""Errors for which an existing file cannot be opened for writing."""

GONE = (
    "was moved, removed or replaced while the study ran; stopped, since results would be lost: leave the folder alone "
    "and run again"
)


class Store:
    """Key -> result of a point. A result is on disk when `put` returns, and is checked when `get` reads it."""

    def __init__(self, file: Path) -> None:
        """Open the file, or make it; one that may not be written is opened for reading.

        Raises:
            BadInput: it can be neither, is damaged, or is not a store.
        """
        self.file = file
        self.readonly = _is_readonly(file)
        self._identity: dict[str, tuple[int, int]] = {}
        if os.path.lexists(file) and not os.path.isfile(file):
            raise BadInput(f"{file}: is not a regular file; move it away or choose another --out")
        with self._in_one_line():
            try:
                self._database = self._opened()
            except sqlite3.OperationalError as error:
                if self.readonly or _error_code(error) not in NO_ROOM or not os.path.isfile(file):
                    raise
                self.readonly = True  # a full disk: what is there can be read all the same
                try:
                    self._database = self._opened()
                except sqlite3.Error:
                    raise error from None  # nothing is there yet: say what kept it from being written
        self._note_identity()

    def _opened(self) -> sqlite3.Connection:
        self._database = _open_readonly(self.file) if self.readonly else sqlite3.connect(self.file)
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise
        return self._database

    def _prepare(self) -> None:
        """Look for damage, and make the tables."""
        damage = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if damage != ("ok",):
            raise sqlite3.DatabaseError(f"it is damaged: {' '.join(str(damage and damage[0]).split())}")
        if not self.readonly:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            if self._columns("results") in ([], BEFORE_CHECKSUMS) or not self._columns("attempts"):
                self._make_tables()
            if self._columns("results") == COLUMNS and not self._keys_ascend():
                self._rebuild()
        self._database.execute("SELECT key, result FROM results LIMIT 0")
        self._checked = self._columns("results") != BEFORE_CHECKSUMS

    def _columns(self, table: str) -> list[str]:
        return [str(row[1]) for row in self._database.execute(f"PRAGMA table_info({table})")]

    def _make_tables(self) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(f"CREATE TABLE IF NOT EXISTS results {TABLE}")
            self._database.execute(ATTEMPTS)
            if self._columns("results") == BEFORE_CHECKSUMS:
                self._refill("SELECT CAST(key AS BLOB), CAST(result AS BLOB), NULL FROM results")

    def _keys_ascend(self) -> bool:
        """True if the keys are in order. A damaged key breaks the order, so that lookups of other keys fail."""
        keys = [row[0] for row in self._database.execute("SELECT CAST(key AS BLOB) FROM results")]
        return all(one < two for one, two in pairwise(keys))

    def _rebuild(self) -> None:
        """Keep the intact rows, in order of their keys. Damaged ones are dropped, and computed again."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._refill("SELECT CAST(key AS BLOB), CAST(result AS BLOB), CAST(checksum AS BLOB) FROM results")

    def _refill(self, query: str) -> None:
        """Replace the table by the rows of a query: key, result and checksum as bytes; a checksum None is computed."""
        kept = []
        for key, text, stored in self._database.execute(query).fetchall():
            with suppress(UnicodeError, AttributeError):
                row = key.decode(), text.decode()
                computed = checksum(*row)
                if stored is None or stored == computed.encode():
                    kept.append((*row, computed))
        self._database.execute("DROP TABLE results")
        self._database.execute(f"CREATE TABLE results {TABLE}")
        self._database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(sqlite3.Error):
            self._database.close()

    def __len__(self) -> int:
        """Number of stored results, of all studies."""
        with self._in_one_line(), closing(self._database.execute("SELECT COUNT(*) FROM results")) as rows:
            return int(rows.fetchone()[0])

    def get(self, keys: Iterable[str]) -> dict[str, PointResult]:
        """Key -> result, for those of the keys that have one.

        Raises:
            BadInput: the file cannot be read, or a row is damaged or holds what no evaluation gives.
        """
        query = ROW if self._checked else ROW.replace("checksum", "NULL")
        results: dict[str, PointResult] = {}
        for key in keys:
            with self._in_one_line(), closing(self._database.execute(query, (key,))) as rows:
                row = rows.fetchone()
            if row is not None:
                results[key] = self._parsed(key, *row)
        return results

    def put(self, key: str, result: PointResult) -> None:
        """Keep a result, in place of an older one of the same key; its attempt has ended.

        Raises:
            BadInput: the file cannot be written, or is no longer where it was.
        """
        text = json.dumps(result.model_dump(by_alias=True))
        with self._in_one_line(), self._database:
            row = (key, text, checksum(key, text))
            self._database.execute("INSERT OR REPLACE INTO results (key, result, checksum) VALUES (?, ?, ?)", row)
            self._database.execute("DELETE FROM attempts WHERE key = ?", (key,))
        self.check_in_place()

    def forget(self, keys: Iterable[str]) -> None:
        """Remove the results of these keys.

        Raises:
            BadInput: the file cannot be written.
        """
        if self.readonly:
            raise BadInput(f"{self.file}: may not be written, so --fresh cannot be had; choose another --out")
        with self._in_one_line(), self._database:
            self._database.executemany("DELETE FROM results WHERE key = ?", ((key,) for key in keys))

    def begin_attempt(self, key: str) -> None:
        """Note that a point is under way: so one that ends this process is known to the next run.

        It survives the end of the process, not that of the machine: it is not a result, and need not wait for the disk.
        """
        with self._in_one_line():
            self._database.execute("PRAGMA synchronous = OFF")
            try:
                with self._database:
                    self._database.execute("INSERT OR IGNORE INTO attempts VALUES (?)", (key,))
            finally:
                self._database.execute("PRAGMA synchronous = FULL")

    def end_attempts(self, keys: Iterable[str]) -> None:
        """These points ended, with or without a result."""
        with self._in_one_line(), self._database:
            self._database.executemany("DELETE FROM attempts WHERE key = ?", ((key,) for key in keys))

    def unfinished_attempts(self) -> set[str]:
        """Points that were begun and never ended: that of a process that died, and those beside it."""
        if self.readonly:
            return set()
        with self._in_one_line(), closing(self._database.execute("SELECT key FROM attempts")) as rows:
            return {str(row[0]) for row in rows}

    def check_in_place(self) -> None:
        """Check that the open file still has its name.

        Raises:
            BadInput: the file was moved, deleted or replaced.
        """
        self._note_identity()
        for name, identity in self._identity.items():
            if _identity_of(f"{self.file}{name}") != identity:
                raise BadInput(f"{self.file}: {GONE}")

    def is_in_place(self) -> bool:
        """True if the name of the file still leads to the open file."""
        return _identity_of(str(self.file)) == self._identity.get("")

    def _note_identity(self) -> None:
        """Record which files are open. The write-ahead log appears with the first write."""
        for name in ("", "-wal"):
            identity = _identity_of(f"{self.file}{name}")
            if identity is not None:
                self._identity.setdefault(name, identity)

    def _parsed(self, key: str, text: object, stored_checksum: object) -> PointResult:
        try:
            intact = not self._checked or stored_checksum == checksum(key, str(text))
            content: Any = json.loads(text) if isinstance(text, str) and intact else None
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise BadInput(f"{self.file}: the result {key[:12]} is damaged; compute it again with --fresh")
        try:
            return parse_result(key, content)
        except BadInput as error:
            raise BadInput(f"{self.file}: {error}") from error

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Raise errors of SQLite as `BadInput`."""
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
            remedy = "move it away or choose another --out"
            if "locked" in str(error):
                remedy = "another program holds it: let that end, or choose another --out"
            elif _error_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                remedy = "make room on the disk, or choose another --out"
            raise BadInput(f"{self.file}: cannot hold results ({error}); {remedy}") from error


def checksum(key: str, text: str) -> str:
    """SHA-256 of a key and the text of its result."""
    return hashlib.sha256(f"{key}\n{text}".encode(errors="surrogatepass")).hexdigest()


def _error_code(error: Exception) -> int:
    """Primary code of SQLite; 0 for errors of its Python module, such as names in a damaged file that are not UTF-8."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_readonly(file: Path) -> bool:
    """True if a store exists but it or its folder is not writable, such as in another user's folder."""
    return os.path.isfile(file) and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def _open_readonly(file: Path) -> sqlite3.Connection:
    """Open a store for reading, without the files that SQLite otherwise makes beside it.

    If a run was killed, a log beside the file holds results that the file does not hold yet. Then a copy of both is
    read.
    """
    log = Path(f"{file}-wal")
    if not (os.path.isfile(log) and os.path.getsize(log)):
        return sqlite3.connect(f"file:{quote(os.path.abspath(file))}?mode=ro&immutable=1", uri=True)
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


def _identity_of(file: str) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is no such file."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
