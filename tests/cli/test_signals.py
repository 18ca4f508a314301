"""Signals that end a command: one line, the exit code of shells, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ohmformer.study.store.store import Store
from ohmformer.terminal.signals import CALM_SECONDS, GO_ON, NOTHING_STORED, NOTHING_YET, Stopping
from tests.cli.drivers import stopped_if_it_fails
from tests.cli.test_cli import ALLOWED, write_study
from tests.study.processes import ROOT, alive, wait_until

COMMAND = "import sys; from ohmformer.cli import main; sys.exit(main())"


def start(*arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """The command line in a process group of its own, as a terminal would start it."""
    defaults = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    defaults += "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # `nohup` around the tests would ignore it
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", defaults + COMMAND, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]
    return stopped_if_it_fails(process)


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGTERM], 143),
        *(
            pytest.param(signals, code, marks=pytest.mark.slow)
            for signals, code in (([signal.SIGHUP], 129), ([signal.SIGINT] * 2, 130), ([signal.SIGINT] * 5, 130))
        ),
    ],
    ids=["SIGTERM", "SIGHUP", "Ctrl-C twice", "Ctrl-C five times"],
)
@pytest.mark.slow
def test_a_signal_to_the_group_ends_a_study_with_one_line(tmp_path: Path, signals: list[int], code: int) -> None:
    study, out = write_study(tmp_path / "study.toml", sweep={"trials.chips": [1, 999_999, 1_000_000]}), tmp_path / "o"

    def stored() -> bool:
        if not (out / "results.sqlite").exists():
            return False
        with Store(out / "results.sqlite") as store:
            return len(store) == 1

    with start("run", str(study), "--out", str(out), "--workers", "2", *ALLOWED) as driver:
        assert wait_until(stored, 90)
        children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
        for number in signals:
            os.killpg(driver.pid, number)
            time.sleep(0.03)
        said = driver.communicate(timeout=60)
    assert said == ("", "stopped: 1 of 3 points stored; run again to go on\n")
    assert driver.returncode == code
    assert wait_until(lambda: not any(alive(int(pid)) for pid in children)), "a worker lives on"


def interrupted(folder: Path, verb: str, *options: str) -> str:
    """What a study of 20,000 costs says on Ctrl-C after four seconds."""
    study = folder / "study.toml"
    many = ", ".join(str(count) for count in range(1, 20_000))
    study.write_text(
        f'name = "x"\nmodel.source = "shapes:bert-base"\nhardware.base = "nvm_ideal"\nsweep."model.batch" = [{many}]'
    )
    with start(verb, str(study), *options) as driver:
        time.sleep(4)
        driver.send_signal(signal.SIGINT)
        said = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert said[0] == ""
    return said[1].rstrip("\n")


def test_costs_alone_are_not_stored_and_the_line_says_so(tmp_path: Path) -> None:
    assert interrupted(tmp_path, "cost") == NOTHING_STORED


def test_costs_of_a_run_are_stored_and_the_line_says_so(tmp_path: Path) -> None:
    out = tmp_path / "o"
    said = interrupted(tmp_path, "run", "--out", str(out))
    if said == NOTHING_YET:  # a slow machine was still reading the study
        assert not out.exists()
        return
    assert said == GO_ON
    if (out / "results.sqlite").exists():
        with Store(out / "results.sqlite") as store:
            store.points()
            assert not store.damaged


def test_signals_in_quick_succession_are_one() -> None:
    stopping = Stopping()
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def three() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)

    try:
        with pytest.raises(KeyboardInterrupt), stopping.watching(ends=False):
            three()
        assert stopping.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert CALM_SECONDS > 0.2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping().watching(ends=False):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
