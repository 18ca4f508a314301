"""Calls run once each, a few at a time; a process has one thread and one GPU; no worker outlives its driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from ohmformer.study.executors import local
from ohmformer.study.executors.local import LocalWorkers, Serial
from ohmformer.study.executors.spec import completed
from tests.study.processes import PATHS, alive, wait_until


class Threads(ThreadPoolExecutor):
    """Threads in the place of processes."""

    def __init__(self, window: int) -> None:
        super().__init__(8)
        self.window = window

    def finished(self, running: Collection[Future[Any]]) -> Collection[Future[Any]]:
        return wait(running, return_when=FIRST_COMPLETED).done


@pytest.mark.parametrize("window", [1, 2, 5])
def test_every_job_runs_once_and_at_most_a_window_at_a_time(window: int) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(x: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return x * x

    with Threads(window) as pool:
        found = {key: future.result() for key, future in completed(pool, work, {f"job {x}": x for x in range(12)})}
    assert found == {f"job {x}": x * x for x in range(12)}
    assert most == window


def fail_at_two(x: int) -> int:
    if x == 2:
        raise ValueError("two")
    return x


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_job_fails_alone(workers: int) -> None:
    with LocalWorkers(workers).executor(4) as executor:
        futures = dict(completed(executor, fail_at_two, {x: x for x in range(4)}))
    assert {x: future.result() for x, future in futures.items() if x != 2} == {0: 0, 1: 1, 3: 3}
    with pytest.raises(ValueError, match="two"):
        futures[2].result()


def test_serial_runs_one_job_before_it_takes_the_next() -> None:
    order: list[str] = []
    for key, _ in completed(Serial(), lambda x: order.append(f"run {x}"), {1: 1, 2: 2}):
        order.append(f"done {key}")
    assert order == ["run 1", "done 1", "run 2", "done 2"]


def test_serial_lets_ctrl_c_out() -> None:
    def stop(_: None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Serial().submit(stop, None)


def pid_then_sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_busy_workers_end_at_once_when_the_driver_gives_up() -> None:
    started = time.monotonic()
    pids: list[int] = []

    def give_up() -> None:
        with LocalWorkers(2).executor(2) as pool:
            pids.append(pool.submit(pid_then_sleep, 0.2).result())
            pool.submit(time.sleep, 600)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert time.monotonic() - started < 60
    assert wait_until(lambda: not any(map(alive, pids)))


def held_back() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_never_get_ctrl_c_not_even_while_they_start() -> None:
    with LocalWorkers(2).executor(2) as pool:
        assert pool.submit(held_back).result()
    assert not held_back()


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from tests.study.executors.test_local import pid_then_sleep
from ohmformer.study.executors.local import LocalWorkers
with LocalWorkers(2).executor(2) as pool:
    Path({str(tmp_path / "pid")!r}).write_text(str(pool.submit(pid_then_sleep, 0).result()) + "\\n")
    pool.submit(time.sleep, 600).result()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **PATHS}, stderr=subprocess.DEVNULL
    ) as driver:
        assert wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        worker = int((tmp_path / "pid").read_text())
        assert alive(worker)
        driver.kill()
    assert wait_until(lambda: not alive(worker)), "the worker lives on"


def exit_at_two(x: int) -> int:
    if x == 2:
        sys.exit(0)
    return x


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_exits_fails_alone(workers: int) -> None:
    with LocalWorkers(workers).executor(4) as executor:
        found = dict(completed(executor, exit_at_two, {x: x for x in range(4)}))
    assert {key for key, future in found.items() if isinstance(future.exception(), SystemExit)} == {2}
    assert [found[key].result() for key in (0, 1, 3)] == [0, 1, 3]


def settings_of_worker(_: int) -> tuple[int, str, str]:
    time.sleep(0.5)  # so that the other worker takes the other call
    return os.getpid(), os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.slow
def test_each_worker_has_one_thread_and_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(local, "gpus_here", lambda: ("3", "5"))
    with LocalWorkers(2).executor(6) as executor:
        found = {future.result() for _, future in completed(executor, settings_of_worker, {x: x for x in range(6)})}
    assert {threads for _, threads, _ in found} == {"1"}
    assert len(found) == len({gpu for _, _, gpu in found}) == 2
    assert {gpu for _, _, gpu in found} == {"3", "5"}
