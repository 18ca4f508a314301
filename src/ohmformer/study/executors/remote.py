"""What executors of other programs have in common: calls travel as bytes, and the driver waits for their answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any, TypeVar

from ohmformer.errors import BadInput
from ohmformer.study.executors.spec import ExecutorLost
from ohmformer.study.executors.worker import packed, unpack

T = TypeVar("T")
R = TypeVar("R")


class RemoteExecutor(ABC):
    """Calls of one run on the workers of another program.

    Attributes:
        waiting: what stands for a call in the other program -> future of the call.
    """

    def __init__(self) -> None:
        self.waiting: dict[Any, Future[Any]] = {}

    @property
    @abstractmethod
    def window(self) -> int:
        """Number of workers that compute calls."""

    @abstractmethod
    def send(self, call: bytes) -> Any:
        """Begin `worker.answer(call)` on a worker, and return what stands for the call."""

    @abstractmethod
    def ready(self) -> Collection[Any]:
        """Wait a moment, and return those of `waiting` that have an answer.

        Raises:
            ExecutorLost: there will be none.
        """

    @abstractmethod
    def reply(self, sent: Any) -> bytes:
        """The answer of a call.

        Raises:
            ExecutorLost: the program went away.
            WorkerDied: the process of the call died.
            BadInput: the worker cannot run any call.
        """

    @abstractmethod
    def abandon(self) -> None:
        """Stop or forget all calls of `waiting`."""

    def submit(self, function: Callable[[T], R], argument: T, /) -> Future[R]:
        """Begin a call; see `spec.Executor`."""
        future: Future[R] = Future()
        self.waiting[self.send(packed(function, argument))] = future
        return future

    def finished(self, running: Collection[Future[Any]]) -> Collection[Future[Any]]:
        """Wait until calls are finished; see `spec.Executor`."""
        found: Collection[Any] = ()
        while not found:
            found = self.ready()
        return [self._settled(sent) for sent in found]

    def _settled(self, sent: Any) -> Future[Any]:
        try:
            reply = self.reply(sent)
        except ExecutorLost:
            raise
        except Exception as error:
            future = self.waiting.pop(sent)
            future.set_exception(error)
        else:
            future = self.waiting.pop(sent)
            unpack(reply, future)
        return future


def check_installed(module: str, extra: str, cluster: str) -> None:
    """Refuse a cluster whose package is missing.

    Raises:
        BadInput: it is not installed; the message names the extra that brings it.
    """
    if find_spec(module) is None:
        raise BadInput(f"--cluster {cluster}: needs the package {module}; pip install 'ohmformer[{extra}]'")
