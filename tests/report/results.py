"""Results documents to report on, without computing any."""

from __future__ import annotations

from typing import Any

import numpy as np

GAMMA = "hardware.attention.array.cell.write_noise.gamma"
SAMPLES = 200


def point(mean: float, *, label: str = "", recipe: str = "", gamma: float = 1.0, **settings: Any) -> dict[str, Any]:
    """A point with two chips, both right on the first samples."""
    right = round(mean * SAMPLES)
    hits = [2] * right + [0] * (SAMPLES - right)
    noise = {"kind": "sqrt_range", "gamma": gamma, "sigma": 0.2}
    return {
        "set": {path.replace("__", "."): value for path, value in settings.items()},
        **({"label": label} if label else {}),
        "accuracy": {
            "metric": "top1", "level": "array", "software": 0.9, "mean": float(np.sum(hits)) / 2 / SAMPLES,
            "ci95": [mean - 0.05, mean + 0.05], "chips": [mean, mean], "samples": SAMPLES, "hits": hits,
            **({"chosen": {"recipe": recipe}} if recipe else {}),
        },
        "capture": {"crossbars": {"x W": 3, "Q K": 1}, "digital": ["stem (Conv2d is not converted)"]},
        "write_noise": {"projection": None, "key": noise, "value": noise},
    }  # fmt: skip


def swept(means: dict[Any, dict[float, float]], *bars: dict[str, Any]) -> dict[str, Any]:
    """Clip -> gamma -> mean accuracy, as a document."""
    points = [
        point(mean, gamma=gamma, **{"mitigation.clip": dict(clip) if isinstance(clip, tuple) else clip, GAMMA: gamma})
        for clip, column in means.items()
        for gamma, mean in column.items()
    ]
    return {"schema": 1, "study": "a study", "key": "k", "versions": {}, "points": [*points, *bars]}


FIXED = (("alpha", 2.0), ("beta", 0.25))
DEMO = swept(
    {"none": {0: 0.9, 3: 0.8, 6: 0.4}, FIXED: {0: 0.7, 3: 0.8, 6: 0.6}, "calibrated": {0: 0.9, 3: 0.85, 6: 0.7}},
    point(0.85, label="in K only"),
    point(0.75, label="in V only"),
)
