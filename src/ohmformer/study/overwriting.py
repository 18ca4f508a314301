"""Finds values of a study that other values overwrite, so that they would have no effect. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

from ohmformer.hardware.spec import Attention

ATTENTION = "hardware.attention."
"""Beginning of the paths in which aliases occur."""


def targets(path: str) -> tuple[str, ...]:
    """The paths that a path sets: `attention.array.rows` sets those of key and value; any other path sets itself."""
    if path.startswith(ATTENTION):
        alias, dot, rest = path.removeprefix(ATTENTION).partition(".")
        return tuple(f"{ATTENTION}{field}{dot}{rest}" for field in Attention.aliases.get(alias, (alias,)))
    return (path,)


def overwritten(paths: Sequence[str]) -> tuple[str, str] | None:
    """The first path of which later paths leave nothing, and the last of these; None if there is none.

    A later path overwrites an equal one and those below it. The part after `rules.` is one key, dots included.

    Args:
        paths: dotted paths of a study, in the order in which they are set.
    """
    setter: dict[str, str] = {}
    found = None
    for path in reversed(paths):
        by = [next((setter[part] for part in _with_parents(target) if part in setter), "") for target in targets(path)]
        if all(by):
            found = path, by[0]
        for target in targets(path):
            setter.setdefault(target, path)
    return found


def overwrites(later: str, earlier: str) -> bool:
    """True if setting the later path leaves nothing of what the earlier path has set."""
    return overwritten([earlier, later]) is not None


def _with_parents(path: str) -> list[str]:
    """The path, and the paths of the tables that hold it."""
    parts = path.split(".")
    if parts[0] == "rules" and len(parts) > 1:
        return [path, "rules"]
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
