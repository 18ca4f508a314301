"""Where stores are safe: on a local disk, and with one driver at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ohmformer.errors import BadInput

NETWORK = frozenset(
    {
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "coda",
            "davfs",
            "glusterfs",
            "gpfs",
            "lustre",
            "ncpfs",
            "nfs",
            "nfs4",
        ),
        *("dvs", "fhgfs", "gfs2", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "vboxsf", "wekafs"),
        *("beegfs_nodev", "blobfuse", "blobfuse2", "ceph-fuse", "gcsfuse", "glusterfs", "goofys", "juicefs", "mfs"),
        *("quobyte", "rclone", "s3fs", "sshfs"),
    }
)
"""Types of file systems that other machines write, too, or whose locks and shared memory are not those of this one."""

MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system that holds a path, if it is one of a network; else an empty text.

    Args:
        path: of a file or a folder, which need not exist yet.
        mounts: the list of what is mounted, as Linux has it; without one, nothing is known.
    """
    _mounted(path)
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real, found, longest = os.path.realpath(path), "", 0
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or not kinds:
            continue
        folder = _unescaped(fields[4])
        if len(folder) >= longest and (real == folder or real.startswith(f"{folder.rstrip('/')}/")):
            found, longest = kinds[0], len(folder)
    return found if found.removeprefix("fuse.") in NETWORK else ""


def _mounted(path: Path) -> None:
    """Look into the folder of a path, or the nearest one that there is: what is mounted on demand (autofs) then is."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            os.scandir(folder).close()
            return


def _unescaped(name: str) -> str:
    """The name of a folder in the list of mounts, in which blanks are written as octal numbers."""
    for code in ("040", "011", "012", "134"):
        name = name.replace(f"\\{code}", chr(int(code, 8)))
    return name


@contextmanager
def one_driver(folder: Path) -> Iterator[None]:
    """Keep other runs from computing into a folder. The lock ends with the process, however that ends.

    Where the system has no such locks (Windows), nothing is kept.

    Raises:
        BadInput: another run computes into it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be opened ({error.strerror}); choose another folder with --out") from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(
                f"{folder}: another run computes into this folder; let it end, or choose another folder with --out"
            ) from None
        yield
    finally:
        os.close(number)
