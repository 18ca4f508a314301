"""A search whose accuracies are a formula, so that all designs can be tried, and a driver that tests can stop."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ohmformer.study.results.search import SearchResults
from ohmformer.study.results.spec import PointResult
from ohmformer.study.search.request import Request, read_request
from ohmformer.study.search.search import searched
from ohmformer.study.spec import Settings
from tests.report.results import answer
from tests.study.requirements import build
from tests.study.small import GAMMA, LOG

SAMPLES, CHIPS = 200, 2
SIZES = ["hardware.projection.array.size", "hardware.attention.array.size"]
SLICES = "hardware.attention.array.bits_per_cell"
GAMMAS = [0.0, 1.0, 2.0, 4.0]

CHOICES: list[dict[str, Any]] = [
    {"name": "size", "paths": SIZES, "values": [32, 64, 128]},
    {"name": "slices", "path": SLICES, "values": [1, 2]},
    {"name": "gamma", "path": GAMMA, "values": GAMMAS},
]
"""24 designs: square arrays, whose rows and columns move together, slices, and noise."""


def document(*, choose: Any = CHOICES, search: Any = None, **changes: Any) -> dict[str, Any]:
    search = {"objectives": ["loss", "energy", "area"], "trials": 24, "choose": choose, **(search or {})}
    return build.document(**{"trials": {"chips": CHIPS}, "search": search, **changes})


def wrong(settings: Settings) -> int:
    """Number of wrong samples: it rises with noise and size, and falls with slices; ideal cells gain by chance."""
    array = settings.hardware.attention.key.array  # type: ignore[attr-defined]
    gamma = array.cell.write_noise.gamma
    return round(gamma * (4 if array.bits_per_cell == 2 else 2) + gamma * array.rows / 32)


def formula(settings: Settings) -> PointResult:
    """The result of the formula."""
    if log := os.environ.get(LOG):
        with open(log, "a") as file:
            file.write(f"{settings.hardware.attention.key.array.rows} {wrong(settings)}\n")  # type: ignore[attr-defined]
    mean = 1 - wrong(settings) / SAMPLES
    accuracy = answer().accuracy.model_dump(by_alias=True)
    hits = [0 if sample < wrong(settings) else CHIPS for sample in range(SAMPLES)]
    accuracy |= {"software": 1.0, "mean": mean, "ci95": (mean, mean), "chips": (mean,) * CHIPS, "samples": SAMPLES}
    return PointResult.model_validate({**answer().model_dump(by_alias=True), "accuracy": {**accuracy, "hits": hits}})


def request(**options: Any) -> Request:
    return read_request(document(**options))


def found(folder: Path, **options: Any) -> SearchResults:
    evaluate = options.pop("evaluate", formula)
    asked = {name: options.pop(name) for name in ("workers", "fresh") if name in options}
    return searched(request(**options), folder, progress=False, evaluate=evaluate, **asked)


def slow(settings: Settings) -> PointResult:
    """Every point takes a moment."""
    time.sleep(0.1)
    return formula(settings)


KILLED: dict[str, Any] = {"search": {"trials": 20, "batch": 3, "seed": 5}}
"""The search that tests kill."""


def drive(folder: str) -> None:
    """Search slowly."""
    found(Path(folder), evaluate=slow, **KILLED)
