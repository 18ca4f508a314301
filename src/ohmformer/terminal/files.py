"""Writing files: whole or not at all; through links, and straight into pipes and devices; one line where it fails."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ohmformer.errors import BadInput

NO_REPLACEMENT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV}
"""Errors for which a file cannot be replaced but may be writable in place, such as a mounted file."""

OPEN_FILES = ("/dev/fd/", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/")
"""Beginnings of names of open files, which must be written in place."""

PAGE = b"<!doctype html>\n<!-- Ohmformer report -->\n"
MARKDOWN = b"<!-- Ohmformer report -->\n"

OUR_BEGINNINGS = (
    *(b'{"schema"', b'{\n  "schema"', b'{"displayTimeUnit"', b"# Validation", b"# Fitted to "),
    *(PAGE, MARKDOWN),
)
"""Beginnings of files of `--json`, `--trace`, `--page`, `device fit` and `report`. Only these and empty files are
overwritten."""

READER_SECONDS = 10.0
"""Maximum time to wait for a reader of a pipe [s]."""


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder}: cannot be made ({_reason(error)}); choose another folder with --out") from error


def write_text(file: Path, text: str) -> None:
    """`write_bytes` of text in UTF-8."""
    write_bytes(file, text.encode(errors="backslashreplace"))


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file: a regular one whole or not at all, the target of a link, or straight into a pipe or device.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        if os.path.isdir(file):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if _is_pipe_or_device(file):
            _write_through(file, data)
        else:
            _replace(Path(os.path.realpath(file)), data)
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be written ({_reason(error)}); choose another place") from error


def is_standard_output(file: str) -> bool:
    """True for '-', and for any other name of what this process writes to as standard output."""
    if file == "-":
        return True
    try:
        return os.path.samestat(os.stat(file), os.fstat(1))
    except (OSError, ValueError):
        return False


def check_file(option: str, file: str) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Args:
        option: the option, such as '--json', for messages.
        file: path of the file; '-' and other names of standard output pass.

    Raises:
        BadInput: the path is that of a folder, disk, socket or foreign file, its folder does not exist, or it is not
            writable.
    """
    if is_standard_output(file):
        return
    place = f"{option} {file}" if file else option
    remedy = "give the path of a file in a folder that you may write to"
    try:
        reason = _why_unwritable(file)
    except (OSError, ValueError) as error:
        reason = f"cannot be written ({_reason(error)})"
    if reason:
        raise BadInput(f"{place}: {reason}; {remedy}")
    if os.path.isfile(file) and os.stat(file).st_size and not _is_ours(file):
        raise BadInput(f"{place}: holds something that this program did not write; move it away, or give another path")


def _why_unwritable(file: str) -> str:
    """Reason why a path that is not standard output cannot be written; empty if it can.

    Raises:
        OSError, ValueError: no file can have this path.
    """
    if not file:
        return "is empty"
    target = os.path.realpath(file)
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        status = None  # there is no such file yet, or a link leads to a file that does not exist yet
    folder = os.path.dirname(target)
    if os.path.isdir(file) or file.endswith("/"):
        return "is a folder, not a file"
    if status is None and not os.path.isdir(folder):
        return f"its folder is {'a file' if os.path.exists(folder) else 'missing'}"
    if status and (stat.S_ISBLK(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
        return f"is a {'disk' if stat.S_ISBLK(status.st_mode) else 'socket'}"
    if not os.access(file if status else folder, os.W_OK):
        return "is not writable"
    return "has a name that is too long" if len(os.fsencode(os.path.basename(target))) > 255 else ""


def check_apart(files: Mapping[str, str | None]) -> None:
    """Refuse two options that name one file, since one would be written over the other.

    Args:
        files: option, such as '--json' -> its path; None where it is not given.

    Raises:
        BadInput: two of them are the same file.
    """
    places: dict[str, str] = {}
    for option, file in files.items():
        if file is None or is_standard_output(file):
            continue
        other = places.setdefault(os.path.realpath(file), option)
        if other != option:
            raise BadInput(f"{option} {file}: is the file of {other}, too; give each a file of its own")


def _is_ours(file: str) -> bool:
    """True if a file begins as results, a trace or a page of claims of this program."""
    try:
        with open(file, "rb") as content:
            start = content.read(200).lstrip()
    except OSError:
        return True  # the reason is reported when it is written
    return start.startswith(OUR_BEGINNINGS)


def _is_pipe_or_device(file: Path) -> bool:
    """True for pipes, devices, and files that this process has already open."""
    if os.path.abspath(file).startswith(OPEN_FILES):
        return True
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(status.st_mode) or any(_is_open_as(status, number) for number in (1, 2))


def _is_open_as(status: os.stat_result, number: int) -> bool:
    try:
        return os.path.samestat(status, os.fstat(number))
    except OSError:
        return False


def _write_through(file: Path, data: bytes) -> None:
    if stat.S_ISBLK(os.stat(file).st_mode):
        raise OSError(errno.EPERM, "it is a disk")
    with open(_open_for_appending(file), "wb") as content:
        content.write(data)


def _open_for_appending(file: Path) -> int:
    """Open a file for appending. A pipe without a reader is an error after `READER_SECONDS`."""
    end = time.monotonic() + READER_SECONDS
    while True:
        try:
            number = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
            os.set_blocking(number, True)
            return number
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(file).st_mode):
                raise
            if time.monotonic() > end:
                raise OSError(errno.ENXIO, "no program reads this pipe") from None
            time.sleep(0.05)


def _replace(file: Path, data: bytes) -> None:
    """Write a temporary file beside the file, and rename it to the file."""
    draft = file.with_name(f".ohmformer-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(draft, "xb") as content:
            content.write(data)
            content.flush()
            _sync(content.fileno())
        with suppress(OSError):
            os.chmod(draft, stat.S_IMODE(os.stat(file).st_mode))
        os.replace(draft, file)
    except OSError as error:
        if error.errno not in NO_REPLACEMENT or not os.path.isfile(file):
            raise
        with open(file, "r+b") as content:
            content.truncate()
            content.write(data)
    finally:
        with suppress(OSError):
            os.unlink(draft)


def _sync(number: int) -> None:
    """Flush a file to disk; some file systems do not support it."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)
