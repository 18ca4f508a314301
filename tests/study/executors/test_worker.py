"""What all workers share: GPUs are dealt, calls and answers travel as bytes, a wrong script is told."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.errors import BadInput
from ohmformer.study.executors.worker import answer, gpu_names, gpu_of, gpu_share, packed, unguarded, unpack


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 0, ()),
        (None, 3, ("0", "1", "2")),
        ("", 0, ()),
        ("2,3", 2, ("2", "3")),
        ("0, GPU-8932f937", 2, ("0", "GPU-8932f937")),
        ("7,-1,3", 1, ("7",)),  # what follows a wrong name is not visible
    ],
)
def test_gpus_have_the_names_by_which_this_process_sees_them(
    visible: str | None, count: int, names: tuple[str, ...]
) -> None:
    assert gpu_names(visible, count) == names


@given(workers=st.integers(1, 64), gpus=st.integers(0, 16))
def test_workers_are_dealt_evenly_over_gpus(workers: int, gpus: int) -> None:
    names = gpu_names(None, gpus)
    dealt = [gpu_of(worker, names) for worker in range(workers)]
    if not gpus:
        assert dealt == [None] * workers
        assert gpu_share(workers, gpus) == 0
        return
    counts = [dealt.count(name) for name in names]
    assert sum(counts) == workers
    assert max(counts) - min(counts) <= 1
    assert max(counts) * gpu_share(workers, gpus) <= 1 + 1e-12, "the workers of a GPU do not fit"
    assert workers > gpus or gpu_share(workers, gpus) == 1


def double(x: int) -> int:
    return 2 * x


def fail(error: BaseException) -> None:
    raise error


class Stubborn(Exception):
    """An exception that can be pickled, but not read back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def asked(function: Any, argument: Any) -> Future[Any]:
    future: Future[Any] = Future()
    unpack(answer(packed(function, argument)), future)
    return future


def test_a_result_comes_back() -> None:
    assert asked(double, 21).result() == 42


@pytest.mark.parametrize("error", [ValueError("two"), SystemExit(0), BadInput("a field"), KeyboardInterrupt()])
def test_an_exception_comes_back_with_its_traceback_as_a_note(error: BaseException) -> None:
    found = asked(fail, error).exception()
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert "in fail" in "".join(found.__notes__)


def stubborn(_: None) -> None:
    raise Stubborn("first", "second")


def unpicklable(_: None) -> object:
    return lambda: None


def test_what_cannot_travel_is_an_exception_that_says_so() -> None:
    assert str(asked(stubborn, None).exception()) == "Stubborn: first"
    assert "pickle" in str(asked(unpicklable, None).exception())
    future: Future[Any] = Future()
    unpack(pickle.dumps((None, None)).replace(b"N", b"X"), future)
    assert future.exception() is not None


running: list[int] = []


def alone(_: int) -> int:
    running.append(1)
    time.sleep(0.02)
    count = len(running)
    running.pop()
    return count


def test_a_process_with_several_threads_computes_one_point_at_a_time() -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(asked(alone, 0).result())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 4


@pytest.mark.parametrize(("text", "said"), [("run()\n", "which starts the study again"), ("__name__\n", "")])
def test_a_script_without_a_guard_is_told_apart_from_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    script = tmp_path / "launch.py"
    script.write_text(text)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)  # workers of pytest have none
    assert said in unguarded()
    assert bool(unguarded()) == bool(said)
