"""The results file: what a study found, as one JSON document."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.study.keys import digest, versions
from ohmformer.study.spec import Study
from ohmformer.study.store import Result

SCHEMA = 1
"""Version of the format."""

Document = dict[str, Any]


def document(study: Study, keys: list[str], results: list[Result]) -> Document:
    """Study, keys and results of its points, in order, as plain JSON values."""
    points = [
        {"set": point.set, **({"label": point.label} if point.label else {}), **result}
        for point, result in zip(study.points, results, strict=True)
    ]
    return {"schema": SCHEMA, "study": study.name, "key": digest(keys), "versions": versions(), "points": points}


def to_json(content: Document) -> str:
    """A document as text; the scores of single samples (`hits`) stay in the store."""
    points = [{**point, "accuracy": _without_hits(point["accuracy"])} for point in content["points"]]
    return json.dumps({**content, "points": points}, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _without_hits(accuracy: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in accuracy.items() if name != "hits"}


def slug(name: str) -> str:
    """A name as a folder: 'K/V noise, 2' -> 'k-v-noise-2'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "study"


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        BadInput: it cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput(f"{file}: cannot be written ({error.strerror}); choose another place") from error
