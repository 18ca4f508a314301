"""Results are read from a folder, a file or by the name of a study; what holds none is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.results.document import to_json
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.reading import read_results
from tests.report.results import DEMO


def test_a_run_is_a_folder_a_file_or_the_name_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = default_folder(DEMO.study)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(to_json(DEMO), encoding="utf-8")
    found = [read_results(run) for run in (str(folder), str(folder / "results.json"), DEMO.study)]
    assert all(each == found[0] for each in found)
    assert [point.set for point in found[0].points] == [point.set for point in DEMO.points]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "does not hold results"), ("{}", "does not hold results"), ('{"schema": 1, "points": 3}', "does not hold")],
)
def test_what_is_no_results_file_is_one_line(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=words) as error:
        read_results(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("run", ["", "nothing-here", "a\0b", "x" * 5000])
def test_a_run_that_does_not_exist_is_one_line(run: str) -> None:
    with pytest.raises(BadInput):
        read_results(run)


def test_a_folder_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no results\.json"):
        read_results(str(tmp_path))


def test_a_study_file_is_no_file_of_results(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('name = "own"\n')
    with pytest.raises(BadInput, match="is a study, which holds no results; give the folder of its run"):
        read_results(str(file))
