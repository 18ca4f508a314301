"""Executors of points: one point after the other in this process, or in a pool of processes.

Workers never outlive the driver, not even one that is killed: each watches a pipe that ends with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


class Serial(Executor):
    """Runs a call when it is submitted, in this process."""

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """A finished future. KeyboardInterrupt is raised here, not kept in it."""
        future: Future[R] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as sys.exit(0) in code of the user, which must not end the study
            future.set_exception(error)
        return future


class Pool(ProcessPoolExecutor):
    """A pool of fresh processes that ignore Ctrl-C and hang-ups (the driver stops them) and can be stopped at once."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._reader, self._writer = context.Pipe(duplex=False)
        with _signals_held_back():
            super().__init__(workers, mp_context=context, initializer=_start_worker, initargs=(self._reader,))

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Submit as the base class does, with signals blocked, so that a new worker inherits the blocked signals."""
        with _signals_held_back():
            return super().submit(function, *args, **kwargs)

    def stop(self) -> None:
        """End all workers at once, whatever they are doing."""
        self._writer.close()
        self.shutdown(wait=True, cancel_futures=True)
        self._reader.close()


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_executor(workers: int, *, apart: bool = False) -> Iterator[Executor]:
    """An executor, stopped at once if the block raises.

    Args:
        workers: number of processes; 1 means this process itself.
        apart: True if a single worker is a separate process, which may die.
    """
    if workers == 1 and not apart:
        yield Serial()
        return
    pool = Pool(workers)
    try:
        yield pool
        pool.shutdown()
    finally:
        pool.stop()


def completed(
    executor: Executor,
    function: Callable[[T], R],
    jobs: Mapping[K, T],
    *,
    window: int,
    begin: Callable[[K], None] = lambda _: None,
) -> Iterator[tuple[K, Future[R]]]:
    """Run jobs, and yield the key and the finished future of each as soon as it is finished.

    When a worker dies, the running jobs finish with a `BrokenExecutor`, and no further jobs are started.

    Args:
        executor: the executor.
        function: computes one job.
        jobs: key -> argument of `function`.
        window: maximum number of running jobs.
        begin: called with the key of each job before the job starts.
    """
    queue, running, broken = iter(jobs.items()), dict[Future[R], K](), False
    while True:
        while not broken and len(running) < window and (job := next(queue, None)):
            begin(job[0])
            try:
                running[executor.submit(function, job[1])] = job[0]
            except BrokenExecutor:
                broken = True
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            broken = broken or isinstance(future.exception(), BrokenExecutor)
            yield running.pop(future), future


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Hold Ctrl-C and hang-ups back until the end of the block; processes that start inside never get them.

    These include the resource tracker of multiprocessing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(reader: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_driver, args=(reader,), daemon=True).start()


def _exit_with_driver(reader: Connection) -> None:
    """End this process when the driver stops the pool, exits or dies."""
    parent = multiprocessing.parent_process()
    wait_for([reader, *([parent.sentinel] if parent else [])])
    os._exit(1)
