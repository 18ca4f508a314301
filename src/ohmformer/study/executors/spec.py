"""What every executor offers, whichever processes do the work. Free of torch, Dask and Ray."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from ohmformer.errors import BadInput, one_line
from ohmformer.quantities import whole_number

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")

MOST_WORKERS = 1024
"""Maximum number of processes."""


class WorkerDied(Exception):
    """The process of a single call died; the executor goes on with others."""


class ExecutorLost(BadInput):
    """No more calls can be computed, such as when a cluster went away; the message is the line for the user."""


DEATHS = (BrokenExecutor, WorkerDied)
"""Exceptions of a call whose process died. After a `BrokenExecutor`, the executor takes no more calls."""


class Executor(Protocol):
    """Runs calls in processes."""

    @property
    def window(self) -> int:
        """Number of calls that keep all processes busy; it may change while calls run."""

    def submit(self, function: Callable[[T], R], argument: T, /) -> Future[R]:
        """Begin a call.

        Args:
            function: function of a module.
            argument: picklable.

        Raises:
            BrokenExecutor: a process died, and this executor takes no more calls.
        """

    def finished(self, running: Collection[Future[Any]]) -> Collection[Future[Any]]:
        """Wait until calls are finished.

        Args:
            running: all calls that are under way.

        Returns:
            The finished ones, at least one. A call whose process died has an exception of `DEATHS`.

        Raises:
            ExecutorLost: none can be finished any more.
        """


class Workers(Protocol):
    """Processes, on this machine or on others, that compute points. They start when they are needed."""

    def executor(self, calls: int, *, alone: bool = False) -> AbstractContextManager[Executor]:
        """An executor. If the block raises, what runs is stopped or forgotten.

        Args:
            calls: number of calls that there are.
            alone: True to run one call at a time in a process other than this one, which may die.
        """

    def close(self) -> None:
        """End the processes that were started."""


def completed(
    executor: Executor,
    function: Callable[[T], R],
    jobs: Mapping[K, T],
    *,
    begin: Callable[[K], None] = lambda _: None,
) -> Iterator[tuple[K, Future[R]]]:
    """Run jobs, and yield the key and the finished future of each as soon as it is finished.

    When the executor breaks, the running jobs finish with a `BrokenExecutor`, and no further jobs are started.

    Args:
        executor: the executor; its window limits the number of running jobs.
        function: computes one job.
        jobs: key -> argument of `function`.
        begin: called with the key of each job before the job starts.
    """
    queue, running, broken = iter(jobs.items()), dict[Future[R], K](), False
    while True:
        while not broken and len(running) < executor.window and (job := next(queue, None)):
            begin(job[0])
            try:
                running[executor.submit(function, job[1])] = job[0]
            except BrokenExecutor:
                broken = True
        if not running:
            return
        for future in executor.finished(list(running)):
            broken = broken or isinstance(future.exception(), BrokenExecutor)
            yield running.pop(future), future


def whole_count(workers: object) -> int:
    """A number of processes from a caller in Python, who may give anything.

    Raises:
        BadInput: it is no whole number, less than one, or too large.
    """
    count = whole_number(workers)
    if not 1 <= count <= MOST_WORKERS:
        raise BadInput(f"workers = {one_line(workers)}: must be a whole number from 1 to {MOST_WORKERS}")
    return count


def checked_count(workers: int) -> int:
    """A number of processes.

    Raises:
        BadInput: it is less than one, or too large.
    """
    if not 1 <= workers <= MOST_WORKERS:
        bound = "1 or more; raise it" if workers < 1 else f"{MOST_WORKERS} at most; lower it"
        raise BadInput(f"workers = {workers}: must be {bound}")
    return workers
