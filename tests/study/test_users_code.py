"""Points whose code raises or catches interrupts, or changes what is global to the process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study
from ohmformer.study.spec import Settings
from ohmformer.terminal.signals import Stopped
from tests.study.small import GAMMA, LOG, gamma, gammas, note, study


class Acts:
    """An evaluation that first does something, at one point."""

    def __init__(self, at: float, action: Callable[[], Any]) -> None:
        self.at, self.action = at, action

    def __call__(self, settings: Settings) -> PointResult:
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()
        if gamma(settings) == self.at:
            self.action()
        return note(settings)


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").touch()
    monkeypatch.setenv(LOG, str(tmp_path / "log"))


def raises(error: type[BaseException]) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit])
def test_a_point_that_raises_as_if_the_run_ended_fails_alone(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(
        BadInput, match=rf"1 of 3 points failed \(2 of 3 points stored\), first {GAMMA} = 1: .*{error.__name__}"
    ):
        run_study(study(0, 1, 2), tmp_path / "out", evaluate=Acts(1, raises(error)))


def swallow() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except BaseException:
        pass


def test_ctrl_c_that_a_point_catches_stops_the_run(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` around the tests would ignore it
    try:
        with pytest.raises(Stopped, match="stopped: 1 of 3 points stored; run again to go on"):
            run_study(study(0, 1, 2), tmp_path / "out", evaluate=Acts(1, swallow))
    finally:
        signal.signal(signal.SIGINT, before)
    assert gammas(run_study(study(0, 1, 2), tmp_path / "out", evaluate=note)) == [0, 1, 2]


def change() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_what_a_point_changes_does_not_reach_the_next(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    assert gammas(run_study(study(0, 1, 2), tmp_path / "out", evaluate=Acts(0, change))) == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is handler
