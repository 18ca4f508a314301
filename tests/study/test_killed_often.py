"""A sweep of 200 points that is killed ten times, driver or worker, gives the store of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study
from ohmformer.study.spec import Settings
from tests.cli.drivers import stopped_if_it_fails
from tests.report.results import answer
from tests.study.processes import ROOT, wait_until
from tests.study.small import gamma, study

POINTS, KILLS = 200, 10


def evaluate(settings: Settings) -> PointResult:
    time.sleep(0.01)
    return answer(gamma(settings))


def drive(out: str, workers: int) -> None:
    run_study(study(*range(POINTS)), Path(out), workers=workers, evaluate=evaluate)


def stored(out: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{out / 'results.sqlite'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT COUNT(*) FROM results").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def rows(out: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(out / "results.sqlite")) as database:
        tables = ("results", "points", "versions", "attempts")
        return {table: sorted(database.execute(f"SELECT * FROM {table}").fetchall()) for table in tables}


def children(process: int) -> Iterator[int]:
    for each in Path("/proc").glob("[0-9]*"):
        try:
            fields = (each / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == process and b"spawn_main" in (each / "cmdline").read_bytes():
                yield int(each.name)
        except OSError:
            continue


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers by /proc")
def test_a_sweep_killed_ten_times_gives_the_store_of_an_undisturbed_run(tmp_path: Path) -> None:
    draw, out = random.Random(0), tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    drives = [f"from {__name__} import drive; drive({str(out)!r}, {workers})" for workers in (1, 2)]
    for kill in range(KILLS):
        command = [sys.executable, "-c", drives[kill % 2]]
        goal = stored(out) + draw.randint(1, POINTS // KILLS - 4)
        with stopped_if_it_fails(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        ) as driver:
            assert wait_until(lambda goal=goal: stored(out) >= goal, 600)
            if kill % 2:  # a worker first: the driver goes on without it
                for worker in list(children(driver.pid))[:1]:
                    os.kill(worker, signal.SIGKILL)
                wait_until(lambda goal=goal: stored(out) > goal + 1, 20)
            driver.kill()
            driver.communicate(timeout=60)
    assert stored(out) < POINTS, "nothing was left to resume"
    subprocess.run([sys.executable, "-c", drives[1]], env=environment, check=True)
    run_study(study(*range(POINTS)), tmp_path / "undisturbed", evaluate=lambda settings: answer(gamma(settings)))
    assert rows(out) == rows(tmp_path / "undisturbed")
