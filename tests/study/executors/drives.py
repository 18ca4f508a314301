"""Drivers of studies on clusters: functions that tests call in processes of their own, and evaluations that die."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.study.executors.choose import chosen_workers
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half
from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study
from ohmformer.study.spec import Settings
from ohmformer.terminal.signals import Stopped
from tests.study.small import gamma, study

DASK, RAY = (
    pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")
    for package in ("distributed", "ray")
)
"""Marks of tests that need a package."""

FOLDER = "OHMFORMER_TEST_FOLDER"
"""Variable that names the folder in which evaluations leave notes."""

GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)


def dies_once_at_one(settings: Settings) -> PointResult:
    """An evaluation whose process is killed at one point, but not when that point is tried again."""
    note = Path(os.environ[FOLDER], "died")
    if gamma(settings) == 1.0 and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate_with_cost_half(settings)


def dies_at_one(settings: Settings) -> PointResult:
    """An evaluation that kills its process whenever it meets one point."""
    if gamma(settings) == 1.0:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate_with_cost_half(settings)


def full_at_one(settings: Settings) -> PointResult:
    """An evaluation that asks for more memory than any machine has at one point."""
    if gamma(settings) == 1.0:
        torch.empty(10**15)
    return evaluate_with_cost_half(settings)


def stays_at_one(settings: Settings) -> PointResult:
    """An evaluation that leaves the number of its process, and never ends at points from 1 on."""
    if gamma(settings) >= 1.0:
        Path(os.environ[FOLDER], f"{os.getpid()}.pid").touch()
        time.sleep(600)
    return evaluate_with_cost_half(settings)


def drive(cluster: str | None, out: str, evaluate: Any = evaluate_with_cost_half, workers: int | None = 2) -> None:
    """Run a study, and print what ends it."""
    pool = chosen_workers(cluster, workers)
    try:
        with closing(pool):
            run_study(study(*GAMMAS), Path(out), workers=pool, evaluate=evaluate)
    except (BadInput, Stopped) as error:
        print(f"{type(error).__name__}: {error}")


def rows(out: Path) -> dict[str, list[Any]]:
    """All rows of the store in a folder, table by table."""
    with closing(sqlite3.connect(out / "results.sqlite")) as database:
        tables = ("results", "points", "versions", "attempts")
        return {table: sorted(database.execute(f"SELECT * FROM {table}").fetchall()) for table in tables}
