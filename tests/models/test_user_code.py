"""Functions of the user that change what is global to the process, catch Ctrl-C or leave threads running."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.models.user_code import from_python, guarded


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Interrupts arrive, also if the tests run in the background, where a shell has them ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs statements as a function of the user."""

    def run(body: str) -> object:
        lines = "\n    ".join(body.splitlines())
        (tmp_path / "mine.py").write_text(
            f"import os, random, signal, sys, threading, time, warnings\nimport numpy as np\nimport torch\n"
            f"def make():\n    {lines}\n    return 7\n"
        )
        sys.modules.pop("mine", None)
        return from_python("model", "python:mine:make", int)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield run
    sys.modules.pop("mine", None)


def state() -> list[object]:
    """What is global to the process."""
    return [
        torch.get_default_dtype(),
        str(torch.get_default_device()),
        torch.utils._python_dispatch._len_torch_dispatch_stack(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_anomaly_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.backends.mkldnn.enabled,
        bool(torch.full((1,), 1e-40) / 2 == 0),
        torch.get_rng_state().tolist(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
        random.getstate(),
        np.geterr(),
        sys.getrecursionlimit(),
        list(warnings.filters),
        [signal.getsignal(number) for number in signal.valid_signals()],
        signal.pthread_sigmask(signal.SIG_BLOCK, []),
        signal.getitimer(signal.ITIMER_REAL),
        signal.signal,
        threading.Thread.start,
        os._exit,
        Path.cwd(),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "torch.set_default_dtype(torch.float64)",
        "torch.set_default_device('meta')",
        "torch.set_grad_enabled(False)",
        "torch.set_num_threads(torch.get_num_threads() + 1)",
        "torch.use_deterministic_algorithms(True)",
        "torch.use_deterministic_algorithms(True, warn_only=True)",
        "torch.set_float32_matmul_precision('medium')",
        "torch.autograd.set_detect_anomaly(True)",
        "torch.autocast('cpu').__enter__()",
        "torch.backends.mkldnn.set_flags(False)",
        "torch.set_flush_denormal(True)",
        "torch.manual_seed(3); torch.rand(5)",
        "np.random.seed(3); np.random.rand()",
        "random.seed(3); random.random()",
        "np.seterr(all='raise')",
        "sys.setrecursionlimit(5000)",
        "warnings.simplefilter('error')",
        "warnings.resetwarnings()",
        "signal.signal(signal.SIGINT, lambda *a: None)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})",
        "signal.signal(signal.SIGALRM, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, 1000)",
        "os.chdir('/')",
        "torch.set_default_dtype(torch.float64); raise ValueError",
        "torch.set_grad_enabled(False); sys.exit(0)",
    ],
)
def test_what_is_global_is_as_before(call: object, body: str) -> None:
    before = state()
    if "raise ValueError" in body or "exit" in body:
        with pytest.raises(BadInput, match="fails"):
            call(body)  # type: ignore[operator]
    else:
        assert call(body) == 7  # type: ignore[operator]
    assert state() == before


@pytest.mark.parametrize("body", ["raise KeyboardInterrupt", "raise KeyboardInterrupt('x')"])
def test_an_interrupt_without_a_signal_is_an_error(call: object, body: str) -> None:
    with pytest.raises(BadInput, match=r"mine:make': raises KeyboardInterrupt, as if Ctrl-C was pressed"):
        call(body)  # type: ignore[operator]


PRESS = "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)"
CATCHES = {
    "nothing": PRESS,
    "all": f"try:\n    {PRESS.replace(chr(10), chr(10) + '    ')}\nexcept BaseException:\n    pass",
    "and raises another": (
        f"try:\n    {PRESS.replace(chr(10), chr(10) + '    ')}\nexcept KeyboardInterrupt:\n    raise ValueError"
    ),
    "and ends": f"try:\n    {PRESS.replace(chr(10), chr(10) + '    ')}\nexcept KeyboardInterrupt:\n    sys.exit(0)",
    "by its own handler": f"signal.signal(signal.SIGINT, lambda *a: None)\n{PRESS}",
    "by no handler": f"signal.signal(signal.SIGINT, signal.SIG_IGN)\n{PRESS}",
}


@pytest.mark.parametrize("body", CATCHES.values(), ids=CATCHES)
def test_a_signal_stops_whatever_the_function_catches(call: object, body: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        call(body)  # type: ignore[operator]


def test_handlers_of_others_keep_their_say() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with guarded("code"):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_in_another_thread_functions_run_as_well(call: object) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(call("torch.set_grad_enabled(False)")))  # type: ignore[operator]
    thread.start()
    thread.join()
    assert found == [7]


THREADS = """
import sys, threading, time
from pathlib import Path
Path("mine.py").write_text('''
import threading, time
def make():
    threading.Thread(target=time.sleep, args=(60,)).start()
    return 7
''')
from ohmformer.models.user_code import from_python
print(from_python("model", "python:mine:make", int))
"""


@pytest.mark.slow
def test_threads_that_go_on_do_not_hold_the_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=40
    )
    assert done.stdout.strip() == "7", done.stderr
