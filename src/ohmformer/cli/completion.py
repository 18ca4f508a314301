"""What a shell offers after Tab: names of the library, and files and folders that lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from glob import escape, glob

from ohmformer.errors import BadInput

STUDIES = ("study", "costs")


def study_names(incomplete: str) -> list[str]:
    """Studies of the library, .toml files and folders that begin with what was typed."""
    return _offered(STUDIES, incomplete)


def clusters(incomplete: str) -> list[str]:
    """Values of `--cluster` that begin with what was typed; an address is the user's own."""
    return [name for name in ("local", "ray") if name.startswith(incomplete)]


def entry_names(incomplete: str) -> list[str]:
    """Entries of the library of all kinds, .toml files and folders that begin with what was typed."""
    from ohmformer.catalog import KINDS

    return _offered(KINDS, incomplete)


def _offered(kinds: Iterable[str], incomplete: str) -> list[str]:
    from ohmformer.catalog import entries

    names: set[str] = set()
    with suppress(BadInput):  # a wrong OHMFORMER_LIBRARY is reported by the command itself
        names = {name for kind in kinds for name in entries(kind) if name.startswith(incomplete)}
    found = glob(f"{escape(incomplete)}*")
    files = [file for file in found if file.endswith(".toml")]
    return sorted(names) + sorted([*files, *(f"{folder}/" for folder in found if os.path.isdir(folder))])
