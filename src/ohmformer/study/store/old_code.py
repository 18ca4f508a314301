"""The code that computed a stored result, for readers."""

from __future__ import annotations

import json
from typing import Any

from ohmformer.study.results.spec import OldCode

DIGITS = 8
"""Digits of the digest of our own code that are shown."""


def old_code(version: str) -> OldCode:
    """The version of a stored result (see `results.key.Keys`)."""
    content: dict[str, Any] = json.loads(version)
    return OldCode(code=content["code"][:DIGITS], versions=content["versions"])


def words(code: OldCode) -> str:
    """'ohmformer 0.1.0, torch 2.13.0, code 3f2a9c01'."""
    return ", ".join([*(f"{name} {number}" for name, number in code.versions.items()), f"code {code.code}"])


def code_in_words(version: str) -> str:
    """The version of a stored result in words."""
    return words(old_code(version))
