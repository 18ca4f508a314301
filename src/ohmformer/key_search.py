"""Finds the place of a key that a user wrote at a wrong place, for messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel

from ohmformer.errors import Misplaced, models, suggest

NO_KEY = "is not a key here"
"""Beginning of the reason of a fault: a specification has no such key."""

DEEPEST = 8
"""Maximum number of keys in a path that is suggested."""

MOST = 3
"""Maximum number of paths in a suggestion."""

SPELLED_ALIKE = 0.85
"""Least similarity (that of difflib) of a key of the same table, so that it is suggested before one elsewhere."""


def former_names(cls: type[BaseModel]) -> dict[str, str]:
    """Former name -> current name of the renamed keys of a specification, those of its base classes included."""
    names: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        names |= vars(base).get("renamed", {})
    return names


def unknown_key(cls: type[BaseModel], key: str, known: list[str]) -> Misplaced:
    """The fault of a key that a specification does not have, with its new name if it was renamed.

    `known` are the keys that it has.
    """
    if new := former_names(cls).get(key):
        return Misplaced((key,), None, f"is now called {new}; rename it")
    if meant := getattr(cls, "synonyms", {}).get(key):
        return Misplaced((key,), None, f"is called {meant} here; write {meant}")
    return Misplaced((key,), None, f"{NO_KEY}; {suggest(key, known)}")


def with_place(fault: Misplaced, cls: type[BaseModel]) -> Misplaced:
    """The fault of an unknown key, with the paths at which a specification has a key of this name.

    Args:
        fault: any fault; it is returned as it is unless it is that of an unknown key that exists elsewhere.
        cls: the specification at which the keys of the fault begin.
    """
    if not fault.keys or not fault.reason.startswith(NO_KEY):
        return fault
    *parents, key = fault.keys
    _, known, rest = fault.reason.partition("known: ")
    if targets := _alias_targets(cls, fault.keys):
        reason = f"not all of {' and '.join(targets)} exist on this one; set those that do"
        return Misplaced(fault.keys, fault.value, f"{NO_KEY}, since {reason}")
    if fault.keys in _paths(cls).get(key, ()):
        reason = f"but one of another kind; take that kind, or a key of this one; {known}{rest}"
        return Misplaced(fault.keys, fault.value, f"{NO_KEY}, {reason}")
    paths = nearest_paths(cls, key, parents)
    if not paths:
        return fault
    here = [repr(near) for near in get_close_matches(key, re.findall(r"\w+", known + rest), n=1, cutoff=SPELLED_ALIKE)]
    meant = " or ".join([*here, *paths])
    return Misplaced(fault.keys, fault.value, f"{NO_KEY}; did you mean {meant}? {known}{rest}".rstrip())


def _alias_targets(cls: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The dotted paths that an alias at this path stands for; empty if it is no alias."""
    options = [cls]
    for part in path[:-1]:
        fields = [option.model_fields[part].annotation for option in options if part in option.model_fields]
        options = [model for annotation in fields for model in models(annotation)]
    for option in options:
        if targets := getattr(option, "aliases", {}).get(path[-1]):
            return [".".join((*path[:-1], target)) for target in targets]
    return []


def nearest_paths(cls: type[BaseModel], key: str, parents: Sequence[str] = ()) -> list[str]:
    """Dotted paths of the keys of this name, now or formerly, in a specification and the specifications in it.

    Args:
        cls: the specification.
        key: the key.
        parents: keys of the table in which the user wrote the key.

    Returns:
        The paths that share most of their beginning with `parents`, and of these the shortest; empty if there are
        none, or more than `MOST`.
    """
    paths = [path for path in _paths(cls).get(key, ()) if path[:-1] != tuple(parents) or path[-1] != key]
    ranks = {path: (-_shared(path, parents), len(path)) for path in paths}
    best = [".".join(path) for path in paths if ranks[path] == min(ranks.values())]
    return best if len(best) <= MOST else []


def _shared(path: Sequence[str], parents: Sequence[str]) -> int:
    """Number of keys at the beginning that two paths have in common."""
    equal = [one == other for one, other in zip(path, parents, strict=False)]
    return next((count for count, same in enumerate(equal) if not same), len(equal))


@cache
def _paths(cls: type[BaseModel]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Key, or former name of a key -> all its paths in a specification."""
    paths: dict[str, dict[tuple[str, ...], None]] = {}
    for key, path in _walk(cls, ()):
        paths.setdefault(key, {})[path] = None
    return {key: tuple(found) for key, found in paths.items()}


def _walk(cls: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(key or former name, path) of each key; keys behind an alias have the path of the alias."""
    if len(prefix) == DEEPEST:
        return
    aliases: dict[str, tuple[str, ...]] = getattr(cls, "aliases", {})
    for former, current in former_names(cls).items():
        yield former, (*prefix, *current.split("."))
    for name, annotation in _annotations(cls, aliases):
        yield name, (*prefix, name)
        for inner in models(annotation):
            yield from _walk(inner, (*prefix, name))


def _annotations(cls: type[BaseModel], aliases: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, Any]]:
    """(name, annotation) of each alias and field of a specification."""
    for alias, targets in aliases.items():
        options = [cls]
        for part in targets[0].split("."):
            fields = [option.model_fields[part].annotation for option in options if part in option.model_fields]
            options = [model for annotation in fields for model in models(annotation)]
        yield from ((alias, option) for option in options)
    for name, field in cls.model_fields.items():
        if name != "provenance":
            yield name, field.annotation
