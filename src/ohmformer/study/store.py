"""Results on disk: one SQLite file, one table, written by the driver only, one commit per result."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ohmformer.errors import BadInput

Result = dict[str, Any]

TABLE = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT NOT NULL)"
ROW = "SELECT result FROM results WHERE key = ?"


class Store:
    """Key -> result, a plain dict. Whatever was put is on disk when `put` returns."""

    def __init__(self, file: Path) -> None:
        """Open the file, or make it.

        Raises:
            BadInput: it cannot be written, or is no store.
        """
        self.file = file
        with self._in_one_line():
            self._database = sqlite3.connect(file)
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                with self._database:
                    self._database.execute(TABLE)
                self._database.execute("SELECT key, result FROM results LIMIT 0")
            except sqlite3.Error:
                self._database.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def __len__(self) -> int:
        """How many results there are, of whatever study."""
        with self._in_one_line(), closing(self._database.execute("SELECT COUNT(*) FROM results")) as rows:
            return int(rows.fetchone()[0])

    def get(self, keys: Iterable[str]) -> dict[str, Result]:
        """The results that there are for these keys.

        Raises:
            BadInput: the file cannot be read, or a row is damaged.
        """
        found: dict[str, Result] = {}
        for key in keys:
            with self._in_one_line(), closing(self._database.execute(ROW, (key,))) as rows:
                row = rows.fetchone()
            if row is not None:
                found[key] = self._parsed(key, row[0])
        return found

    def put(self, key: str, result: Result) -> None:
        """Keep a result, in place of an older one of the same key.

        Raises:
            BadInput: the file cannot be written.
        """
        row = (key, json.dumps(result))
        with self._in_one_line(), self._database:
            self._database.execute("INSERT OR REPLACE INTO results (key, result) VALUES (?, ?)", row)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove the results of these keys.

        Raises:
            BadInput: the file cannot be written.
        """
        with self._in_one_line(), self._database:
            self._database.executemany("DELETE FROM results WHERE key = ?", ((key,) for key in keys))

    def _parsed(self, key: str, text: object) -> Result:
        try:
            result = json.loads(text) if isinstance(text, str) else None
        except ValueError:
            result = None
        if not isinstance(result, dict):
            raise BadInput(f"{self.file}: the result {key[:12]} is damaged; compute it again with --fresh")
        return result

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """What SQLite complains of, as one line."""
        try:
            yield
        except sqlite3.Error as error:
            remedy = "move it away or choose another --out"
            if "locked" in str(error):
                remedy = "another program holds it: let that end, or choose another --out"
            raise BadInput(f"{self.file}: cannot hold results ({error}); {remedy}") from error
