"""Shows a study again that has not changed: its points are not checked, nor is a model of the package loaded.

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
from ohmformer.study.results.spec import MeasuredPoint, PricedPoint, StudyCosts, StudyResults
from ohmformer.study.store.same_models import Sources, noted_models, same_models
from ohmformer.study.store.store import Store, StoredPoint
from ohmformer.study.store.usable import why_empty

if TYPE_CHECKING:
    from ohmformer.study.spec import CostSettings, Settings, Study
    from ohmformer.study.store.fingerprint import Fingerprint

FILES = {StudyResults: ("results.json", "figure.svg", "figure.png"), StudyCosts: ("results.json",)}
"""The files of a study that was shown: of one with accuracies, and of costs alone."""


@dataclass(frozen=True)
class ShownAgain:
    """Results as they were shown before.

    Attributes:
        results: with all points.
        files: names of the files of the folder that hold what they would hold if they were written again; empty if one
            of them does not.
    """

    results: StudyResults | StudyCosts
    files: tuple[str, ...] = ()


def note_shown(
    folder: Path,
    study: Study[Settings] | Study[CostSettings],
    results: StudyResults | StudyCosts,
    keys: Sequence[str],
    fingerprint: Fingerprint,
    before: Sources,
) -> None:
    """Note what has been shown, if it can be shown again without its model: where nothing is noted, all is read anew.

    Args:
        folder: of results.sqlite and of the files that were written.
        study: the accuracy half, or the cost half of a study of costs alone.
        results: what was shown.
        keys: of the accuracy of each point, or of its cost in a study of costs alone.
        fingerprint: of the study, the same before it was read and now.
        before: models and data outside the package, before they were loaded.
    """
    models = noted_models(study, before) if _as_computed(results) else None
    if models is None:
        return
    with suppress(BadInput), Store(folder / "results.sqlite") as store:
        listed = [point for point in store.points() if point.study == results.study]
        shown = [point.key if isinstance(results, StudyResults) else point.cost for point in listed]
        if shown != list(keys) or not _same_points(listed, results.points):
            return
        head = results.model_copy(update={"points": ()}).model_dump(by_alias=True)
        noted = {
            "fingerprint": fingerprint.digest,
            "costs_alone": isinstance(results, StudyCosts),
            "head": head,
            "models": models,
            "files": _digests(folder, type(results)),
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
    file = folder / "results.sqlite"
    if not file.is_file() or why_empty(file):
        return None
    study = fingerprint.name
    with suppress(BadInput), Store(file) as store:
        noted: dict[str, Any] = json.loads(store.shown(study) or "{}")
        if noted.get("fingerprint") != fingerprint.digest:
            return None
        listed = [point for point in store.points() if point.study == study]
        if {name: noted[name] for name in ("points", "rows")} != _digests_of(store, listed):
            return None
        if not same_models(noted["models"], noted["head"]["versions"]):
            return None
        document = StudyCosts if noted["costs_alone"] else StudyResults
        with no_garbage():
            points = _costs(store, listed) if noted["costs_alone"] else _points(store, listed)
        if points is None or store.damaged:
            return None
        head = document.model_validate(noted["head"])
        unchanged = noted["files"] == _digests(folder, document) and all(noted["files"].values())
        return ShownAgain(head.model_copy(update={"points": points}), FILES[document] if unchanged else ())
    return None


def _as_computed(results: StudyResults | StudyCosts) -> bool:
    """True if the results are those of the present code, and all of them can be read from rows."""
    if isinstance(results, StudyCosts):
        return all(point.accuracy is None for point in results.points)
    return not results.comparisons and all(point.old_code is None and not _compares(point) for point in results.points)


def _costs(store: Store, listed: Sequence[StoredPoint]) -> tuple[PricedPoint, ...] | None:
    """The listed points with their costs; None if one of them is missing."""
    points = []
    for point in listed:
        cost = store.cost(point.cost)
        if cost is None:
            return None
        points.append(PricedPoint.model_construct(None, set=dict(point.set), label=point.label, cost=cost))
    return tuple(points)


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


def _same_points(listed: Sequence[StoredPoint], points: Sequence[MeasuredPoint | PricedPoint]) -> bool:
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


def _digests(folder: Path, document: type[StudyResults | StudyCosts]) -> dict[str, str]:
    """SHA-256 of each file; empty for one that is not there or cannot be read."""
    found = {}
    for name in FILES[document]:
        found[name] = ""
        with suppress(OSError):
            found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found
