"""Executors of this machine: one point after the other in this process, or in a pool of processes.

Workers never outlive the driver, not even one that is killed: each watches a pipe that ends with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from ohmformer.study.executors.spec import Executor, checked_count
from ohmformer.study.executors.worker import environment, gpu_of, gpus_here

R = TypeVar("R")
T = TypeVar("T")


class LocalWorkers:
    """Processes of this machine, fresh ones for each executor; a single one is this process itself."""

    def __init__(self, count: int) -> None:
        self.count = checked_count(count)

    @contextmanager
    def executor(self, calls: int, *, alone: bool = False) -> Iterator[Executor]:
        """An executor, stopped at once if the block raises; see `spec.Workers`."""
        count = 1 if alone else min(self.count, calls)
        if count == 1 and not alone:
            yield Serial()
            return
        pool = Pool(count)
        try:
            yield pool
            pool.shutdown()
        finally:
            pool.stop()

    def close(self) -> None:
        """Do nothing: processes end with their executor."""


class Serial:
    """Runs a call when it is submitted, in this process."""

    window = 1

    def submit(self, function: Callable[[T], R], argument: T, /) -> Future[R]:
        """A finished future. KeyboardInterrupt is raised here, not kept in it."""
        future: Future[R] = Future()
        try:
            future.set_result(function(argument))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as sys.exit(0) in code of the user, which must not end the study
            future.set_exception(error)
        return future

    def finished(self, running: Collection[Future[Any]]) -> Collection[Future[Any]]:
        """All calls."""
        return running


class Pool(ProcessPoolExecutor):
    """A pool of fresh processes that ignore Ctrl-C and hang-ups (the driver stops them) and can be stopped at once.

    Attributes:
        window: one call more than processes, so that none of them waits for the driver.
    """

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.window = workers + 1 if workers > 1 else 1
        self._reader, self._writer = context.Pipe(duplex=False)
        with signals_held_back():
            first = (self._reader, context.Value("i", 0), gpus_here())
            super().__init__(workers, mp_context=context, initializer=_start_worker, initargs=first)

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Submit as the base class does, with signals blocked, so that a new worker inherits the blocked signals."""
        with signals_held_back():
            return super().submit(function, *args, **kwargs)

    def finished(self, running: Collection[Future[Any]]) -> Collection[Future[Any]]:
        """The first calls that are finished."""
        return wait(running, return_when=FIRST_COMPLETED).done

    def stop(self) -> None:
        """End all workers at once, whatever they are doing."""
        self._writer.close()
        self.shutdown(wait=True, cancel_futures=True)
        self._reader.close()


@contextmanager
def signals_held_back() -> Iterator[None]:
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


def _start_worker(reader: Connection, started: Any, gpus: tuple[str, ...]) -> None:
    """Prepare a new worker.

    Args:
        reader: end of a pipe, whose other end the driver holds.
        started: counts the workers of the pool.
        gpus: names of the GPUs of this machine.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_driver, args=(reader,), daemon=True).start()
    with started.get_lock():
        number = started.value
        started.value += 1
    os.environ.update(environment(gpu_of(number, gpus)))


def _exit_with_driver(reader: Connection) -> None:
    """End this process when the driver stops the pool, exits or dies."""
    parent = multiprocessing.parent_process()
    wait_for([reader, *([parent.sentinel] if parent else [])])
    os._exit(1)
