"""Shows a study again that has not changed: neither its points are checked nor its model and data loaded.

When a study has been shown, the store notes its fingerprint, which points it has, and everything of the results beside
them. If the fingerprint is the same later, so are all keys; if the rows have the same checksums, so are all results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmformer.errors import BadInput
from ohmformer.study.results.collection import no_garbage
from ohmformer.study.results.key import digest
from ohmformer.study.results.spec import MeasuredPoint, StudyResults
from ohmformer.study.store.store import Store, StoredPoint

if TYPE_CHECKING:
    from ohmformer.study.spec import Settings, Study
    from ohmformer.study.store.fingerprint import Fingerprint

BUNDLED = "bundled:"
"""Beginning of the sources of models and data that are part of the package."""

FILES = ("results.json", "figure.svg", "figure.png")
"""The files of a study that was shown."""


@dataclass(frozen=True)
class ShownAgain:
    """Results as they were shown before.

    Attributes:
        results: with all points.
        files: names of the files of the folder that hold what they would hold if they were written again; empty if one
            of them does not.
    """

    results: StudyResults
    files: tuple[str, ...] = ()


def note_shown(
    folder: Path, study: Study[Settings], results: StudyResults, keys: Sequence[str], fingerprint: Fingerprint
) -> None:
    """Note what has been shown, if it can be shown again without its model: where nothing is noted, all is read anew.

    Args:
        folder: of results.sqlite and of the files that were written.
        study: the accuracy half.
        results: what was shown.
        keys: of the accuracy of each point.
        fingerprint: of the study, the same before it was read and now.
    """
    alike = all(point.old_code is None and not _compares(point) for point in results.points)
    sources = {source for point in study.points for source in (point.settings.model.source, point.settings.task.source)}
    if not alike or results.comparisons or not all(source.startswith(BUNDLED) for source in sources):
        return
    with suppress(BadInput), Store(folder / "results.sqlite") as store:
        listed = [point for point in store.points() if point.study == results.study]
        if [point.key for point in listed] != list(keys) or not _same_points(listed, results.points):
            return
        head = results.model_copy(update={"points": ()}).model_dump(by_alias=True)
        noted = {
            "fingerprint": fingerprint.digest,
            "head": head,
            "files": _digests(folder),
            **_digests_of(store, listed),
        }
        store.note_shown(results.study, json.dumps(noted, default=str))


def shown_again(folder: Path, fingerprint: Fingerprint) -> ShownAgain | None:
    """The results of a study that was shown before and has not changed.

    Args:
        folder: of results.sqlite.
        fingerprint: of the study now.

    Returns:
        The results; None if anything has changed, or a row is missing or damaged.
    """
    if not (folder / "results.sqlite").is_file():
        return None
    study = fingerprint.name
    with suppress(BadInput), Store(folder / "results.sqlite") as store:
        noted: dict[str, Any] = json.loads(store.shown(study) or "{}")
        if noted.get("fingerprint") != fingerprint.digest:
            return None
        listed = [point for point in store.points() if point.study == study]
        if {name: noted[name] for name in ("points", "rows")} != _digests_of(store, listed):
            return None
        with no_garbage():
            points = _points(store, listed)
        if points is None or store.damaged:
            return None
        head = StudyResults.model_validate(noted["head"])
        files = FILES if noted["files"] == _digests(folder) and all(noted["files"].values()) else ()
        return ShownAgain(head.model_copy(update={"points": points}), files)
    return None


def _points(store: Store, listed: Sequence[StoredPoint]) -> tuple[MeasuredPoint, ...] | None:
    """The listed points with accuracy and cost; None if one of them is missing."""
    found, points = store.get(point.key for point in listed), []
    for point in listed:
        cost = store.cost(point.cost) if point.cost else None
        if point.key not in found or (point.cost and cost is None):
            return None
        values = {"set": dict(point.set), "label": point.label, **dict(found[point.key]), "cost": cost}
        points.append(MeasuredPoint.model_construct(None, **values))
    return tuple(points)


def _same_points(listed: Sequence[StoredPoint], points: Sequence[MeasuredPoint]) -> bool:
    """True if the store lists the points with the values, the labels and the costs that were shown."""
    return len(listed) == len(points) and all(
        (stored.set, stored.label, bool(stored.cost)) == (point.set, point.label, point.cost is not None)
        for stored, point in zip(listed, points, strict=True)
    )


def _compares(point: MeasuredPoint) -> bool:
    return point.accuracy.chosen is not None and point.accuracy.chosen.comparison is not None


def _digests_of(store: Store, listed: Sequence[StoredPoint]) -> dict[str, str]:
    """Digests of what the store lists, and of the rows that it has for it."""
    keys = [key for point in listed for key in (point.key, point.cost) if key]
    return {"points": digest([point.texts for point in listed]), "rows": digest(store.checksums(keys))}


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file; empty for one that is not there or cannot be read."""
    found = {}
    for name in FILES:
        found[name] = ""
        with suppress(OSError):
            found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found
