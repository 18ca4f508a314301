"""Finds library entries by kind and name: in user folders first, then in plug-ins, then in the package.

An entry is a TOML file `<folder>/<name>.toml`. User folders are listed in the environment variable
OHMFORMER_LIBRARY (separated like PATH); a plug-in is an entry point of the group `ohmformer.library` that names a
package holding the same folders.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache, lru_cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput, cut, suggest
from ohmformer.textfiles import home_expanded, read_toml

KINDS = {
    "cell": "cells", "array": "arrays", "accelerator": "accelerators", "shapes": "models", "study": "studies",
    "costs": "costs",
}  # fmt: skip
"""Kind of entry -> name of its folder."""

SHIPPED = Path(str(files("ohmformer"))) / "library"


def roots() -> Iterator[Path]:
    """Library folders, in the order of search.

    Raises:
        BadInput: OHMFORMER_LIBRARY names a folder that does not exist.
    """
    for part in filter(None, os.environ.get("OHMFORMER_LIBRARY", "").split(os.pathsep)):
        folder = home_expanded(part)
        if not os.path.isdir(folder):
            raise BadInput(f"OHMFORMER_LIBRARY: {part}: no such folder; correct the environment variable")
        if not os.access(folder, os.R_OK | os.X_OK):
            raise BadInput(f"OHMFORMER_LIBRARY: {part}: may not be read; change its permissions, or leave it out")
        yield folder
    yield from _plugins(tuple(sys.path))
    yield SHIPPED


@lru_cache(maxsize=8)
def _plugins(path: tuple[str, ...]) -> tuple[Path, ...]:
    """Folders of the plug-ins that are installed along this `sys.path`; cached, since it reads all package metadata.

    Raises:
        BadInput: a plug-in names a package that cannot be imported.
    """
    folders = []
    for plugin in entry_points(group="ohmformer.library"):
        try:
            with redirect_stdout(sys.stderr):  # standard output may be for results alone
                folders.append(Path(str(files(plugin.value))))
        except (Exception, SystemExit) as error:
            raise BadInput(
                f"plug-in {plugin.name}: {plugin.value} cannot be imported ({error}); repair or remove it"
            ) from error
    return tuple(folders)


def is_shipped_alone(file: Path) -> bool:
    """True if a file is an entry of the package, and no other library can replace the entries that it starts from."""
    alone = not os.environ.get("OHMFORMER_LIBRARY") and not _plugins(tuple(sys.path))
    return alone and file.parent.parent == SHIPPED


def entries(kind: str) -> dict[str, Path]:
    """Name -> file of every entry of a kind."""
    files_by_name: dict[str, Path] = {}
    for root in roots():
        found = _shipped(kind) if root == SHIPPED else _by_name(root, kind)
        files_by_name |= {name: file for name, file in found.items() if name not in files_by_name}
    return files_by_name


def _by_name(root: Path, kind: str) -> dict[str, Path]:
    return {file.stem: file for file in _listed(root, kind)}


def _listed(root: Path, kind: str) -> list[Path]:
    return sorted((root / KINDS[kind]).glob("*.toml"))


@cache
def _shipped(kind: str) -> dict[str, Path]:
    """The files of the package, which do not change: every point of a study asks for them."""
    return _by_name(SHIPPED, kind)


def locate(kind: str, name: str, *, beside: Path | None = None) -> Path:
    """The file of an entry.

    Args:
        kind: kind of entry, a key of `KINDS`.
        name: name of the entry, or a path that ends in .toml; `~` is the home folder.
        beside: folder in which a relative path is searched first, before the working directory.

    Raises:
        ValueError: there is no such entry or file.
    """
    if name.endswith(".toml"):
        places = ([beside / name] if beside else []) + [home_expanded(name)]
        for file in places:
            if _is_file(file):
                return file
        fault = "is a folder, pipe, device or broken link" if any(map(_exists, places)) else "no such file"
        raise ValueError(f"{fault}; give the path of a TOML file, or the name of a library {kind}")
    library = entries(kind)
    if name not in library and looks_like_path(name):
        raise ValueError(f"is not a .toml file; give the path of a TOML file, or the name of a library {kind}")
    if name not in library:
        raise ValueError(f"is not among the {KINDS[kind]} of the library; {suggest(name, list(library))}")
    return library[name]


def looks_like_path(name: str) -> bool:
    """True if a name is meant as that of a file or folder: it holds a separator or a known suffix, or it exists."""
    suffixes = (".toml", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".csv", ".py", ".png", ".svg", ".sqlite", ".bib")
    return "/" in name or os.sep in name or name.lower().endswith(suffixes) or os.path.lexists(name)


def _is_file(file: Path) -> bool:
    """True if there is such a file; False for names that no file can have."""
    return os.path.isfile(file)


def _exists(path: Path) -> bool:
    """True if there is anything at this path; False for names that no file can have."""
    try:
        return os.path.lexists(path)
    except ValueError:  # a null character
        return False


def find(kind: str, name: str) -> Path:
    """The file of an entry that a user names, see `locate`.

    Raises:
        BadInput: there is no such entry or file.
    """
    try:
        return locate(kind, name)
    except ValueError as error:
        raise BadInput(f"{cut(name)}: {error}") from None


def read(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        BadInput: the file is missing or unreadable, or it is not valid TOML.
    """
    return read_toml(file)


def read_table(kind: str, file: Path) -> dict[str, Any]:
    """The table of an entry's file, which is named after the kind (`[cell]` in the file of a cell).

    Raises:
        BadInput: the file cannot be read, or it holds something else.
    """
    content = read(file)
    if not isinstance(content.get(kind), dict):
        raise BadInput(f"{file}: has no table [{kind}]; put the {kind} into one")
    extra = sorted(set(content) - {kind})
    if extra:
        raise BadInput(
            f"{file}: {cut(extra[0])}: does not belong here; leave it out, or move it into the table [{kind}]"
        )
    return dict(content[kind])
