"""Runs stop and go on; what is stored is not computed again; here or in a pool, the bits are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.report.table import software_line
from ohmformer.streams import compiling
from ohmformer.streams.backends import drawn_on
from ohmformer.study import run
from ohmformer.study.loaded import identify
from ohmformer.study.read_study import make_study
from ohmformer.study.results.document import study_results
from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.spec import Settings
from ohmformer.study.store.store import Store
from tests.cli.drivers import stopped_if_it_fails
from tests.gpu.kernels import needs_numba
from tests.report.results import answer
from tests.study.processes import ROOT, wait_until
from tests.study.small import GAMMA, LOG, document, gamma, gammas, note, study


def lines(file: Path) -> list[float]:
    return [float(line) for line in file.read_text().split()]


def test_only_what_is_missing_is_computed(tmp_path: Path, log: Path) -> None:
    run_study(study(0, 1), tmp_path / "out", evaluate=note)
    found = run_study(study(2, 1, 0, 1), tmp_path / "out", evaluate=note)
    assert gammas(found) == [2, 1, 0, 1], "not in the order of the study"
    assert lines(log) == [0, 1, 2]
    run_study(study(1, 2), tmp_path / "out", evaluate=note, fresh=True)
    assert lines(log) == [0, 1, 2, 1, 2]
    run_study(study(0, 1, 2), tmp_path / "out", evaluate=note)
    assert lines(log) == [0, 1, 2, 1, 2], "fresh touched what is not of its study"


def fail_at_one(settings: Settings) -> PointResult:
    if gamma(settings) == 1:
        raise BadInput("one is too many; take none")
    return note(settings)


def crash_at_one(settings: Settings) -> PointResult:
    return answer(1 / (gamma(settings) - 1) + 1)


def test_a_failing_point_loses_no_other(tmp_path: Path, log: Path) -> None:
    with pytest.raises(BadInput) as caught:
        run_study(study(0, 1, 2), tmp_path, evaluate=fail_at_one)
    assert "1 of 3 points failed (2 of 3 points stored)" in str(caught.value)
    assert f"{GAMMA} = 1: one is too many; take none" in str(caught.value)
    assert lines(log) == [0, 2]
    run_study(study(0, 1, 2), tmp_path, evaluate=note)
    assert lines(log) == [0, 2, 1]


def test_a_crash_is_one_line_and_its_traceback_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ZeroDivisionError") as caught:
        run_study(study(0, 1), tmp_path, evaluate=crash_at_one)
    assert "\n" not in str(caught.value)
    assert "in crash_at_one" in (tmp_path / "errors.txt").read_text()


@pytest.mark.parametrize(
    ("section", "source", "said"),
    [
        ("model", "bundled:nope", "known: bundled:fashion-vit"),
        ("task", "bundled:nope", "known: bundled:fashion-mnist"),
        ("model", "python:tests.study.small:nope", "no function 'nope'"),
        ("task", "python:tests.study.small:model", "returns VisionTransformer"),
    ],
)
def test_nothing_is_written_before_model_and_data_are_there(
    tmp_path: Path, section: str, source: str, said: str
) -> None:
    wrong = make_study(document(sweep={"seed": [0], f"{section}.source": [document()[section]["source"], source]}))
    with pytest.raises(BadInput) as caught:
        run_study(wrong, tmp_path / "out", evaluate=note)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def start(out: Path, log: Path, workers: int) -> AbstractContextManager[subprocess.Popen[str]]:
    """A driver in a process group of its own, as a terminal would start it."""
    code = f"from tests.study.small import drive; drive({str(out)!r}, {workers})"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {code}"],
        env={**os.environ, "PYTHONPATH": paths, LOG: str(log)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return stopped_if_it_fails(process)


@pytest.mark.parametrize(
    ("how", "workers"),
    [
        ("kill", 1),
        pytest.param("kill", 2, marks=pytest.mark.slow),
        pytest.param("Ctrl-C", 1, marks=pytest.mark.slow),
        pytest.param("Ctrl-C", 2, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, log: Path, how: str, workers: int) -> None:
    out = tmp_path / "out"
    keys = study_keys(study(0, 1, 2, 3, 4, 5))

    def stored() -> int:
        if not (out / "results.sqlite").exists():
            return 0
        with Store(out / "results.sqlite") as store:
            return len(store.get(keys))

    with start(out, log, workers) as driver:
        assert wait_until(lambda: stored() == 3, 60)
        if how == "kill":
            driver.kill()
        else:
            os.killpg(driver.pid, signal.SIGINT)
        _, said = driver.communicate(timeout=60)
    if how == "Ctrl-C":
        assert said.rstrip().endswith("stopped: 3 of 6 points stored; run again to go on")
        assert said.count("Traceback") == 1, f"only the driver's own exception is expected: {said}"
    assert sorted(lines(log)) == [0, 1, 2]
    found = run_study(study(0, 1, 2, 3, 4, 5), out, evaluate=note)
    assert gammas(found) == [0, 1, 2, 3, 4, 5]
    assert sorted(lines(log)) == [0, 1, 2, 3, 4, 5], "computed something twice"


@pytest.mark.slow
def test_serial_and_pool_give_the_same_bits(tmp_path: Path) -> None:
    noisy = study(0, 4, mitigation={"clip": "calibrated"})
    assert run_study(noisy, tmp_path / "serial", workers=1) == run_study(noisy, tmp_path / "pool", workers=2)


def test_a_failing_study_leaves_nothing_that_it_made(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^study: the only point failed: one is too many"):
        run_study(make_study(document(), [f"{GAMMA}=1"]), tmp_path / "a" / "b", evaluate=fail_at_one)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_study_leaves_what_was_there(tmp_path: Path, log: Path) -> None:
    run_study(study(0), tmp_path / "out", evaluate=note)
    (tmp_path / "mine").mkdir()
    for folder in ("out", "mine"):
        with pytest.raises(BadInput, match="the only point failed"):
            run_study(study(1), tmp_path / folder, evaluate=fail_at_one)
    assert (tmp_path / "out" / "results.sqlite").exists()
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_model_that_cannot_be_loaded_is_named_with_its_study(tmp_path: Path) -> None:
    wrong = make_study(document(model={"source": "bundled:nope"}), where="study.toml")
    with pytest.raises(BadInput, match=r"^study\.toml: model\.source = 'bundled:nope'"):
        run_study(wrong, tmp_path, evaluate=note)


def unseeded() -> VisionTransformer:
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))
    return VisionTransformer(size=8, patch=4, width=16, depth=1, heads=2, classes=3)


@pytest.mark.slow
def test_a_model_that_is_another_one_in_each_worker_is_refused(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        random = study(0, 1, model={"source": f"python:{__name__}:unseeded"})
        with pytest.raises(BadInput, match=r"model\.source = .*gives another model at each call; .*manual_seed"):
            run_study(random, tmp_path / "out", workers=2, evaluate=note)
    assert not (tmp_path / "out").exists()


def exit_hard_at_one(settings: Settings) -> PointResult:
    """The evaluation of a model that ends the process without a word."""
    if gamma(settings) == 1.0:
        os._exit(0)
    return note(settings)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_point_that_ends_the_process_fails_alone(tmp_path: Path, log: Path, workers: int) -> None:
    with pytest.raises(BadInput, match=r"1 of 3 points failed \(2 of 3 points stored\).*it calls os._exit\(0\)"):
        run_study(study(0.0, 1.0, 2.0), tmp_path / "o", workers=workers, evaluate=exit_hard_at_one, progress=False)
    assert sorted(lines(log)) == [0.0, 2.0]


@needs_numba
def test_kernels_are_part_of_the_identity_and_results_are_stored_apart(tmp_path: Path) -> None:
    study = make_study(document(sweep={"simulation.kernels": ["torch", "compiled"]}))
    assert [identify(point.settings).device for point in study.points] == ["cpu", "cpu, philox_compiled"]
    plain = make_study(document())
    keys = study_keys(study)
    assert keys[0] == study_keys(plain)[0] != keys[1]
    results = run_study(study, tmp_path / "out")
    again = run_study(study, tmp_path / "out")
    assert [point.accuracy.kernels for point in results] == ["torch", "compiled"]
    assert results == again
    assert "level array, level array with compiled kernels" in software_line(study_results(study, keys, results))


@needs_numba
def test_loops_are_compiled_once_before_workers_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded = list[str]()
    monkeypatch.setattr(run, "load_compiled_loops", lambda _: loaded.append("now"))
    run_study(make_study(document()), tmp_path / "plain", evaluate=lambda _: answer())
    assert loaded == []
    compiled = make_study(document(simulation={"kernels": "compiled"}))
    for _ in range(2):  # the second run finds its results
        run_study(compiled, tmp_path / "compiled", evaluate=lambda _: answer())
        assert loaded == ["now"]


def test_matrix_units_are_part_of_the_identity() -> None:
    assert drawn_on("cpu", "amx") == "cpu, philox_compiled, amx" != drawn_on("cpu", "compiled")
    assert drawn_on("cuda", "amx") == drawn_on("cuda", "compiled")


def test_studies_without_matrix_units_are_refused_before_they_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiling, "has_numba", lambda: True)
    monkeypatch.setattr(compiling, "has_amx", lambda: False)
    study = make_study(document(simulation={"kernels": "amx"}))
    with pytest.raises(BadInput, match=r"simulation.kernels = 'amx': needs Linux on a CPU with Intel AMX.*'compiled'"):
        run_study(study, tmp_path / "out")


def test_studies_without_numba_are_refused_before_they_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiling, "has_numba", lambda: False)
    study = make_study(document(simulation={"kernels": "compiled"}))
    with pytest.raises(BadInput, match=r"simulation.kernels = 'compiled': needs numba.*ohmformer\[fast\]"):
        run_study(study, tmp_path / "out")
