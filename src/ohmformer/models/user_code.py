"""Runs code of the user: functions of `python:MODULE:FUNCTION` sources, and models and data that they return.

Such code may do anything. What is global to the process is as before when it returns: the working directory, signals,
warnings, and the settings and random numbers of torch and NumPy. Ctrl-C stops the run even if the code catches it.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from ohmformer.errors import BadInput, shown
from ohmformer.models.sources import first_line
from ohmformer.wording import with_article

T = TypeVar("T")

USERS_CODE = "code of the model or the task"
"""Whose code runs while points are identified and evaluated, for messages."""

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that stop a run."""

GLOBALS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda modes: torch.use_deterministic_algorithms(modes[0], warn_only=modes[1]),
    ),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    (lambda: torch.backends.mkldnn.enabled, lambda on: torch.backends.mkldnn.set_flags(_enabled=on)),
    (lambda: bool(torch.full((1,), 1e-40, device="cpu") / 2 == 0), torch.set_flush_denormal),
    (lambda: torch.get_rng_state().numpy().tobytes(), lambda state: torch.set_rng_state(_bytes(state))),
    (np.geterr, lambda modes: np.seterr(**modes)),
    (lambda: _numpy_state(), lambda state: _set_numpy_state(state)),
    (random.getstate, random.setstate),
    (sys.getrecursionlimit, sys.setrecursionlimit),
)
"""Functions that get and set what is global to the process and may change numbers or break other points."""

_set_handler = signal.signal

_handler_of: Callable[[int], Any] = importlib.import_module("_signal").getsignal
"""`signal.getsignal`, which makes an enumeration of each number and handler, and takes ten times as long."""

SIGNALS = tuple(map(int, signal.valid_signals()))


def _numpy_state() -> Any:
    """The state of NumPy's global generator, so that states can be compared."""
    state = np.random.get_state()  # noqa: NPY002
    if not isinstance(state, tuple):  # of another generator than NumPy's own
        return pickle.dumps(state)
    name, numbers, *others = state
    return (name, numbers.tobytes(), *others)


def _set_numpy_state(state: Any) -> None:
    if isinstance(state, tuple):
        name, numbers, *others = state
        np.random.set_state((name, np.frombuffer(numbers, np.uint32), *others))  # noqa: NPY002
    else:
        np.random.set_state(pickle.loads(state))  # noqa: NPY002


def _bytes(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


@contextmanager
def guarded(who: str) -> Iterator[None]:
    """Run code of the user, and keep this process as it is.

    The code cannot end the process by `os._exit`. What it changes of `GLOBALS`, warning filters, signals and timers is
    restored. Threads that it starts do not keep the process alive. Ctrl-C ends the context, whatever the code does.

    Args:
        who: whose code it is, as the beginning of a message.

    Raises:
        BadInput: the code raises KeyboardInterrupt although no signal arrived.
        KeyboardInterrupt: a signal arrived, even if the code caught the exception.
    """
    with _interrupts_kept(who), warnings.catch_warnings(), no_exit(), _daemon_threads(), _globals_kept():
        yield


@contextmanager
def _globals_kept() -> Iterator[None]:
    before = [get() for get, _ in GLOBALS]
    try:
        yield
    finally:
        for (get, put), value in zip(GLOBALS, before, strict=True):
            if get() != value:
                put(value)


@contextmanager
def _daemon_threads() -> Iterator[None]:
    """Make threads that start inside daemons, for which the end of the process does not wait."""
    start = threading.Thread.start

    def start_daemon(self: threading.Thread) -> None:
        if not self.is_alive():
            self.daemon = True
        start(self)

    setattr(threading.Thread, "start", start_daemon)  # noqa: B010
    try:
        yield
    finally:
        setattr(threading.Thread, "start", start)  # noqa: B010


@contextmanager
def _interrupts_kept(who: str) -> Iterator[None]:
    """Keep signals, timers and the meaning of KeyboardInterrupt: a signal has arrived. See `guarded`."""
    arrived: list[int] = []
    with _signals_kept(arrived):
        try:
            yield
        except KeyboardInterrupt as error:
            if arrived:
                raise
            raise BadInput(f"{who} raises KeyboardInterrupt, as if Ctrl-C was pressed; remove that") from error
        except BaseException:
            if arrived:
                raise KeyboardInterrupt from None
            raise
        if arrived:
            raise KeyboardInterrupt


@contextmanager
def _signals_kept(arrived: list[int]) -> Iterator[None]:
    """Record the signals whose handlers raise KeyboardInterrupt, and restore handlers, mask and timer.

    Only the main thread can handle signals; in others this does nothing. Inside, the signals in `STOPS` keep their
    handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: _handler_of(number) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, []) if hasattr(signal, "pthread_sigmask") else None
    timer = signal.getitimer(signal.ITIMER_REAL) if hasattr(signal, "getitimer") else None

    def record(number: int, frame: FrameType | None) -> None:
        try:
            handlers[number](number, frame)
        except KeyboardInterrupt:
            arrived.append(number)
            raise

    def set_other(number: int, handler: Any) -> Any:
        return signal.getsignal(number) if number in STOPS else set_before(number, handler)

    set_before = signal.signal
    for number in map(int, STOPS):
        if callable(handlers[number]):
            _set_handler(number, record)
    setattr(signal, "signal", set_other)  # noqa: B010
    try:
        yield
    finally:
        setattr(signal, "signal", set_before)  # noqa: B010
        for number, handler in handlers.items():
            if handler is not None and _handler_of(number) != handler:
                _set_handler(number, handler)
        if mask is not None and signal.pthread_sigmask(signal.SIG_BLOCK, []) != mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if timer == (0.0, 0.0):
            signal.setitimer(signal.ITIMER_REAL, 0.0)


def from_python(kind: str, source: str, expected: type[T]) -> T:
    """Call the function of a `python:MODULE:FUNCTION` source and return its result.

    Every `python:` source, of a model or of a task, is loaded here and nowhere else. This runs code: MODULE may be a
    file below the working directory, or any installed module. Callers that read untrusted studies must ask for
    permission first.

    Until the function returns, modules are also looked up in the working directory, after all other folders.

    Args:
        kind: `model` or `task`, for messages.
        source: the source, as in the study.
        expected: required class of the result.

    Raises:
        BadInput: the source has another form, the module or function does not exist or fails, or the result has
            another class.
    """
    where = f"{kind}.source = {shown(source)}"
    _, module_name, *names = source.split(":")
    if len(names) != 1 or not module_name:
        raise BadInput(f"{where}: write python:MODULE:FUNCTION")
    with _working_directory_importable(), _process_kept(where), guarded(f"{where}:"):
        try:
            module = importlib.import_module(module_name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reason = first_line(error)
            raise BadInput(
                f"{where}: importing {module_name} fails ({reason}); correct it, or set PYTHONPATH"
            ) from error
        function = getattr(module, names[0], None)
        if not callable(function):
            raise BadInput(
                f"{where}: {module_name} has no function {shown(names[0])}; write one that takes no arguments"
            )
        try:
            result = function()
        except (BadInput, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise BadInput(f"{where}: fails ({first_line(error)}); correct the function") from error
    if not isinstance(result, expected):
        name = f"{expected.__module__}.{expected.__qualname__}"
        raise BadInput(f"{where}: returns {type(result).__name__}; return {with_article(name)}")
    return result


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Append the working directory to `sys.path` for the duration of the context.

    `sys.path` is global to the process. Appending is safe: no module that was importable before is hidden, and the
    entry is removed on exit.
    """
    try:
        folder = os.getcwd()
    except OSError:  # the working directory was deleted
        yield
        return
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


class Exit(SystemExit):
    """Code of the user called `os._exit`, which would end the process without a word."""


@contextmanager
def no_exit() -> Iterator[None]:
    """Make `os._exit` raise `Exit` in this thread while code of the user runs.

    Other threads, such as that by which a worker ends with its driver, and forked copies of the process still exit.
    """
    process, thread, end = os.getpid(), threading.get_ident(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process or threading.get_ident() != thread:
            end(status)
        raise Exit(f"it calls os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end


@contextmanager
def _process_kept(where: str) -> Iterator[None]:
    """Keep outputs, working directory and this process itself while a function of the user is called.

    A forked copy of this process ends with the context.

    Args:
        where: beginning of messages.

    Raises:
        BadInput: the code closes standard output or standard error.
    """
    process, end, outputs = os.getpid(), os._exit, (sys.stdout, sys.stderr)
    folder = None
    with suppress(OSError):
        folder = os.getcwd()
    try:
        yield
    finally:
        if os.getpid() != process:
            end(1)
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)
    sys.stdout, sys.stderr = outputs
    if any(_is_closed(output) for output in outputs):
        sys.stdout = io.StringIO() if _is_closed(sys.stdout) else sys.stdout
        sys.stderr = sys.__stderr__ if _is_closed(sys.stderr) else sys.stderr
        raise BadInput(f"{where}: closes standard output or standard error; remove that from the function")


def _is_closed(output: Any) -> bool:
    return bool(getattr(output, "closed", False))
