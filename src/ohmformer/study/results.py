"""The results file: what a study found, as one JSON document."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.study.noise_labels import filled, static_note
from ohmformer.study.result_key import digest, versions
from ohmformer.study.spec import Point, Settings, Study
from ohmformer.study.store import Result

SCHEMA = 1
"""Version of the format."""

Document = dict[str, Any]


def document(study: Study[Settings], keys: list[str], results: list[Result]) -> Document:
    """Study, keys and results of its points, in order, as plain JSON values."""
    points = [_point(point, result) for point, result in zip(study.points, results, strict=True)]
    notes = list(dict.fromkeys(filter(None, (static_note(point.settings.hardware) for point in study.points))))
    return {
        "schema": SCHEMA, "study": study.name, "key": digest(keys), "versions": versions(study), "notes": notes,
        "points": points,
    }  # fmt: skip


def _point(point: Point[Settings], result: Result) -> Document:
    label = filled(point.label, point.settings.hardware)
    return {"set": point.set, **({"label": label} if label else {}), **result}


def to_json(content: Document) -> str:
    """A document as text; the scores of single samples (`hits`) stay in the store."""
    points = [
        {**point, "accuracy": _without_hits(point["accuracy"])} if "accuracy" in point else point
        for point in content["points"]
    ]
    return json.dumps({**content, "points": points}, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _without_hits(accuracy: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in accuracy.items() if name != "hits"}


def slug(name: str) -> str:
    """A name as a folder: 'K/V noise, 2' -> 'k-v-noise-2'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "study"


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out") from error


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
        raise BadInput(f"{file}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
