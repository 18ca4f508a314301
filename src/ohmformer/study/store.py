"""Results on disk: one SQLite file, one table, written by the driver only, one commit per result."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ohmformer.errors import BadInput

Result = dict[str, Any]


TABLE = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT NOT NULL)"


class Store:
    """Key -> result, a plain dict. Whatever was put is on disk when `put` returns."""

    def __init__(self, file: Path) -> None:
        """Open the file, or make it.

        Raises:
            BadInput: it cannot be written, or is no store.
        """
        self.file = file
        try:
            self._database = sqlite3.connect(file)
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                with self._database:
                    self._database.execute(TABLE)
            except sqlite3.Error:
                self._database.close()
                raise
        except sqlite3.Error as error:
            raise BadInput(f"{file}: cannot hold results ({error}); move it away or choose another --out") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def __len__(self) -> int:
        """How many results there are, of whatever study."""
        with closing(self._database.execute("SELECT COUNT(*) FROM results")) as rows:
            return int(rows.fetchone()[0])

    def get(self, keys: Iterable[str]) -> dict[str, Result]:
        """The results that there are for these keys."""
        found: dict[str, Result] = {}
        for key in keys:
            with closing(self._database.execute("SELECT result FROM results WHERE key = ?", (key,))) as rows:
                row = rows.fetchone()
            if row is not None:
                found[key] = json.loads(row[0])
        return found

    def put(self, key: str, result: Result) -> None:
        """Keep a result, in place of an older one of the same key."""
        row = (key, json.dumps(result))
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", row)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove the results of these keys."""
        with self._database:
            self._database.executemany("DELETE FROM results WHERE key = ?", ((key,) for key in keys))
