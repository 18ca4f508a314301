"""Paths that a user gives on the command line: expanded or refused in one way, whatever the option."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from ohmformer.errors import BadInput
from ohmformer.textfiles import home_expanded

LONGEST_NAME = 255
"""Maximum length of the name of a file or folder [bytes]."""

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def given_path(option: str, path: str) -> str:
    """The path of an option, with `~` expanded to the home folder.

    Args:
        option: the option, such as '--json', for messages.
        path: the path as given; `-` is returned as it is.

    Raises:
        BadInput: the path is empty, holds a variable such as $HOME, or names no user's home folder.
    """
    if not path.strip():
        raise BadInput(f"{option}: is empty; give a path, or leave the option out")
    if _VARIABLE.search(path) and not os.path.lexists(path):
        raise BadInput(f"{option} {path}: variables are not filled in here; write the path in full")
    expanded = str(home_expanded(path)) if path.startswith("~") else path
    if expanded.startswith("~") and not os.path.lexists(expanded.partition("/")[0]):
        raise BadInput(f"{option} {path}: there is no such home folder; write the path in full")
    return expanded


def check_folder(option: str, folder: Path) -> None:
    """Refuse, before anything is computed, a folder that does not exist and cannot be made.

    An existing folder passes even if it is not writable, since results that it holds can still be read.

    Args:
        option: the option, such as '--out', for messages; empty for a default folder.
        folder: path of the folder.

    Raises:
        BadInput: something else has this path, or lies on the way to it, or the folder above is not writable.
    """
    place = f"{option} {folder}" if option else str(folder)
    remedy = "give the path of another folder" if option else "choose another folder with --out"
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)  # raises for paths that no folder can have
        if any(len(os.fsencode(name)) > LONGEST_NAME for name in folder.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        for path in (folder, *folder.parents):
            if not os.path.lexists(path):
                continue
            if reason := _why_no_folder(path):
                at = "" if path == folder else f"{path} "
                raise BadInput(f"{place}: {at}{reason}; {remedy}")
            if path != folder and not os.access(path, os.W_OK | os.X_OK):
                raise BadInput(f"{place}: cannot be made, since {path} is not writable; {remedy}")
            if path == folder and not os.access(path, os.X_OK):
                raise BadInput(f"{place}: may not be entered; change its permissions, or {remedy}")
            return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadInput(f"{place}: cannot be made ({reason}); {remedy}") from None


def _why_no_folder(path: Path) -> str:
    """Description of an existing path that is not a folder; empty if it is one."""
    if path.is_symlink() and not path.exists():
        return "is a link that leads nowhere"
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return ""
    names = {stat.S_IFREG: "a file", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"is {names.get(stat.S_IFMT(mode), 'a device')}, not a folder"
