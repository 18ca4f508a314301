"""The pages on leaking cells and on years of use say what their stored results say."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ohmformer.study.read_study import read_study

REPRODUCTIONS = Path(__file__).parents[2] / "reproductions"
SCRIPTS = {"leaking_cells": "leaking", "years_of_use": "years"}
STUDIES = [(folder, file.stem) for folder in SCRIPTS for file in sorted((REPRODUCTIONS / folder).glob("*.toml"))]


def imported(folder: str) -> Iterator[ModuleType]:
    """The script of a folder."""
    pytest.importorskip("matplotlib")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPRODUCTIONS / folder))
        yield importlib.import_module(SCRIPTS[folder])
        sys.modules.pop(SCRIPTS[folder], None)


@pytest.fixture(params=SCRIPTS)
def script(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script of each folder, on a copy of it."""
    shutil.copytree(REPRODUCTIONS / request.param, tmp_path / "copy")
    for module in imported(request.param):
        monkeypatch.setattr(module, "HERE", tmp_path / "copy")
        monkeypatch.setattr(module, "RESULTS", tmp_path / "copy" / "results")
        yield module


@pytest.fixture
def leaking() -> Iterator[ModuleType]:
    yield from imported("leaking_cells")


@pytest.mark.slow
def test_the_page_is_made_of_the_stored_results(script: ModuleType) -> None:
    folder: Path = script.HERE
    before = (folder / "README.md").read_text(encoding="utf-8")
    pictures = sorted(folder.glob("*.png"))
    for picture in pictures:
        picture.unlink()
    script.write_page()
    assert (folder / "README.md").read_text(encoding="utf-8") == before
    assert all(picture.stat().st_size > 10_000 for picture in pictures)


def test_the_axis_of_perplexity_has_labels_around_the_software_model(leaking: ModuleType) -> None:
    figure, ax = leaking.plt.subplots()
    leaking.panel("smollm2", ax)
    figure.canvas.draw()
    bottom, top = ax.get_ylim()
    labels = [float(label.get_text()) for label in ax.get_yticklabels() if bottom <= label.get_position()[1] <= top]
    leaking.plt.close(figure)
    assert min(labels) < leaking.software("smollm2") < sorted(labels)[1]


@pytest.mark.slow
def test_the_page_follows_its_results(script: ModuleType) -> None:
    name = {"leaking": "vit", "years": "weights"}[script.__name__]
    file = script.RESULTS / f"{name}.json"
    results = json.loads(file.read_text(encoding="utf-8"))
    results["points"][0]["accuracy"] |= {"mean": 0.4321, "ci95": [0.4, 0.5]}
    file.write_text(json.dumps(results), encoding="utf-8")
    script.write_page()
    assert "43.2 [40.0, 50.0]" in (script.HERE / "README.md").read_text(encoding="utf-8")


def test_a_study_that_fails_leaves_the_page(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess[str]([], 2)
    monkeypatch.setattr(script.subprocess, "run", lambda *_, **__: failed)
    name = next(stem for folder, stem in STUDIES if SCRIPTS[folder] == script.__name__)
    with pytest.raises(SystemExit, match=rf"^{name}\.toml was not finished; the page is as before$"):
        script.compute(name)


def test_without_its_data_the_language_model_is_left_out(
    leaking: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    computed: list[str] = []
    monkeypatch.setattr(leaking, "compute", computed.append)
    monkeypatch.setattr(leaking, "write_page", lambda: None)
    monkeypatch.setattr(leaking, "DATA", tmp_path / "missing")
    leaking.main([])
    assert computed == ["vit"]
    assert "fetch.py --only smollm2 news.txt" in capsys.readouterr().err
    leaking.main(["--page"])
    assert computed == ["vit"]
    with pytest.raises(SystemExit, match="gpt2: is not a study"):
        leaking.main(["gpt2"])


@pytest.mark.parametrize(("folder", "study"), STUDIES)
def test_results_have_the_points_of_the_study(folder: str, study: str) -> None:
    stored = json.loads((REPRODUCTIONS / folder / "results" / f"{study}.json").read_text(encoding="utf-8"))
    points = read_study(str(REPRODUCTIONS / folder / f"{study}.toml")).points
    assert [point["set"] for point in stored["points"]] == [dict(point.set) for point in points]


@pytest.mark.parametrize("study", ["vit", "smollm2"])
@pytest.mark.slow
def test_stored_times_and_prices_are_those_of_the_code(leaking: ModuleType, study: str) -> None:
    stored = json.loads((leaking.RESULTS / f"{study}_times.json").read_text(encoding="utf-8"))
    found = leaking.timed(leaking.HERE / f"{study}.toml")
    for row, expected in zip(stored, found, strict=True):
        assert row["set"] == dict(expected["set"])
        numbers = {name: value for name, value in row.items() if name != "set"}
        assert numbers == pytest.approx({name: expected[name] for name in numbers}, rel=1e-9)
