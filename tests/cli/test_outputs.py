"""What a slip of the pen must not destroy: studies, stores and files of others in place of an output."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest

from ohmformer.cli.output import write_files
from ohmformer.errors import BadInput
from ohmformer.study.results.export import results
from ohmformer.study.store import stored_costs
from ohmformer.study.store.store import Store, StoredPoint
from tests.cli.test_cli import Run, ohmformer  # noqa: F401  (a fixture)

LIBRARY = Path(__file__).parents[2] / "src" / "ohmformer" / "library"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "own.toml"
    shutil.copyfile(LIBRARY / "costs" / "bert_base.toml", file)
    return file


@pytest.mark.parametrize("option", ["--json", "--trace"])
def test_an_output_never_replaces_what_this_program_did_not_write(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
    option: str,
) -> None:
    before = study.read_bytes()
    (tmp_path / "store.sqlite").write_bytes(b"SQLite format 3\x00" + bytes(100))
    for victim in (study, tmp_path / "store.sqlite"):
        code, _, err = ohmformer("cost", str(study), option, str(victim))
        assert code == 2
        assert "holds something that this program did not write" in err
    assert study.read_bytes() == before
    for _ in range(2):  # its own output is written anew
        assert ohmformer("cost", str(study), option, str(tmp_path / "out.json"))[0] == 0


def test_two_outputs_in_one_file_are_refused(ohmformer: Run, study: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "link").symlink_to(tmp_path / "same.json")
    for other in ("same.json", "link"):
        code, _, err = ohmformer(
            "cost", str(study), "--json", str(tmp_path / "same.json"), "--trace", str(tmp_path / other)
        )
        assert code == 2
        assert "is the file of --json, too" in err


@pytest.mark.parametrize("content", ["precious", json.dumps({"schema": 1, "study": "another", "points": []})])
def test_results_of_another_study_are_not_written_over(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
    content: str,
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "results.json").write_text(content)
    code, _, err = ohmformer("run", str(study), "--out", str(folder))
    assert code == 2
    assert "choose another folder with --out" in err
    assert (folder / "results.json").read_text() == content


def test_costs_do_not_displace_accuracies(ohmformer: Run, study: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "out"
    name = tomllib.loads(study.read_text())["name"]
    folder.mkdir()
    with Store(folder / "results.sqlite") as store:
        store.note_points(name, [StoredPoint(name, {}, key="1")])
    code, _, err = ohmformer("cost", str(study), "--out", str(folder))
    assert code == 2
    assert "holds accuracies of this study" in err
    assert [file.name for file in folder.iterdir()] == ["results.sqlite"]


def test_costs_are_stored_where_they_are_asked_for(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = ohmformer("cost", str(study))[1]
    assert [file.name for file in tmp_path.iterdir()] == [study.name]
    code, out, _ = ohmformer("cost", str(study), "--out", "out")
    assert code == 0
    assert out == f"{plain}written to out: results.json, results.sqlite\n"
    assert "--fresh: has no effect without --out" in ohmformer("cost", str(study), "--fresh")[2]


def test_a_trace_is_not_written_over_by_results(ohmformer: Run, study: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "out"
    folder.mkdir()
    code, _, err = ohmformer("cost", str(study), "--out", str(folder), "--trace", str(folder / "results.json"))
    assert code == 2
    assert "is the file of --out, too" in err
    assert not any(folder.iterdir())


def test_a_folder_that_may_not_be_written_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    said = write_files(tmp_path, {"front.csv": "new"}, lambda: [], "search.journal")
    assert said.startswith(f"{tmp_path} may not be written: its files stay as they are")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["cost", "run"])
def test_a_point_without_a_price_stops_no_other(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
    verb: str,
) -> None:
    overloads = "hardware.chip.overload"
    text, _, _ = study.read_text().partition("[[sweep]]")
    study.write_text(f'{text}\n[sweep]\n"{overloads}" = ["refuse", "note"]\n"cost.rate" = ["1 Hz", "2 Hz"]\n')
    out = tmp_path / "out"
    code, _, err = ohmformer(verb, str(study), "--out", str(out))
    assert code == 2
    assert "2 of 4 points failed (2 of 4 points priced), first hardware.chip.overload = 'refuse', cost.rate" in err
    assert f"details are in {out / 'errors.txt'}" in err
    assert len((out / "errors.txt").read_text().split("\n\n")) == 2
    stored = results(out)
    assert [(row[overloads], row["cost.rate"]) for row in stored.rows] == [("note", "1 Hz"), ("note", "2 Hz")]
    assert stored.missing == 2
    code, _, err = ohmformer("cost", str(study))
    assert err.count("\n") == 1
    assert "(at hardware.chip.overload = 'refuse', cost.rate = '1 Hz')" in err, (
        "nothing is stored, so the first ends it"
    )


@pytest.mark.parametrize("verb", ["cost", "run"])
def test_what_is_no_file_is_refused_before_anything_is_computed(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
    verb: str,
) -> None:
    (tmp_path / "out" / "results.json").mkdir(parents=True)
    code, out, err = ohmformer(verb, str(study), "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert "results.json: is not a file, so results cannot be written there; move it away" in err
    assert not (tmp_path / "out" / "results.sqlite").exists()


def test_all_points_are_listed_before_the_first_is_priced(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = list[object]()
    price = stored_costs.price

    def stops(*settings: object) -> object:
        calls.append(settings)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return price(*settings)  # type: ignore[arg-type]

    monkeypatch.setattr(stored_costs, "price", stops)
    code, _, err = ohmformer("cost", str(study), "--out", str(tmp_path / "out"))
    assert code == 130
    assert f"stopped: 2 of {(total := 3)} points stored; run again to go on" in err
    assert (len(results(tmp_path / "out").rows), results(tmp_path / "out").missing) == (2, total - 2)


def test_a_full_disk_stops_costs_at_once(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = list[object]()

    def full(*_: object) -> None:
        tries.append(_)
        raise BadInput("results.sqlite: cannot hold results (database or disk is full); make room on the disk")

    monkeypatch.setattr(Store, "put_cost", full)
    code, _, err = ohmformer("cost", str(study), "--out", str(tmp_path / "out"))
    assert (code, len(tries)) == (2, 1)
    assert "make room on the disk" in err
    assert "points failed" not in err


def test_a_page_is_not_made_of_results_that_a_later_run_has_left_behind(
    ohmformer: Run,  # noqa: F811
    study: Path,
    tmp_path: Path,
) -> None:
    out, page = str(tmp_path / "out"), str(tmp_path / "page.html")
    text, _, _ = study.read_text().partition("[[sweep]]")
    sweep = '{}\n[sweep]\n"hardware.chip.overload" = {}\n'
    study.write_text(sweep.format(text, '["refuse", "note", "slow"]'))
    assert ohmformer("cost", str(study), "--out", out)[0] == 2
    code, _, err = ohmformer("report", out, "-o", page)
    assert code == 2
    assert "has no results.json; wait until the run has ended" in err
    (tmp_path / "out" / "search.json").touch()
    assert "it holds a search, whose front is in front.csv" in ohmformer("report", out, "-o", page)[2]
    (tmp_path / "out" / "errors.txt").touch()
    code, _, err = ohmformer("report", out, "-o", page)
    assert "errors.txt says which points failed: mend them or take them out of the study, and run it again" in err
    study.write_text(sweep.format(text, '["note"]'))
    assert ohmformer("cost", str(study), "--out", out)[0] == 0
    assert ohmformer("report", out, "-o", page)[0] == 0
    study.write_text(sweep.format(text, '["refuse", "note"]'))
    assert ohmformer("cost", str(study), "--out", out)[0] == 2
    code, _, err = ohmformer("report", out, "-o", page)
    assert code == 2
    assert "has other points than the last run of this study" in err
    assert ohmformer("report", f"{out}/results.json", "-o", page)[0] == 0
