"""Results on disk: one SQLite file on a local disk, written by the driver only, with a checksum in each row.

A result is committed as soon as it is there, and each row is checked when it is read: one that is damaged counts as
missing, so that it is computed again. `tables` says what the file holds.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ohmformer.errors import BadInput
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.key import Keys
from ohmformer.study.results.spec import PointResult
from ohmformer.study.store.local_disk import network_file_system
from ohmformer.study.store.tables import checksum, columns, make_tables, open_readonly, query_of_row, row_checksum
from ohmformer.study.store.usable import AWAY, GONE, NO_ROOM, error_code, identity_of, is_readonly, why_unusable

R = TypeVar("R")


@dataclass(frozen=True)
class StoredPoint:
    """A point of a study, as the store lists it.

    Attributes:
        study: name of the study.
        set: dotted path -> swept value.
        label: label of the sweep; empty for none.
        key: key of its accuracy; empty if none is measured.
        cost: key of its cost; empty if none is known.
    """

    study: str
    set: Mapping[str, Any]
    label: str = ""
    key: str = ""
    cost: str = ""

    @property
    def name(self) -> str:
        """The swept values as JSON text, which tells points of a study apart."""
        return json.dumps(dict(self.set), default=str)

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """The point as the file holds it."""
        return self.name, self.label, self.key, self.cost


class Store:
    """Key -> result of a point. A result is on disk when `put` returns, and is checked when it is read.

    Attributes:
        file: the file.
        readonly: why nothing can be written; empty if it can.
        damaged: keys of damaged rows that were found so far; "" for a row whose key is unknown.
    """

    def __init__(self, file: Path) -> None:
        """Open the file, or make it; one that may not be written is opened for reading.

        Raises:
            BadInput: it can be neither, is damaged, is not a store, or would be new on a network file system.
        """
        self.file = file
        self.damaged: list[str] = []
        self.readonly = "may not be written" if is_readonly(file) else ""
        self._identity: dict[str, tuple[int, int]] = {}
        if os.path.lexists(file) and not os.path.isfile(file):
            raise BadInput(f"{file}: is not a regular file; move it away or choose another --out")
        if network := network_file_system(file):
            where = f"is on a network file system ({network}), where results could be lost"
            if not os.path.isfile(file):
                raise BadInput(f"{file}: {where}; {AWAY}")
            self.readonly = f"{where}, so it is only read"
        if fault := why_unusable(file):
            raise BadInput(f"{file}: {fault}, or choose another --out")
        with self._in_one_line():
            try:
                self._database = self._opened()
            except sqlite3.OperationalError as error:
                if self.readonly or error_code(error) not in NO_ROOM or not os.path.isfile(file):
                    raise
                self.readonly = f"cannot be written ({error})"  # a full disk: what is there can be read all the same
                try:
                    self._database = self._opened()
                except sqlite3.Error:
                    raise error from None  # nothing is there yet: say what kept it from being written
        self._note_identity()

    def _opened(self) -> sqlite3.Connection:
        self._database = open_readonly(self.file) if self.readonly else sqlite3.connect(self.file)
        self._database.text_factory = lambda text: text.decode(errors="surrogateescape")  # its checksum is wrong
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
            self._make_tables()
        self._query = query_of_row(self._database)

    def _make_tables(self) -> None:
        self.damaged += [""] * make_tables(self._database)

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
        """Key -> accuracy, for those of the keys that have one. Damaged rows are added to `damaged`.

        Raises:
            BadInput: the file cannot be read.
        """
        rows = ((key, self._row(key)) for key in keys)
        return {
            key: result for key, row in rows if row and (result := self._parsed(key, row, PointResult.model_validate))
        }

    def cost(self, key: str) -> CostResult | None:
        """The cost with this key; None if there is none, or its row is damaged.

        Raises:
            BadInput: the file cannot be read.
        """
        row = self._row(key)
        return self._parsed(key, row, CostResult.model_validate) if row else None

    def version(self, key: str) -> str:
        """The code that computed the result of a key, as JSON; empty if none is stored."""
        row = self._row(key)
        return row[1] if row else ""

    def older(self, wanted: Mapping[str, Keys]) -> dict[str, str]:
        """Key -> key of the stored answer of other code to the same question: of several, of the code that came last.

        Raises:
            BadInput: the file cannot be read.
        """
        if "question" not in self._query:
            return {}
        questions = {keys.question: key for key, keys in wanted.items()}
        with self._in_one_line():
            numbers = dict(self._database.execute("SELECT version, number FROM versions ORDER BY number"))
            rows = self._database.execute("SELECT key, question, version FROM results WHERE question != ''").fetchall()
        found: dict[str, tuple[int, str]] = {}
        for stored, question, version in rows:
            key = questions.get(question)
            if key is not None and stored != key:
                found[key] = max(found.get(key, (-1, "")), (numbers.get(version, 0), stored))
        return {key: stored for key, (_, stored) in found.items()}

    def put(self, key: str, result: PointResult, keys: Keys | None = None) -> None:
        """Keep an accuracy, in place of an older one of the same key; its attempt has ended.

        Args:
            key: its key.
            result: the accuracy.
            keys: question and version; None if they are unknown.

        Raises:
            BadInput: the file cannot be written, or is no longer where it was.
        """
        with self._in_one_line(), self._database:
            self._insert(key, result.model_dump(by_alias=True), keys)
            self._database.execute("DELETE FROM attempts WHERE key = ?", (key,))
        self.check_in_place()

    def put_cost(self, keys: Keys, result: CostResult) -> None:
        """Keep a cost. It survives the end of the process, but need not wait for the disk: it is computed in a moment.

        Raises:
            BadInput: the file cannot be written, or is no longer where it was.
        """
        with self._in_one_line(), self._without_waiting("NORMAL"), self._database:
            self._insert(keys.key, result.model_dump(by_alias=True), keys)
        self.check_in_place()

    def _insert(self, key: str, content: Any, keys: Keys | None) -> None:
        text, question, version = json.dumps(content), keys.question if keys else "", keys.version if keys else ""
        if version:
            known = self._database.execute("SELECT 1 FROM versions WHERE version = ?", (version,)).fetchone()
            if known is None:
                self._database.execute("INSERT INTO versions (version) VALUES (?)", (version,))
        row = (key, question, version, text, row_checksum(key, text, question, version))
        self._database.execute(
            "INSERT OR REPLACE INTO results (key, question, version, result, checksum) VALUES (?, ?, ?, ?, ?)", row
        )

    def note_points(self, study: str, points: Sequence[StoredPoint], *, further: bool = False) -> None:
        """List the points of a study, in place of those that were listed.

        Args:
            study: name of the study.
            points: all its points, in order.
            further: True to add to the points that are listed, without those that are there already.

        Raises:
            BadInput: the file cannot be written.
        """
        listed = [point for point in self.points() if point.study == study]
        wanted = list({point.texts: point for point in (*listed, *points)}.values()) if further else list(points)
        if self.readonly or wanted == listed:
            return
        rows = []
        for position, point in enumerate(wanted):
            rows.append((study, position, *point.texts, checksum(study, str(position), *point.texts)))
        with self._in_one_line(), self._database:
            self._database.execute("DELETE FROM points WHERE study = ?", (study,))
            self._database.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def points(self) -> list[StoredPoint]:
        """The listed points of all studies, in order; damaged ones are left out, and added to `damaged`.

        Raises:
            BadInput: the file cannot be read.
        """
        with self._in_one_line():
            if not self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'points'").fetchone():
                return []
            rows = self._database.execute("SELECT * FROM points ORDER BY study, position").fetchall()
        found = []
        for study, position, *texts, stored in rows:
            try:
                intact = stored == checksum(study, str(position), *texts)
                found.append(StoredPoint(study, json.loads(texts[0] if intact else ""), *texts[1:]))
            except (TypeError, ValueError):
                self.damaged.append("")
        return found

    def note_shown(self, study: str, content: str) -> None:
        """Keep what `shown_again` needs to show a study that has not changed.

        Args:
            study: name of the study.
            content: as JSON.

        Raises:
            BadInput: the file cannot be written.
        """
        if not self.readonly and self.shown(study) != content:
            with self._in_one_line(), self._database:
                row = (study, content, checksum(study, content))
                self._database.execute("INSERT OR REPLACE INTO shown VALUES (?, ?, ?)", row)

    def shown(self, study: str) -> str:
        """What was noted by `note_shown`; empty if there is nothing, or its row is damaged.

        Raises:
            BadInput: the file cannot be read.
        """
        with self._in_one_line():
            if not columns(self._database, "shown"):
                return ""
            row = self._database.execute("SELECT content, checksum FROM shown WHERE study = ?", (study,)).fetchone()
        try:
            return str(row[0]) if row and row[1] == checksum(study, row[0]) else ""
        except TypeError:
            return ""

    def checksums(self, keys: Iterable[str]) -> list[str]:
        """The checksums of rows as they are stored; empty where there is no row. Reading a row checks its own.

        Raises:
            BadInput: the file cannot be read.
        """
        with self._in_one_line():
            rows = [self._database.execute(self._query, (key,)).fetchone() for key in keys]
        return [str(row[4]) if row else "" for row in rows]

    def forget(self, keys: Iterable[str]) -> None:
        """Remove the results of these keys.

        Raises:
            BadInput: the file cannot be written.
        """
        if self.readonly:
            raise BadInput(f"{self.file}: {self.readonly}, so --fresh cannot be had; choose another --out")
        with self._in_one_line(), self._database:
            self._database.executemany("DELETE FROM results WHERE key = ?", ((key,) for key in keys))

    def begin_attempt(self, key: str) -> None:
        """Note that a point is under way: so one that ends this process is known to the next run.

        It survives the end of the process, not that of the machine: it is not a result, and need not wait for the disk.
        """
        with self._in_one_line(), self._without_waiting("OFF"), self._database:
            self._database.execute("INSERT OR IGNORE INTO attempts VALUES (?)", (key,))

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
            if identity_of(f"{self.file}{name}") != identity:
                raise BadInput(f"{self.file}: {GONE}")

    def is_in_place(self) -> bool:
        """True if the name of the file still leads to the open file."""
        return identity_of(str(self.file)) == self._identity.get("")

    def _note_identity(self) -> None:
        """Record which files are open. The write-ahead log appears with the first write."""
        for name in ("", "-wal"):
            identity = identity_of(f"{self.file}{name}")
            if identity is not None:
                self._identity.setdefault(name, identity)

    @contextmanager
    def _without_waiting(self, level: str) -> Iterator[None]:
        """Commit without waiting for the disk, as far as a level of SQLite says."""
        self._database.execute(f"PRAGMA synchronous = {level}")
        try:
            yield
        finally:
            self._database.execute("PRAGMA synchronous = FULL")

    def _row(self, key: str) -> tuple[str, str] | None:
        """The result, as JSON text, and the version of a key; None if there is none, or its row is damaged."""
        with self._in_one_line(), closing(self._database.execute(self._query, (key,))) as rows:
            row = rows.fetchone()
        if row is None:
            return None
        with suppress(TypeError):
            if row[4] is None or row[4] == row_checksum(*row[:4]):
                return str(row[1]), str(row[3])
        self._note_damage(key)
        return None

    def _note_damage(self, key: str) -> None:
        if key not in self.damaged:
            self.damaged.append(key)

    def _parsed(self, key: str, row: tuple[str, str], parse: Callable[[Any], R]) -> R | None:
        try:
            return parse(json.loads(row[0]))
        except (ValueError, RecursionError):  # those of pydantic are ValueErrors
            self._note_damage(key)
            return None

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Raise errors of SQLite as `BadInput`."""
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
            remedy = "move it away or choose another --out"
            if "locked" in str(error):
                remedy = "another program holds it: let that end, or choose another --out"
            elif error_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                remedy = "make room on the disk, or choose another --out"
            raise BadInput(f"{self.file}: cannot hold results ({error}); {remedy}") from error
