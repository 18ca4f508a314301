"""The results file: the results of a study as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from ohmformer.hardware.use import idle_notes
from ohmformer.study.noise_labels import filled, static_note
from ohmformer.study.results.collection import no_garbage
from ohmformer.study.results.key import digest, versions
from ohmformer.study.results.spec import Document, MeasuredPoint, PointResult, StudyResults
from ohmformer.study.spec import Settings, Study
from ohmformer.terminal.plain import escaped

SCHEMA: Final = 1
"""Version of the format."""

_SCORES = {"points": {"__all__": {"accuracy": {"score_sums"}}}}
_KEPT_IN_STORE: Any = {**_SCORES, "comparisons": {"__all__": _SCORES}}
"""Fields with one score per sample, which only the store keeps."""


def study_results(study: Study[Settings], keys: Sequence[str], results: Sequence[PointResult]) -> StudyResults:
    """The results of a study's points as one document.

    Args:
        study: the study.
        keys: the key of each point, in order.
        results: the result of each point, in order.
    """
    with no_garbage():
        points = tuple(
            measured_point(point.set, filled(point.label, point.settings.hardware), result)
            for point, result in zip(study.points, results, strict=True)
        )
        notes = dict.fromkeys(note for point in study.points for note in _hardware_notes(point.settings))
    return StudyResults(
        schema=SCHEMA,
        study=study.name,
        key=digest(list(keys)),
        versions=versions(study),
        notes=tuple(notes),
        points=points,
    )


def measured_point(values: dict[str, Any], label: str, result: PointResult) -> MeasuredPoint:
    """A point with its result, which was checked when it was made."""
    return MeasuredPoint.model_construct(set=values, label=label, **dict(result))


def _hardware_notes(settings: Settings) -> tuple[str, ...]:
    """What readers of a result must know of the hardware."""
    simulation, static = settings.simulation, static_note(settings.hardware)
    idle = idle_notes(settings.hardware, settings.rules, simulation.hours, timeline=simulation.on_timeline)
    return (*([static] if static else []), *idle)


def to_json(document: Document) -> str:
    """A document as JSON text without characters that control a terminal.

    The scores of single samples (`hits`) are left out; the store keeps them.
    """
    with no_garbage():
        content = document.model_dump(by_alias=True, exclude=_KEPT_IN_STORE)
        return escaped(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str)) + "\n"
