"""Can the file of a store be opened and written, and is it the file that was opened?"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

NO_ROOM = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN)
"""Errors for which an existing file cannot be opened for writing."""

GONE = (
    "was moved, removed or replaced while the study ran; stopped, since results would be lost: leave the folder alone "
    "and run again"
)

AWAY = "give --out a folder on a local disk, and copy it when the study is done"


def error_code(error: Exception) -> int:
    """Primary code of SQLite; 0 for errors of its Python module, such as names in a damaged file that are not UTF-8."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_readonly(file: Path) -> bool:
    """True if a store exists but it or its folder is not writable, such as in another user's folder."""
    return os.path.isfile(file) and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def why_unusable(file: Path) -> str:
    """Fault and remedy of permissions that keep a store from being opened or made; empty if they do not."""
    if os.path.isdir(file.parent) and not os.access(file.parent, os.X_OK):
        return "cannot be opened, since its folder may not be entered; change the folder's permissions"
    if os.path.isfile(file):
        return "" if os.access(file, os.R_OK) else "may not be read; change its permissions"
    if os.path.isdir(file.parent) and not os.access(file.parent, os.W_OK):
        return "cannot be made, since its folder is not writable; change the folder's permissions"
    return ""


def why_empty(file: Path) -> str:
    """A line if a file is there but is no store, since it has no bytes or no tables; else an empty text.

    The results of a killed run may still stand in a log beside the file, which then is a store.
    """
    log = f"{file}-wal"
    if not os.path.isfile(file) or (os.path.isfile(log) and os.path.getsize(log)):
        return ""
    try:
        with closing(sqlite3.connect(f"file:{quote(os.path.abspath(file))}?mode=ro&immutable=1", uri=True)) as database:
            if database.execute("SELECT 1 FROM sqlite_master").fetchone():
                return ""
    except (sqlite3.Error, OSError):
        return ""
    what = "has no bytes" if os.path.getsize(file) == 0 else "has no tables"
    return f"{file}: {what}, so nothing is stored there, and all points are computed"


def identity_of(file: str) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is no such file."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
