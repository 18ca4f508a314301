"""The results file: what a study found, as one JSON document."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from ohmformer.study.noise_labels import filled, static_note
from ohmformer.study.plain import escaped
from ohmformer.study.result_key import digest, versions
from ohmformer.study.result_spec import check_result
from ohmformer.study.spec import Point, Settings, Study
from ohmformer.study.store import Result

SCHEMA = 1
"""Version of the format."""

Document = dict[str, Any]


def document(study: Study[Settings], keys: list[str], results: list[Result]) -> Document:
    """Study, keys and results of its points, in order, as plain JSON values.

    Raises:
        BadInput: a result is none, such as one that was stored and damaged.
    """
    for key, result in zip(keys, results, strict=True):
        check_result(key, result)
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
    """A document as a JSON text, which no terminal takes for anything but text.

    The scores of single samples (`hits`) stay in the store.
    """
    if "points" in content:
        points = [
            {**point, "accuracy": _without_hits(point["accuracy"])} if "accuracy" in point else point
            for point in content["points"]
        ]
        content = {**content, "points": points}
    return escaped(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str)) + "\n"


def _without_hits(accuracy: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in accuracy.items() if name != "hits"}


LONGEST_SLUG = 80
"""Characters of a folder's name, without the digits that tell long names apart."""


def slug(name: str) -> str:
    """A name as a folder: 'K/V noise, 2' -> 'k-v-noise-2'.

    Letters that a slug cannot hold, or more than it can hold, become digits of a hash: names that differ in them have
    folders that differ.
    """
    plain = unicodedata.normalize("NFC", name)
    found = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    lost = any(letter.isalnum() and not letter.isascii() for letter in plain)
    if found and not lost and len(found) <= LONGEST_SLUG:
        return found
    return "-".join([found[:LONGEST_SLUG].strip("-") or "study", digest(plain)[:8]])
