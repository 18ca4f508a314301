"""Points on workers of Dask: those of a scheduler that runs already, or some of our own on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.models.sources import first_line
from ohmformer.study.executors.local import signals_held_back
from ohmformer.study.executors.remote import RemoteExecutor, check_installed
from ohmformer.study.executors.spec import Executor, ExecutorLost, WorkerDied, checked_count
from ohmformer.study.executors.worker import answer, default_workers, environment, gpu_of, gpus_here, unguarded

PATIENCE = 60.0
"""Time [s] that a scheduler may be without workers."""

CONNECT_SECONDS = 10.0
"""Time [s] in which a scheduler must answer."""

LOOK_SECONDS = 2.0
"""Time [s] between looks at the number of workers."""


class DaskWorkers:
    """Workers of a Dask scheduler; each of them runs one call at a time.

    Args:
        address: of the scheduler, such as tcp://host:8786; None to start scheduler and workers on this machine.
        count: number of workers to start, or of calls that may run at the same time; None for one for each core, or for
            all workers of the scheduler.

    Raises:
        BadInput: the package is missing.
    """

    def __init__(self, address: str | None, count: int | None = None) -> None:
        self.name = f"--cluster {address or 'local'}"
        check_installed("distributed", "cluster", address or "local")
        self.address = address
        self.count = None if count is None else checked_count(count)
        self._cluster: Any = None
        self._client: Any = None

    @contextmanager
    def executor(self, calls: int, *, alone: bool = False) -> Iterator[Executor]:
        """An executor; if the block raises, running calls are forgotten. See `spec.Workers`."""
        if self._client is None:
            self._open()
        executor = DaskExecutor(self.name, self._client, 1 if alone else self.count)
        try:
            yield executor
        finally:
            executor.abandon()

    def close(self) -> None:
        """Leave the scheduler, or end it and its workers at once if they are our own."""
        if self._cluster is not None:
            for nanny in self._cluster.workers.values():  # what still runs is not waited for
                nanny.auto_restart = False
                with suppress(OSError, TypeError):
                    os.kill(nanny.pid, signal.SIGKILL)
        for each in (self._client, self._cluster):
            if each is not None:
                each.close()
        self._client = self._cluster = None

    def _open(self) -> None:
        from distributed import Client

        for name in ("distributed", "distributed.client"):  # what they report ends in a message of ours
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.address is None:
            self._cluster = _local_cluster(self.name, self.count or default_workers())
        try:
            self._client = Client(self._cluster or self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(
                f"{self.name}: no Dask scheduler answers there ({first_line(error)}); start one with dask scheduler, "
                "or correct the address"
            ) from None
        threads = self._client.nthreads()
        many = [worker for worker, number in threads.items() if number != 1]
        if many:
            raise BadInput(
                f"{self.name}: the worker {many[0]} has {threads[many[0]]} threads; start workers with --nthreads 1, "
                "one for each core or GPU"
            )


class DaskExecutor(RemoteExecutor):
    """Calls on the workers of a scheduler.

    Args:
        name: of the cluster, for messages.
        client: of `distributed`, connected.
        most: maximum number of calls under way; None for one for each worker.
    """

    def __init__(self, name: str, client: Any, most: int | None) -> None:
        super().__init__()
        self.name, self._client, self._most = name, client, most
        self._count, self._looked, self._seen = 0, 0.0, time.monotonic()
        self._look()

    @property
    def window(self) -> int:
        """Number of workers, at least one; they may come and go."""
        return max(1, self._count if self._most is None else min(self._most, self._count))

    def send(self, call: bytes) -> Any:
        """Submit a call to the scheduler."""
        return self._client.submit(answer, call, pure=False)

    def ready(self) -> Collection[Any]:
        """Futures of Dask that are done, failed or lost."""
        from distributed import CancelledError, wait

        with self._client.as_current(), suppress(TimeoutError, asyncio.TimeoutError, CancelledError):
            wait(list(self.waiting), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
        found = [sent for sent in self.waiting if sent.status != "pending"]
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        return found

    def reply(self, sent: Any) -> bytes:
        """The answer of a call; see `RemoteExecutor`."""
        from distributed import CancelledError, KilledWorker

        try:
            found: bytes = sent.result()
        except KilledWorker:
            raise WorkerDied from None
        except CancelledError:
            raise ExecutorLost(f"{self.name}: the Dask scheduler went away; start it, and run again to go on") from None
        except Exception as error:
            raise BadInput(
                f"{self.name}: a worker cannot compute ({first_line(error)}); install this version of ohmformer where "
                "it runs"
            ) from error
        return found

    def abandon(self) -> None:
        """Cancel what is under way; a call that runs already ends by itself."""
        if self.waiting and self._client.status == "running":
            self._client.cancel(list(self.waiting))
        self.waiting.clear()

    def _look(self) -> None:
        """Count the workers.

        Raises:
            ExecutorLost: there has been none for a long time.
        """
        with suppress(OSError):
            self._count = len(self._client.nthreads())
        now = self._looked = time.monotonic()
        if self._count:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise ExecutorLost(
                f"{self.name}: has had no workers for {PATIENCE:g} s; start some (dask worker), and run again to go on"
            )


def _local_cluster(name: str, count: int) -> Any:
    """A scheduler in this process, and workers that get no signals of the terminal.

    As in the local pool, what kills its process is not tried again behind our back, and only the system limits memory.
    """
    import dask.config
    from distributed import Nanny, Scheduler, SpecCluster

    here: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard": False}
    alike = {**here, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    gpus = gpus_here()
    workers = {
        number: {"cls": Nanny, "options": {**alike, "env": environment(gpu_of(number, gpus))}}
        for number in range(count)
    }
    options = {**here, "port": 0, "dashboard_address": "127.0.0.1:0", "allowed_failures": 0}
    # silence_logs ends where a worker begins to close; a level in its environment holds until its process ends.
    spawn = "distributed.nanny.pre-spawn-environ"
    quiet = {spawn: {**dask.config.get(spawn), "DASK_LOGGING__DISTRIBUTED": "critical"}}
    try:
        with dask.config.set(quiet), signals_held_back():
            return SpecCluster(
                workers=workers, scheduler={"cls": Scheduler, "options": options}, silence_logs=logging.CRITICAL
            )
    except (OSError, RuntimeError) as error:
        raise BadInput(unguarded() or f"{name}: Dask workers do not start ({first_line(error)})") from error
