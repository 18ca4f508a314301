"""Finds lines of a library file that other lines overwrite, so that they would have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ohmformer.errors import models

Path = tuple[str, ...]


def lost_line(cls: type[Any], table: Mapping[str, Any], *, merged: bool = False) -> tuple[Path, Path, str] | None:
    """The first line without effect, the line that overwrites it, and why; None if all lines have an effect.

    Args:
        cls: the specification that the table describes.
        table: as it is written in the file.
        merged: True if the table changes keys of an entry one after the other, as below a `base`.
    """
    merged = merged or "base" in table
    found = _lost_change(cls, table) if merged else _lost_alias(cls, table)
    if found:
        return found
    for key, value in table.items():
        path = tuple(key.split("."))
        for inner in _classes([cls], path) if isinstance(value, dict) else []:
            if below := lost_line(inner, value, merged=merged):
                return (*path, *below[0]), (*path, *below[1]), below[2]
    return None


def _lost_change(cls: type[Any], table: Mapping[str, Any]) -> tuple[Path, Path, str] | None:
    """A change of an entry that later changes in the same table overwrite."""
    entries = [(tuple(key.split(".")), value) for key, value in table.items() if key != "base"]
    lines: list[tuple[Path, Path]] = [line for path, value in entries for line in _lines(path, value)]
    for position, (path, origin) in enumerate(lines):
        for later, value in entries[[entry for entry, _ in entries].index(origin) + 1 :]:
            if later == origin[: len(later)] and isinstance(value, dict):
                return path, later, "comes later"
        setters = [
            next((other for other, _ in lines[position + 1 :] if _sets(cls, other, target)), ())
            for target in _targets([cls], path)
        ]
        if all(setters):
            return path, setters[0], "comes later"
    return None


def _lost_alias(cls: type[Any], table: Mapping[str, Any]) -> tuple[Path, Path, str] | None:
    """An alias in a table of its own where all fields that it stands for are set, too."""
    for alias, targets in getattr(cls, "aliases", {}).items():
        fields = [target.split(".")[0] for target in targets]
        if alias in table and all(field in table for field in fields):
            return (alias,), (fields[0],), f"is set beside {' and '.join(fields[1:])}"
    return None


def _lines(path: Path, value: Any, origin: Path = ()) -> Iterator[tuple[Path, Path]]:
    """(path of a value, path of the entry of the table that holds it); an entry with changes is one value."""
    origin = origin or path
    if isinstance(value, dict) and value and not {"base", "value"} & set(value):
        for key, inner in value.items():
            yield from _lines((*path, *key.split(".")), inner, origin)
    else:
        yield path, origin


def _sets(cls: type[Any], path: Path, target: Path) -> bool:
    """True if setting a path sets the target, or a table that holds it."""
    return any(reached == target[: len(reached)] for reached in _targets([cls], path))


def _targets(classes: Sequence[type[Any]], path: Path) -> list[Path]:
    """The paths that a path sets: those that an alias stands for, or itself."""
    if not path:
        return [()]
    if aliased := _aliased(classes, path[0]):
        return [(*target, *path[1:]) for target in aliased]
    return [(path[0], *rest) for rest in _targets(_classes(classes, path[:1]), path[1:])]


def _aliased(classes: Sequence[type[Any]], key: str) -> list[Path]:
    """The paths that an alias stands for; empty if the key is none."""
    targets = (getattr(cls, "aliases", {}).get(key, ()) for cls in classes)
    return [tuple(target.split(".")) for target in next(filter(None, targets), ())]


def _classes(classes: Sequence[type[Any]], path: Path) -> list[type[Any]]:
    """The specifications that a field at a path may hold."""
    for key in path:
        for name in next(iter(_aliased(classes, key)), (key,)):
            fields = [cls.model_fields[name] for cls in classes if name in cls.model_fields]
            classes = list(dict.fromkeys(model for field in fields for model in models(field.annotation)))
    return list(classes)
