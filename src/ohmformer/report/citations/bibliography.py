"""BibTeX files as entries by key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ohmformer import catalog
from ohmformer.errors import BadInput

FILES = ("sources.bib", "methods.bib")
_START = re.compile(r"^\s*@(\w+)\s*\{\s*([^\s,{}]+)\s*,", re.MULTILINE)
_FIELD = re.compile(r"(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_BRACES = re.compile(r"[{}]")


def bibliography(folders: Iterable[Path] = ()) -> dict[str, str]:
    """Key -> entry, from `sources.bib` of these folders, of user libraries and plug-ins, and of the package.

    The first file that has a key gives its entry.

    Raises:
        BadInput: a file cannot be read as text.
    """
    entries: dict[str, str] = {}
    for folder in (*folders, *catalog.roots()):
        for file in (folder / name for name in FILES):
            if os.path.isfile(file):
                entries = {**_entries(file), **entries}
    return entries


def _entries(file: Path) -> dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{file}: cannot be read ({error}); give BibTeX in UTF-8, or move the file away") from error
    starts = list(_START.finditer(text))
    ends = [*(start.start() for start in starts[1:]), len(text)]
    return {start.group(2): text[start.start() : end].strip() for start, end in zip(starts, ends, strict=True)}


def as_text(entry: str) -> str:
    """An entry as one line: authors, title, where, year, DOI or address."""
    fields = {name.lower(): " ".join(_BRACES.sub("", value).split()) for name, value in _FIELD.findall(entry)}
    kept = ("author", "title", "journal", "booktitle", "institution", "howpublished", "volume", "pages", "year", "doi")
    parts = [fields[name] for name in (*kept, "url", "note") if fields.get(name)]
    return ". ".join(part.rstrip(".") for part in parts) + "."
