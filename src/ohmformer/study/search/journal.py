"""The journal of a search: one JSON record a line, appended by one program at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from ohmformer.errors import BadInput

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class _Backend(JournalFileBackend):
    """Optuna's journal without its lock file, which a killed program would leave behind, and without waiting for the
    disk at every record."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, which outlive the end of this process; after `Journal.sync` also that of the machine."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with open(self._file_path, "ab") as file:
            file.write(text.encode())


class Journal:
    """A journal file that this program alone appends to.

    Attributes:
        backend: the journal for Optuna.
    """

    def __init__(self, file: Path) -> None:
        """Open the file, or make it, and cut off a record that was not written whole.

        Raises:
            BadInput: it cannot be opened for writing, or another program holds it.
        """
        self._file = file
        try:
            self._held = open(file, "ab+")  # noqa: SIM115 (held until `close`)
        except OSError as error:
            raise BadInput(f"{file}: cannot be written ({error.strerror}); choose another folder with --out") from None
        try:
            if fcntl is not None:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cut_unfinished()
        except BlockingIOError:
            self._held.close()
            raise BadInput(f"{file}: another search uses it; let that end, or choose another --out") from None
        except OSError as error:
            self._held.close()
            raise BadInput(f"{file}: cannot be used ({error.strerror}); choose another folder with --out") from None
        self.backend = _Backend(str(file))

    def _cut_unfinished(self) -> None:
        self._held.seek(0)
        content = self._held.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._held.truncate(whole)

    def sync(self) -> None:
        """Wait until all records are on disk.

        Raises:
            OSError: they cannot be written.
        """
        os.fsync(self._held.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._held.close()
