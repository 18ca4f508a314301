"""What holds for every worker process, whoever starts it: its environment, and how a call and its answer travel.

Importing this module does not import torch, so that a new worker can set its environment before.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that libraries of linear algebra read when they are loaded. A worker has one thread, like every point."""

GPUS = "CUDA_VISIBLE_DEVICES"

_ONE_AT_A_TIME = threading.Lock()


def environment(gpu: str | None = None) -> dict[str, str]:
    """Variables of a worker's environment.

    Args:
        gpu: name of the GPU that it may see, as in CUDA_VISIBLE_DEVICES; None to leave GPUs as they are.
    """
    return {**dict.fromkeys(THREADS, "1"), **({} if gpu is None else {GPUS: gpu})}


def gpu_names(visible: str | None, count: int) -> tuple[str, ...]:
    """Names of the GPUs of a machine, as CUDA_VISIBLE_DEVICES has them.

    Args:
        visible: the value of CUDA_VISIBLE_DEVICES; None if it is not set.
        count: number of GPUs that torch finds.
    """
    named = [name.strip() for name in visible.split(",")] if visible else list(map(str, range(count)))
    return tuple(named[:count])


def gpu_of(worker: int, gpus: Sequence[str]) -> str | None:
    """The GPU of a worker, dealt in turn; None if there are none."""
    return gpus[worker % len(gpus)] if gpus else None


def gpu_share(workers: int, gpus: int) -> float:
    """The share of a GPU that each worker takes, so that all workers fit: 1 if there are enough, 0 without GPUs."""
    return 1 / -(-workers // gpus) if gpus else 0.0


def gpus_here() -> tuple[str, ...]:
    """Names of the GPUs that this process may use."""
    import torch

    return gpu_names(os.environ.get(GPUS), torch.cuda.device_count())


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def packed(function: Callable[[Any], Any], argument: Any) -> bytes:
    """A call, to be sent to `answer`."""
    return pickle.dumps((function, argument))


def answer(call: bytes) -> bytes:
    """Run a call, one at a time in a process.

    Exceptions are answers, too: what runs this function would take some of them, such as SystemExit, for the end of the
    worker.

    Args:
        call: see `packed`.

    Returns:
        The result or the exception; see `unpack`.
    """
    try:
        with _ONE_AT_A_TIME:
            function, argument = pickle.loads(call)
            return pickle.dumps((function(argument), None))
    except BaseException as error:
        return pickle.dumps((None, _portable(error)))


def unpack(reply: bytes, future: Future[Any]) -> None:
    """Put an answer into a future."""
    try:
        result, error = pickle.loads(reply)
    except Exception as problem:  # such as a class that only the worker has
        result, error = None, problem
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _portable(error: BaseException) -> BaseException:
    """An exception with its traceback as a note, since tracebacks cannot be pickled."""
    where = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in the worker:\n{where}")
    return error


def unguarded() -> str:
    """Return the message for a script that starts itself again in each worker; empty if its call is guarded.

    A worker that is spawned imports the script of its driver. Without the guard, the import calls the study once more
    and fails.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        text = Path(script).read_text(encoding="utf-8") if script else "__name__"
    except (OSError, ValueError):
        return ""
    if "__name__" in text:
        return ""
    return (
        f"a worker cannot start, since it imports {script}, which starts the study again; put it below "
        'if __name__ == "__main__":'
    )
