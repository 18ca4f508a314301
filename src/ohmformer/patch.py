"""`Patch`: changes of nested tables, as a tree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from ohmformer.errors import BadInput, Misplaced
from ohmformer.wording import with_article


@dataclass(frozen=True)
class Patch:
    """Changes of a nested table: key -> its new value, or a patch of the table that the key holds.

    >>> patch = Patch.of({"rows": 64, "cell.g_max": "20 uS", "cell.g_min": "1 uS"})
    >>> patch.changes["rows"], patch.changes["cell"]
    (64, Patch(changes={'g_max': '20 uS', 'g_min': '1 uS'}))
    >>> patch.as_table()
    {'rows': 64, 'cell': {'g_max': '20 uS', 'g_min': '1 uS'}}

    A value that is itself a table replaces the whole key: `Patch.of({"cell": {"g_max": "20 uS"}})` gives `cell` a new
    table with one key, while the patch above keeps all other keys of `cell`. Changes below a key whose new value is not
    a table, such as the name of a library entry, start from that value.

    Attributes:
        changes: key -> its new value or its patch.
        start: what the key of this patch holds before the changes; None if that does not change.
    """

    changes: dict[str, Any]
    start: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Patch:
        """The patch that a table of dotted keys describes."""
        patch = cls({})
        for path, value in table.items():
            *parents, last = path.split(".")
            level = patch
            for parent in parents:
                level = level._below(parent)
            level.changes[last] = value
        return patch

    def _below(self, key: str) -> Patch:
        """The patch of the table that a key holds; a new one if the key has none."""
        inner = self.changes.get(key)
        if not isinstance(inner, Patch):
            inner = self.changes[key] = Patch.of(inner) if isinstance(inner, dict) else Patch({}, inner)
        return inner

    def as_table(self) -> dict[str, Any]:
        """The changes as nested tables."""
        return {key: value.as_table() if isinstance(value, Patch) else value for key, value in self.changes.items()}

    def without(self, keys: Collection[str]) -> Patch:
        """The patch without some of its keys."""
        return Patch({key: value for key, value in self.changes.items() if key not in keys}, self.start)

    def by_field(self, aliases: Mapping[str, tuple[str, ...]]) -> list[FieldChange]:
        """The changes of fields. Those of an alias come first, so that a key which sets one of its fields wins.

        Patches of different parts of a field become one, since the parts may fit only together.

        Args:
            aliases: alias -> the dotted paths of the fields that it sets.
        """
        depth = {alias: paths[0].count(".") for alias, paths in aliases.items()}
        found: dict[str, list[FieldChange]] = {}
        for key, change in sorted(self.changes.items(), key=lambda change: depth.get(change[0], inf)):
            for target in aliases.get(key, (key,)):
                name, *inner = target.split(".")
                below = Patch.of({".".join(inner): change}) if inner else change
                new = FieldChange(name, below, (((name, *inner), key, change),))
                earlier = found.setdefault(name, [])
                if earlier and earlier[-1].joins(new):
                    earlier[-1] = earlier[-1].joined(new)
                else:
                    earlier.append(new)
        return [change for changes in found.values() for change in changes]

    def joins(self, other: Patch) -> bool:
        """True if both patches can be one: they change no key both, except by patches that can be one."""
        return self.start is None and all(
            isinstance(change, Patch) and isinstance(below := other.changes[key], Patch) and change.joins(below)
            for key, change in self.changes.items()
            if key in other.changes
        )

    def joined(self, other: Patch) -> Patch:
        """Both patches in one."""
        both = dict(other.changes)
        for key, change in self.changes.items():
            both[key] = change.joined(both[key]) if key in both else change
        return Patch(both, other.start)

    def has(self, keys: Sequence[str]) -> bool:
        """True if a change is at this path, above it or below it."""
        change = self.changes.get(keys[0]) if keys else self
        return change is not None and (len(keys) < 2 or not isinstance(change, Patch) or change.has(keys[1:]))

    def only_change(self) -> tuple[tuple[str, ...], Any]:
        """Keys and value of the only change; ((), None) if there are several."""
        if len(self.changes) != 1:
            return (), None
        ((key, value),) = self.changes.items()
        if not isinstance(value, Patch):
            return (key,), value
        keys, inner = value.only_change()
        return ((key, *keys), inner) if keys else ((), None)


@dataclass(frozen=True)
class FieldChange:
    """A change of a field.

    Attributes:
        name: name of the field.
        change: its new value, or its patch.
        written: what the user wrote: path of the field, key (an alias or the field's own), and the change under it.
    """

    name: str
    change: Any
    written: tuple[tuple[tuple[str, ...], str, Any], ...]

    def joins(self, later: FieldChange) -> bool:
        """True if both are patches that can be one."""
        return isinstance(self.change, Patch) and isinstance(later.change, Patch) and later.change.joins(self.change)

    def joined(self, later: FieldChange) -> FieldChange:
        """Both changes in one."""
        return FieldChange(self.name, later.change.joined(self.change), self.written + later.written)

    def as_written(self, fault: Misplaced) -> Misplaced:
        """A fault in this change, under the key that the user wrote: the last one that has its path."""
        for target, key, change in reversed(self.written):
            inner = fault.keys[len(target) :]
            if fault.keys[: len(target)] == target and (
                len(self.written) == 1 or not isinstance(change, Patch) or change.has(inner)
            ):
                return fault.moved(target, (key,))
        return fault


def expanded(
    short: Mapping[str, Any],
    values: Mapping[str, Any],
    shorthands: Mapping[str, tuple[str, ...]],
    expand: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """The fields that shorthands change, and their new values.

    Args:
        short: the shorthands in use, and their values.
        values: the fields of the specification that is changed.
        shorthands: key -> the fields that it states.
        expand: replaces the shorthands of a table by fields.
    """
    fields = {field for key in short for field in shorthands[key]}
    table = expand({name: value for name, value in values.items() if name not in fields} | dict(short))
    return {name: table[name] for name in fields}


def unchangeable(spec: object, name: str) -> BadInput:
    """The error of an assignment to a field of a specification."""
    kind = with_article(type(spec).__name__)
    where = f"{type(spec).__name__}.{name}"
    return BadInput(f"{where}: {kind} never changes; make a changed copy with of.replace(..., {name!r}, VALUE)")
