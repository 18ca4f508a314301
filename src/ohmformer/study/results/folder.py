"""The folder that a study's results go to. Free of torch."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ohmformer.study.results.key import digest

RUNS = Path("ohmformer-runs")
"""Folder of all studies, below the current one."""

LONGEST_SLUG = 80
"""Most characters of a folder's name, without the digits that tell long names apart."""


def default_folder(name: str) -> Path:
    """The folder of a study, by the study's name, where the user names no other one."""
    return RUNS / slug(name)


def slug(name: str) -> str:
    """The name of a study as the name of a folder: 'K/V noise, 2' -> 'k-v-noise-2'.

    Where letters have no place in a slug, or there are too many, digits of a hash are added: names that differ in such
    letters have different folders.
    """
    plain = unicodedata.normalize("NFC", name)
    short = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    lost = any(letter.isalnum() and not letter.isascii() for letter in plain)
    if short and not lost and len(short) <= LONGEST_SLUG:
        return short
    return "-".join([short[:LONGEST_SLUG].strip("-") or "study", digest(plain)[:8]])
