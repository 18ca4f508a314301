"""The code that computed a stored result, for readers, and that of this process beside that of the driver."""

from __future__ import annotations

import json
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.study.results.key import code_version
from ohmformer.study.results.spec import OldCode
from ohmformer.study.spec import Settings

DIGITS = 8
"""Digits of the digest of our own code that are shown."""


_same: set[str] = set()
"""Versions that are known to be those of this process."""


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


def check_code(settings: Settings, version: str) -> None:
    """Refuse to compute a point in a process whose code is not that of the driver, such as on another machine.

    Args:
        settings: of the point.
        version: the code of its key (see `results.key.Keys`).

    Raises:
        BadInput: the code differs.
    """
    if version in _same:
        return
    if (here := code_version(settings)) != version:
        raise BadInput(
            f"the code of a worker ({code_in_words(here)}) is not that of the driver ({code_in_words(version)}); "
            "install the same versions for all workers"
        )
    _same.add(version)
