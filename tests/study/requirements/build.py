"""A study whose evaluations are a formula, so that every limit is known, and a driver that tests can stop."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import torch

from ohmformer.array.spec import Crossbar
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.study.requirements.catalog import QUANTITIES
from ohmformer.study.requirements.require import Request, answered, checked_request
from ohmformer.study.results.requirements import Requirements
from ohmformer.study.results.spec import PointResult
from ohmformer.study.spec import Settings
from ohmformer.tasks.task import Task
from tests.report.results import answer
from tests.study.small import LOG, model

SAMPLES, CHIPS = 200, 4
FURTHER = 7
"""Seed of studies in which drift, decay, verification and levels count, too."""
WRITE, READ = QUANTITIES["write_noise"], QUANTITIES["read_noise"]
__all__ = ["VisionTransformer", "model"]


def task() -> Task:
    """Labels are what the model says, so that the accuracy of the software is 1."""
    images = torch.randn(SAMPLES + 8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        labels = model().eval()(images).argmax(dim=1)
    return Task("formula", images[:SAMPLES], labels[:SAMPLES], images[SAMPLES:], labels[SAMPLES:])


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "formula",
        "model": {"source": "python:tests.study.requirements.build:model"},
        "task": {"source": "python:tests.study.requirements.build:task"},
        "hardware": {"base": "clipformer_tcad_2024"},
        "trials": {"chips": CHIPS},
        **changes,
    }


def loss_at(write: float, read: float) -> float:
    """Share of the samples that are wrong: it rises with both noises, as far as 25 %."""
    return 0.25 * (1 - math.exp(-((write / 0.3) ** 2 + (read / 0.15) ** 2)))


def further_loss(array: Crossbar) -> float:
    """Share of the samples that are wrong through drift, decay, wear, loose verification and few levels."""
    drift, tau, levels = (QUANTITIES[name].value(array) for name in ("drift", "retention", "levels"))
    tolerance = QUANTITIES["verify_tolerance"].value(array)
    decay = array.age / tau if tau else 0.0
    stuck = sum(chance for _, chance in array.aged_cell.faults.states())
    return 0.2 * (1 - math.exp(-(10 * drift + decay + 2 * tolerance + 5 * stuck + 1 / (levels - 1) ** 2)))


def noises(settings: Settings) -> tuple[float, float]:
    """Write noise and read noise of the cells of K."""
    array = settings.hardware.attention.key.array  # type: ignore[attr-defined]
    return WRITE.value(array), READ.value(array)


def formula(settings: Settings) -> PointResult:
    """Chips differ by one sample more or less."""
    if log := os.environ.get(LOG):
        array = settings.hardware.attention.key.array  # type: ignore[attr-defined]
        lasting = (QUANTITIES[name].value(array) for name in ("retention", "endurance"))
        with open(log, "a") as file:
            file.write("{:.4g} {:.4g} {:.4g} {:.4g}\n".format(*noises(settings), *lasting))
    share = loss_at(*noises(settings))
    if settings.seed == FURTHER:
        share += further_loss(settings.hardware.attention.key.array)  # type: ignore[attr-defined]
    wrong = round(SAMPLES * share)
    by_chip = [min(SAMPLES, max(0, wrong + way)) for way in (-1, 1, 0, 0)]
    hits = [sum(sample >= count for count in by_chip) for sample in range(SAMPLES)]
    accuracy = answer().accuracy.model_dump(by_alias=True)
    chips = [1 - count / SAMPLES for count in by_chip]
    mean = sum(chips) / CHIPS
    accuracy |= {
        "software": 1.0, "mean": mean, "ci95": (mean, mean), "chips": tuple(chips), "samples": SAMPLES, "hits": hits,
    }  # fmt: skip
    return PointResult.model_validate({**answer().model_dump(by_alias=True), "accuracy": accuracy})


def request(loss: str = "5 %", **options: Any) -> Request:
    defaults = {"quantities": ["write_noise"], "pair": None, "on": "all", "kinds": None, "step": 0.05}
    return checked_request(options.pop("study", document()), loss, **{**defaults, "grid": 4, "sets": (), **options})


def searched(folder: Path, loss: str = "5 %", **options: Any) -> Requirements:
    return answered(request(loss, **options), folder, progress=False, evaluate=formula)


def slow(settings: Settings) -> PointResult:
    """Every point takes a moment."""
    time.sleep(0.15)
    return formula(settings)


WEAR = {"kind": "weibull", "stuck_at_g_max": 0.5, "shape": 1.5}
IN_USE = {
    "hardware": {"base": "clipformer_tcad_2024", "attention.array.cell.wear": WEAR},
    "simulation": {"hours": 100},
    "cost": {"rate": "20 Hz"},
}
"""Sections of a study with hours of use."""
TIMED = {"simulation": {"age": "timeline"}}
"""Section of a study whose tokens have the ages of its timeline."""
PAIRS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "plain": (["write_noise", "read_noise"], {}),
    "hours": (["write_noise", "endurance"], {**IN_USE, "seed": FURTHER}),
    "timeline": (["write_noise", "retention"], {**TIMED, "seed": FURTHER}),
}
"""Searches of two quantities that tests stop: what is searched, and in which study."""

KILLED_STEP = 0.2
"""Relative distance of neighboring values in these searches."""


def drive(folder: str, which: str) -> None:
    """Search two quantities slowly."""
    quantities, changes = PAIRS[which]
    asked = request("15 %", quantities=quantities, study=document(**changes), step=KILLED_STEP)
    answered(asked, Path(folder), progress=False, evaluate=slow)
