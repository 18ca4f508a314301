"""Finds library entries by kind and name: user folders first, then plug-ins, then what the package ships.

An entry is a TOML file `<folder>/<name>.toml`. User folders are listed in the environment variable
OHMFORMER_LIBRARY (separated like PATH); a plug-in is an entry point of the group `ohmformer.library` that names a
package holding the same folders.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput, suggest

KINDS = {
    "cell": "cells", "array": "arrays", "accelerator": "accelerators", "shapes": "models", "study": "studies",
    "costs": "costs",
}  # fmt: skip
"""Kind of entry -> folder that holds it."""

SHIPPED = Path(str(files("ohmformer"))) / "library"


def roots() -> Iterator[Path]:
    """Library folders, the first to be asked first.

    Raises:
        BadInput: OHMFORMER_LIBRARY names a folder that does not exist.
    """
    for part in filter(None, os.environ.get("OHMFORMER_LIBRARY", "").split(os.pathsep)):
        if not Path(part).is_dir():
            raise BadInput(f"OHMFORMER_LIBRARY: {part}: no such folder; correct the environment variable")
        yield Path(part)
    for plugin in entry_points(group="ohmformer.library"):
        yield Path(str(files(plugin.value)))
    yield SHIPPED


def entries(kind: str) -> dict[str, Path]:
    """Name -> file of every entry of a kind."""
    found: dict[str, Path] = {}
    for root in roots():
        for file in sorted((root / KINDS[kind]).glob("*.toml")):
            found.setdefault(file.stem, file)
    return found


def locate(kind: str, name: str, *, beside: Path | None = None) -> Path:
    """The file of an entry; a name that ends in .toml is a path, first from the folder `beside`.

    Raises:
        ValueError: there is no such entry or file.
    """
    if name.endswith(".toml"):
        for file in ([beside / name] if beside else []) + [Path(name)]:
            if file.is_file():
                return file
        raise ValueError(f"no such file; give the path of a TOML file, or the name of a library {kind}")
    known = entries(kind)
    if name not in known:
        raise ValueError(f"is no {kind} of the library; {suggest(name, list(known))}")
    return known[name]


def find(kind: str, name: str) -> Path:
    """`locate`, for a name that a user gave.

    Raises:
        BadInput: there is no such entry or file.
    """
    try:
        return locate(kind, name)
    except ValueError as error:
        raise BadInput(f"{name}: {error}") from None


def read(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        BadInput: the file is missing, unreadable or no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read ({error}); check the path and its permissions") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{file}: is not valid TOML ({error}); correct that line") from None


def read_table(kind: str, file: Path) -> dict[str, Any]:
    """The table that an entry's file holds, named like its kind (`[cell]` in a cell's file).

    Raises:
        BadInput: the file cannot be read, or holds anything else.
    """
    content = read(file)
    if not isinstance(content.get(kind), dict):
        raise BadInput(f"{file}: has no table [{kind}]; put the {kind} into one")
    extra = sorted(set(content) - {kind})
    if extra:
        raise BadInput(f"{file}: {extra[0]}: does not belong here; leave it out, or move it into the table [{kind}]")
    return dict(content[kind])
