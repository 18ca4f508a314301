"""Points that end their process, and folders that go away while a study runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.spec import Settings
from ohmformer.study.store.store import Store
from tests.study.processes import ROOT
from tests.study.small import GAMMA, die_at_three, gamma, gammas, note, study


@pytest.mark.slow
def test_a_point_that_kills_its_worker_is_named_and_blocks_no_other(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = study(0, 1, 2, 3, 4, 5), tmp_path / "out"
    message = rf"1 of 6 points failed \(5 of 6 points stored\), first {GAMMA} = 3: its process died"
    with pytest.raises(BadInput, match=message):
        run_study(asked, out, workers=2, evaluate=die_at_three)
    said = capsys.readouterr().err
    assert "a worker process died; under way were:" in said
    assert f"{GAMMA} = 3" in said
    assert sorted({float(line) for line in log.read_text().split()}) == [0, 1, 2, 4, 5]
    before = log.read_text()
    with pytest.raises(BadInput, match=message):
        run_study(asked, out, workers=1, evaluate=die_at_three)
    assert log.read_text() == before, "computed again what was stored"
    assert gammas(run_study(asked, out, evaluate=note)) == [0, 1, 2, 3, 4, 5]
    with Store(out / "results.sqlite") as store:
        assert not store.unfinished_attempts()


@pytest.mark.slow
def test_a_point_that_kills_the_only_process_is_the_last_one_of_the_next_run(tmp_path: Path, log: Path) -> None:
    out = tmp_path / "out"
    code = (
        "from pathlib import Path; from ohmformer.study.run import run_study; "
        f"from tests.study.small import *; run_study(study(3, 0, 1), Path({str(out)!r}), evaluate=die_at_three)"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert done.returncode == -9
    with pytest.raises(BadInput, match=rf"1 of 3 points failed \(2 of 3 points stored\), first {GAMMA} = 3"):
        run_study(study(3, 0, 1), out, evaluate=die_at_three)
    assert [float(line) for line in log.read_text().split()] == [0, 1]


class Meddle:
    """An evaluation that does something to the results folder at one point."""

    def __init__(self, at: float, action: Any) -> None:
        self.at, self.action = at, action

    def __call__(self, settings: Settings) -> dict[str, Any]:
        if gamma(settings) == self.at:
            self.action()
        return note(settings)


@pytest.mark.parametrize("how", ["folder removed", "store removed", "folder moved", "store replaced", "log removed"])
def test_a_store_that_goes_away_stops_the_study_at_once(tmp_path: Path, log: Path, how: str) -> None:
    out = tmp_path / "out"
    actions = {
        "folder removed": lambda: shutil.rmtree(out),
        "store removed": lambda: [file.unlink() for file in out.glob("results.sqlite*")],
        "folder moved": lambda: out.rename(tmp_path / "moved"),
        "store replaced": lambda: (out / "other").write_bytes(b"") or (out / "other").replace(out / "results.sqlite"),
        "log removed": lambda: (out / "results.sqlite-wal").unlink(),
    }
    with pytest.raises(BadInput, match=r"results\.sqlite: was moved, removed or replaced while the study ran; stopped"):
        run_study(study(0, 1, 2, 3), out, evaluate=Meddle(1, actions[how]))
    assert [float(line) for line in log.read_text().split()] == [0, 1], "went on without its store"
    if how == "folder moved":
        keys = study_keys(study(0, 1))
        with Store(tmp_path / "moved" / "results.sqlite") as store:
            assert set(store.get(keys)) == set(keys)


def test_a_result_that_cannot_be_stored_makes_no_point_suspect(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run used to start a process of its own for the point that met a full disk."""

    def full(self: Store, key: str, result: object, keys: object) -> None:
        raise BadInput("the disk is full")

    out = tmp_path / "out"
    run_study(study(2), out, evaluate=note)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", full)
        with pytest.raises(BadInput, match="the disk is full"):
            run_study(study(0, 1), out, evaluate=note)
    with Store(out / "results.sqlite") as store:
        assert not store.unfinished_attempts()
