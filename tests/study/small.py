"""A model and a task so small that a point takes a moment, and a driver that tests can stop."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.study.read_study import make_study
from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study
from ohmformer.study.spec import Settings, Study
from ohmformer.tasks.task import Task
from tests.report.results import answer

LOG = "OHMFORMER_TEST_LOG"
GAMMA = "hardware.attention.array.cell.write_noise.gamma"


def model() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionTransformer(size=8, patch=4, width=16, depth=1, heads=2, classes=3)


def model_with_one_head() -> torch.nn.Module:
    """The very same weights; only a plain attribute says that they are used otherwise."""
    other = model()
    for block in other.blocks:
        block.attn.heads = 1
    return other


def task() -> Task:
    """Labels are what the model says, so that its own accuracy is 1."""
    images = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        labels = model().eval()(images).argmax(dim=1)
    return Task("small", images[:16].clone(), labels[:16].clone(), images[16:].clone(), labels[16:].clone())


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "model": {"source": "python:tests.study.small:model"},
        "task": {"source": "python:tests.study.small:task"},
        "hardware": {"base": "clipformer_tcad_2024"},
        "trials": {"chips": 2},
        "simulation": {"batch": 5},
        **changes,
    }


def study(*gammas: float, **changes: Any) -> Study:
    return make_study(document(sweep={GAMMA: list(gammas)}, **changes))


def gamma(settings: Settings) -> float:
    noise = settings.hardware.canonical()["attention"]["key"]["array"]["cell"]["write_noise"]
    return float(noise["gamma"])


def note(settings: Settings) -> PointResult:
    """An evaluation that only notes that it ran: a line with gamma in the file that the environment names."""
    with open(os.environ[LOG], "a") as log:
        log.write(f"{gamma(settings):g}\n")
    return answer(gamma(settings))


def gammas(results: list[PointResult]) -> list[float]:
    """The gamma of each result."""
    return [result.write_noise.key.gamma for result in results if result.write_noise.key]


def note_slowly(settings: Settings) -> PointResult:
    """Points above gamma 2 take forever."""
    if gamma(settings) > 2:
        time.sleep(600)
    return note(settings)


def drive(out: str, workers: int) -> None:
    """Run six points of which the last ones never finish."""
    run_study(study(0, 1, 2, 3, 4, 5), Path(out), workers=workers, evaluate=note_slowly)


def die_at_three(settings: Settings) -> PointResult:
    """One point ends its process, as the system does with what takes too much memory."""
    if gamma(settings) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return note(settings)
