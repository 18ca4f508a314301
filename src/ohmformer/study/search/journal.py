"""The journal of a search: one JSON record a line, appended by one program at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
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
        readonly: True if the file may only be read; then `backend` is a copy, which is gone in the end.
    """

    def __init__(self, file: Path) -> None:
        """Open the file, or make it, and cut off a record that was not written whole.

        Raises:
            BadInput: it can neither be opened for writing nor read, or another program holds it.
        """
        self._copies, self.readonly = ExitStack(), False
        try:
            self._held = open(file, "ab+")  # noqa: SIM115 (held until `close`)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not os.access(file, os.R_OK):
                raise BadInput(
                    f"{file}: cannot be written ({error.strerror}); choose another folder with --out"
                ) from None
            file, self.readonly = self._copy_of(file), True
            self._held = open(file, "ab+")  # noqa: SIM115
        try:
            if fcntl is not None:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cut_unfinished()
        except BlockingIOError:
            self.close()
            raise BadInput(f"{file}: another search uses it; let that end, or choose another --out") from None
        except OSError as error:
            self.close()
            raise BadInput(f"{file}: cannot be used ({error.strerror}); choose another folder with --out") from None
        self.backend = _Backend(str(file))

    def _copy_of(self, file: Path) -> Path:
        """A copy of the file, for as long as the journal is open."""
        try:
            folder = self._copies.enter_context(TemporaryDirectory(prefix="ohmformer-", ignore_cleanup_errors=True))
            return Path(shutil.copyfile(file, Path(folder) / file.name))
        except OSError as error:
            self._copies.close()
            reason = f"may only be read, and cannot be copied ({error.strerror})"
            raise BadInput(f"{file}: {reason}; choose another folder with --out") from None

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
        self._copies.close()
