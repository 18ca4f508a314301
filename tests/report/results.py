"""Results documents to report on, without computing any."""

from __future__ import annotations

from typing import Any

import numpy as np

from ohmformer.study.results.spec import MeasuredPoint, PointResult, StudyResults

GAMMA = "hardware.attention.array.cell.write_noise.gamma"
SAMPLES = 200


def point(mean: float, *, label: str = "", recipe: str = "", gamma: float = 1.0, **settings: Any) -> MeasuredPoint:
    """A point with two chips, both right on the first samples."""
    right = round(mean * SAMPLES)
    hits = [2] * right + [0] * (SAMPLES - right)
    noise = {"kind": "sqrt_range", "gamma": gamma, "sigma": 0.2}
    return MeasuredPoint.model_validate({
        "set": {path.replace("__", "."): value for path, value in settings.items()},
        "label": label,
        "accuracy": {
            "metric": "top1", "level": "array", "software": 0.9, "mean": float(np.sum(hits)) / 2 / SAMPLES,
            "ci95": [max(mean - 0.05, 0.0), min(mean + 0.05, 1.0)],
            "chips": [mean, mean], "samples": SAMPLES, "hits": hits,
            **({"chosen": {"recipe": recipe}} if recipe else {}),
        },
        "capture": {"crossbars": {"x W": 3, "Q K": 1}, "digital": ["stem (Conv2d is not converted)"]},
        "write_noise": {"projection": None, "key": noise, "value": noise},
    })  # fmt: skip


def answer(gamma: float = 1.0, *notes: str) -> PointResult:
    """A result as the store holds it."""
    found = point(0.5, gamma=gamma)
    return PointResult(accuracy=found.accuracy, capture=found.capture, write_noise=found.write_noise, notes=notes)


def changed(found: MeasuredPoint, path: str, value: Any) -> MeasuredPoint:
    """A point with the JSON value at a dotted path replaced."""
    content = found.model_dump(by_alias=True)
    *parents, last = path.split(".")
    table = content
    for parent in parents:
        table = table[parent]
    table[last] = value
    return MeasuredPoint.model_validate(content)


def study(*points: MeasuredPoint, name: str = "a study", notes: tuple[str, ...] = ()) -> StudyResults:
    return StudyResults(schema=1, study=name, key="k", versions={}, points=points, notes=notes)


def swept(means: dict[Any, dict[float, float]], *bars: MeasuredPoint) -> StudyResults:
    """Clip -> gamma -> mean accuracy, as a document."""
    points = [
        point(mean, gamma=gamma, **{"mitigation.clip": dict(clip) if isinstance(clip, tuple) else clip, GAMMA: gamma})
        for clip, column in means.items()
        for gamma, mean in column.items()
    ]
    return study(*points, *bars)


FIXED = (("alpha", 2.0), ("beta", 0.25))
DEMO = swept(
    {"none": {0: 0.9, 3: 0.8, 6: 0.4}, FIXED: {0: 0.7, 3: 0.8, 6: 0.6}, "calibrated": {0: 0.9, 3: 0.85, 6: 0.7}},
    point(0.85, label="in K only"),
    point(0.75, label="in V only"),
)
