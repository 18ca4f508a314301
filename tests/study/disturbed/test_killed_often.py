"""A sweep of 200 points that is killed again and again, driver or worker, gives the store of an undisturbed run."""

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

import pytest

from ohmformer.study.executors.choose import chosen_workers
from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study
from ohmformer.study.spec import Settings
from tests.cli.drivers import stopped_if_it_fails
from tests.report.results import answer
from tests.study.executors.drives import DASK, RAY, rows
from tests.study.processes import PATHS, wait_until
from tests.study.small import gamma, study

POINTS = 200


def evaluate(settings: Settings) -> PointResult:
    time.sleep(0.01)
    return answer(gamma(settings))


def drive(out: str, cluster: str | None, workers: int) -> None:
    with closing(chosen_workers(cluster, workers)) as pool:
        run_study(study(*range(POINTS)), Path(out), workers=pool, evaluate=evaluate)


def stored(out: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{out / 'results.sqlite'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT COUNT(*) FROM results").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def workers_of(driver: int) -> Iterator[int]:
    """Processes of a driver's session that compute points: spawned ones, or actors of Ray."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            session = int((each / "stat").read_text().rpartition(")")[2].split()[3])
            command = (each / "cmdline").read_bytes()
        except OSError:
            continue
        if session == driver and (b"spawn_main" in command or b"ray::Seat" in command):
            yield int(each.name)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers by /proc")
@pytest.mark.parametrize(
    ("cluster", "kills"), [(None, 10), pytest.param("local", 2, marks=DASK), pytest.param("ray", 2, marks=RAY)]
)
def test_a_sweep_killed_often_gives_the_store_of_an_undisturbed_run(
    cluster: str | None, kills: int, tmp_path: Path
) -> None:
    draw, out = random.Random(0), tmp_path / "killed"
    environment = {**os.environ, **PATHS}
    drives = [f"from {__name__} import drive; drive({str(out)!r}, {cluster!r}, {workers})" for workers in (1, 2)]
    for kill in range(kills):
        command = [sys.executable, "-c", drives[kill % 2]]
        goal = stored(out) + draw.randint(1, POINTS // kills - 4)
        with stopped_if_it_fails(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        ) as driver:
            assert wait_until(lambda goal=goal: stored(out) >= goal, 600)
            if kill % 2:  # a worker first: the driver goes on without it
                os.kill(next(workers_of(driver.pid)), signal.SIGKILL)
                wait_until(lambda goal=goal: stored(out) > goal + 1, 20)
            driver.kill()
            driver.communicate(timeout=60)
    assert stored(out) < POINTS, "nothing was left to resume"
    subprocess.run([sys.executable, "-c", drives[1]], env=environment, check=True)
    run_study(study(*range(POINTS)), tmp_path / "undisturbed", evaluate=lambda settings: answer(gamma(settings)))
    assert rows(out) == rows(tmp_path / "undisturbed")
