"""Points on actors of Ray: those of the cluster that RAY_ADDRESS names, or of one that is started on this machine."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.models.sources import first_line
from ohmformer.study.executors.local import signals_held_back
from ohmformer.study.executors.remote import RemoteExecutor, check_installed
from ohmformer.study.executors.spec import Executor, WorkerDied, checked_count
from ohmformer.study.executors.worker import answer, default_workers, environment, gpu_share

ADDRESS = "RAY_ADDRESS"

STORE_BYTES = 100_000_000
"""Memory [B] of the object store of a cluster that is started here; calls and answers take some kilobytes."""

DEATH = "A worker died or was killed"
"""Words of Ray on an actor that died."""

CONNECT_SECONDS = 10.0
"""Time [s] in which a cluster must answer."""

WAIT_SECONDS = 2.0
"""Time [s] after which the driver looks around while it waits for answers."""


class Seat:
    """A process that computes one call after the other; an actor of Ray."""

    def __init__(self, folder: str) -> None:
        """Settle in the working directory of the driver, if the machine has it."""
        os.environ.update(environment())  # Ray chooses the GPU
        with suppress(OSError):
            os.chdir(folder)

    def answer(self, call: bytes) -> bytes:
        """See `worker.answer`."""
        return answer(call)


class RayWorkers:
    """Actors of Ray, one for each core of the cluster; GPUs are shared out evenly.

    Args:
        count: number of actors; None for one for each core.

    Raises:
        BadInput: the package is missing.
    """

    def __init__(self, count: int | None = None) -> None:
        check_installed("ray", "ray", "ray")
        self.count = None if count is None else checked_count(count)
        self._seats = 0
        self._options: dict[str, Any] = {}
        self._idle: list[Any] = []
        self._changes = ExitStack()

    @contextmanager
    def executor(self, calls: int, *, alone: bool = False) -> Iterator[Executor]:
        """An executor; if the block raises, running calls are stopped. See `spec.Workers`."""
        if not self._seats:
            self._open()
        executor = RayExecutor(self._start, self._idle, 1 if alone else self._seats)
        try:
            yield executor
        finally:
            executor.abandon()

    def close(self) -> None:
        """Leave the cluster, which ends it if it was started here, and the actors in any case."""
        if self._seats:
            import ray

            ray.shutdown()
            self._changes.close()
            self._seats = 0
            self._idle.clear()

    def _start(self) -> Any:
        """A new actor."""
        import ray

        return ray.remote(Seat).options(**self._options).remote(os.getcwd())

    def _open(self) -> None:
        import ray

        there = os.environ.get(ADDRESS, "").removeprefix("local")
        started = {
            "address": "local",
            "num_cpus": self.count or default_workers(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
        try:
            if re.fullmatch(r"(\w+://)?[\w.\[\]:-]+:\d+", there):
                _call_on(there)
            with signals_held_back(), _handlers_kept():
                ray.init(**({} if there else started), log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError) as error:
            remedy = f"correct {ADDRESS} = {there}, or unset it to start Ray here" if there else "see its logs"
            raise BadInput(f"--cluster ray: Ray does not start ({first_line(error)}); {remedy}") from error
        self._changes.enter_context(redirect_stdout(_Notices()))
        has = ray.cluster_resources()
        self._seats = self.count or max(1, int(has.get("CPU", 1)))
        self._options = {
            "num_cpus": 1,
            "num_gpus": gpu_share(self._seats, int(has.get("GPU", 0))),
            "max_restarts": 0,
            "max_task_retries": 0,
        }


class RayExecutor(RemoteExecutor):
    """Calls on actors, one at a time on each.

    Args:
        start: starts an actor.
        idle: actors that do nothing; those of this executor return to it.
        seats: number of actors that may work at the same time.
    """

    def __init__(self, start: Any, idle: list[Any], seats: int) -> None:
        super().__init__()
        self._start, self._idle, self._seats = start, idle, seats
        self._seat_of: dict[Any, Any] = {}

    @property
    def window(self) -> int:
        """Number of actors."""
        return self._seats

    def send(self, call: bytes) -> Any:
        """Give a call to an idle actor, or to a new one."""
        seat = self._idle.pop() if self._idle else self._start()
        sent = seat.answer.remote(call)
        self._seat_of[sent] = seat
        return sent

    def ready(self) -> Collection[Any]:
        """References whose answers or errors are there."""
        import ray

        done: list[Any] = ray.wait(list(self.waiting), num_returns=1, timeout=WAIT_SECONDS)[0]
        return done

    def reply(self, sent: Any) -> bytes:
        """The answer of a call; see `RemoteExecutor`."""
        import ray
        from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

        seat = self._seat_of.pop(sent)
        try:
            found: bytes = ray.get(sent)
        except ActorDiedError as error:
            if error.actor_init_failed:
                raise _unable(error) from error
            raise WorkerDied from None
        except (NodeDiedError, OutOfMemoryError, WorkerCrashedError):
            raise WorkerDied from None
        except RayError as error:
            raise _unable(error) from error
        self._idle.append(seat)
        return found

    def abandon(self) -> None:
        """End the actors that compute something."""
        import ray

        for seat in self._seat_of.values():
            ray.kill(seat)
        self._seat_of.clear()
        self.waiting.clear()


def _call_on(address: str) -> None:
    """Connect and hang up: Ray itself tries for minutes where nobody answers.

    Raises:
        OSError: nobody answers.
    """
    host, port = address.rpartition("//")[2].rsplit(":", 1)
    with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
        pass


class _Notices(io.TextIOBase):
    """Sends what Ray writes on standard output, which is for results, to standard error."""

    def write(self, text: str) -> int:
        """Write lines, unless they tell of a dead worker, which the study says itself."""
        if text.strip() and DEATH not in text:
            sys.stderr.write(f"{text.rstrip()}\n")
        return len(text)


def _unable(error: Exception) -> BadInput:
    return BadInput(
        f"--cluster ray: an actor cannot compute ({first_line(error)}); install this version of ohmformer on all nodes"
    )


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which `ray.init` replaces in the main thread."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
