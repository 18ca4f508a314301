"""Where points run: here, one after the other, or in a pool of processes. Both are `concurrent.futures` executors.

Workers never outlive the driver, not even one that is killed: each watches a pipe that ends with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


class Serial(Executor):
    """Runs a call when it is submitted, in this process."""

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """A finished future. KeyboardInterrupt and its like are raised here, not kept."""
        future: Future[R] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Pool(ProcessPoolExecutor):
    """A pool of fresh processes that ignore Ctrl-C (the driver stops them) and can be stopped at once."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._reader, self._writer = context.Pipe(duplex=False)
        super().__init__(workers, mp_context=context, initializer=_start_worker, initargs=(self._reader,))

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """As in the base; a worker that starts inherits that Ctrl-C is held back, so it has none to report."""
        with _ctrl_c_held_back():
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
def open_executor(workers: int) -> Iterator[Executor]:
    """An executor of that many workers (one: this process itself), stopped at once if the block raises."""
    if workers == 1:
        yield Serial()
        return
    pool = Pool(workers)
    try:
        yield pool
        pool.shutdown()
    finally:
        pool.stop()


def completed(
    executor: Executor, function: Callable[[T], R], jobs: Mapping[K, T], *, window: int
) -> Iterator[tuple[K, Future[R]]]:
    """The key of each job with its finished future, as they finish; at most `window` are under way at any time."""
    queue, running = iter(jobs.items()), dict[Future[R], K]()
    while True:
        for key, argument in islice(queue, window - len(running)):
            running[executor.submit(function, argument)] = key
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that start inside never get it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
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
