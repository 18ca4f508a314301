"""Dask and Ray give the rows of the local pool though workers die; what ends a run is one line, and ends workers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from ohmformer.study.executors.dask_workers import DaskWorkers
from ohmformer.study.failures import FULL
from tests.cli.drivers import stopped_if_it_fails
from tests.study.executors.drives import DASK, FOLDER, GAMMAS, RAY, rows
from tests.study.processes import PATHS, alive, wait_until
from tests.study.small import GAMMA

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers by /proc"),
]


CLUSTERS = [pytest.param("local", marks=DASK), pytest.param("ray", marks=RAY)]

DIED = "a worker process died; under way were: "
FAILED = (
    f"BadInput: study: 1 of {len(GAMMAS)} points failed ({len(GAMMAS) - 1} of {len(GAMMAS)} points stored), first "
    f"{GAMMA} = 1.0: its process died, perhaps for lack of memory; lower simulation.batch or task.limit, and run again"
)


def driver(folder: Path, arguments: str, before: str = "") -> subprocess.Popen[str]:
    """A process that calls `drives.drive`, and leads its process group."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from tests.study.executors.drives import *\n{before}\ndrive({arguments})"
    )
    environment = {**os.environ, **PATHS, FOLDER: str(folder), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def driven(folder: Path, arguments: str, before: str = "") -> tuple[list[str], list[str]]:
    """Lines on standard output and standard error of a driver that ends by itself."""
    with stopped_if_it_fails(driver(folder, arguments, before)) as process:
        out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return out.splitlines(), err.splitlines()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the local pool has computed the study."""
    out = tmp_path_factory.mktemp("pool") / "out"
    assert driven(out.parent, f"None, {str(out)!r}") == ([], [])
    return out


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_killed_worker_changes_no_row(cluster: str, tmp_path: Path, undisturbed: Path) -> None:
    out, err = driven(tmp_path, f"{cluster!r}, {str(tmp_path / 'out')!r}, dies_once_at_one")
    assert (tmp_path / "died").exists()
    assert out == []
    assert len(err) == 1, err
    assert err[0].startswith(DIED)
    assert f"{GAMMA} = 1.0" in err[0]
    assert rows(tmp_path / "out") == rows(undisturbed)


def levels_of_workers() -> set[int]:
    """Levels from which workers of Dask on this machine log, though they no longer silence themselves."""
    workers = DaskWorkers(None, 1)
    try:
        with workers.executor(1):
            return set(workers._client.run(lambda: logging.getLogger("distributed.core").getEffectiveLevel()).values())
    finally:
        workers.close()


@DASK
def test_workers_of_dask_log_nothing_while_they_close() -> None:
    assert levels_of_workers() == {logging.CRITICAL}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_point_that_always_kills_its_worker_ends_with_one_line(cluster: str, tmp_path: Path) -> None:
    out, err = driven(tmp_path, f"{cluster!r}, {str(tmp_path / 'out')!r}, dies_at_one")
    assert out == [FAILED]
    assert len(err) == 1, err
    assert err[0].startswith(DIED)
    assert len(rows(tmp_path / "out")["results"]) == len(GAMMAS) - 1


@pytest.mark.parametrize("cluster", ["pool", *CLUSTERS])
def test_a_point_without_memory_ends_with_one_line(cluster: str, tmp_path: Path) -> None:
    """A limit of the system, or of a batch system, refuses memory; the worker lives on."""
    name = None if cluster == "pool" else cluster
    out, err = driven(tmp_path, f"{name!r}, {str(tmp_path / 'out')!r}, full_at_one")
    assert err == []
    assert out == [
        FAILED.replace(
            "its process died, perhaps for lack of memory; lower simulation.batch or task.limit, and run again",
            f"{FULL}; details are in {tmp_path / 'out' / 'errors.txt'}",
        )
    ]
    assert len(rows(tmp_path / "out")["results"]) == len(GAMMAS) - 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "driver killed"])
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_workers_end_with_the_driver(cluster: str, how: signal.Signals, tmp_path: Path) -> None:
    def busy() -> list[int]:
        return [int(file.stem) for file in tmp_path.glob("*.pid")]

    with stopped_if_it_fails(driver(tmp_path, f"{cluster!r}, {str(tmp_path / 'out')!r}, stays_at_one")) as process:
        assert wait_until(lambda: len(busy()) == 2, 250)
        workers = busy()
        assert all(map(alive, workers))
        if how == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, how)
        out, err = process.communicate(timeout=60)
    assert wait_until(lambda: not any(map(alive, workers)))
    if how == signal.SIGINT:
        assert (out, err) == (f"Stopped: stopped: 2 of {len(GAMMAS)} points stored; run again to go on\n", "")


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def started(*words: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command of Dask in the background."""
    command = [sys.executable, "-m", "dask", *words]
    environment = {**os.environ, **PATHS, FOLDER: str(folder)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def scheduler(folder: Path, workers: int = 0, threads: int = 1) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of a scheduler with workers that nobody starts again."""
    port = str(free_port())
    address = f"tcp://127.0.0.1:{port}"
    at = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")
    own = (address, "--nthreads", str(threads), "--memory-limit", "0", "--no-nanny", "--no-dashboard")
    with ExitStack() as stack:
        first = stack.enter_context(started("scheduler", *at, folder=folder))
        for _ in range(workers):
            stack.enter_context(started("worker", *own, folder=folder))
        yield address, first


@DASK
def test_a_scheduler_gives_the_rows_of_the_local_pool_and_may_go_away(tmp_path: Path, undisturbed: Path) -> None:
    with scheduler(tmp_path, workers=2) as (address, process):
        out, err = driven(tmp_path, f"{address!r}, {str(tmp_path / 'out')!r}, dies_once_at_one, None")
        assert (out, err) == ([], []), "the scheduler gives the point to the other worker by itself"
        assert (tmp_path / "died").exists()
        assert rows(tmp_path / "out") == rows(undisturbed)
        with stopped_if_it_fails(
            driver(tmp_path, f"{address!r}, {str(tmp_path / 'lost')!r}, stays_at_one, None")
        ) as second:
            assert wait_until(lambda: any(tmp_path.glob("*.pid")), 250)
            process.kill()
            said = second.communicate(timeout=120)
    line = f"BadInput: --cluster {address}: the Dask scheduler went away; start it, and run again to go on "
    assert said == (f"{line}(2 of {len(GAMMAS)} points stored)\n", "")
    assert not rows(tmp_path / "lost")["attempts"], "no point is to blame"


@DASK
@pytest.mark.parametrize(
    ("workers", "threads", "line"),
    [
        (0, 1, "has had no workers for 1 s; start some (dask worker), and run again to go on (0 of 8 points stored)"),
        (1, 2, "has 2 threads; start workers with --nthreads 1, one for each core or GPU"),
    ],
)
def test_a_scheduler_without_fit_workers_is_one_line(workers: int, threads: int, line: str, tmp_path: Path) -> None:
    patience = "from ohmformer.study.executors import dask_workers; dask_workers.PATIENCE = 1.0"
    with scheduler(tmp_path, workers, threads) as (address, _):
        time.sleep(10 if workers else 0)  # a worker takes a moment to join
        out, err = driven(tmp_path, f"{address!r}, {str(tmp_path / 'out')!r}", patience)
    assert err == []
    assert len(out) == 1
    assert out[0].startswith(f"BadInput: --cluster {address}: ")
    assert out[0].endswith(line)


@pytest.mark.parametrize(
    ("cluster", "before", "line"),
    [
        pytest.param("tcp://127.0.0.1:1", "", "no Dask scheduler answers there", marks=DASK, id="no scheduler"),
        pytest.param(
            "ray",
            "import os; os.environ['RAY_ADDRESS'] = '127.0.0.1:1'",
            "correct RAY_ADDRESS = 127.0.0.1:1, or unset it to start Ray here",
            marks=RAY,
            id="no Ray",
        ),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(cluster: str, before: str, line: str, tmp_path: Path) -> None:
    out, err = driven(tmp_path, f"{cluster!r}, {str(tmp_path / 'out')!r}", before)
    assert err == []
    assert len(out) == 1
    assert out[0].startswith(f"BadInput: --cluster {cluster}: ")
    assert line in out[0]
