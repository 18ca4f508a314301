"""Changed code is noticed, and what other code computed is kept only where that is asked for."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.report.caveats import caveats
from ohmformer.study.results import key as result_key
from ohmformer.study.results.document import study_results, to_json
from ohmformer.study.results.export import results
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.store import old_code
from ohmformer.study.store.local_disk import one_driver
from ohmformer.study.store.store import Store
from tests.study.small import gammas, note, study


def other_code(monkeypatch: pytest.MonkeyPatch, digit: str) -> None:
    monkeypatch.setattr(result_key, "code_digest", lambda *_: digit * 64)


def test_changed_code_is_said_and_its_points_are_computed_again(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other_code(monkeypatch, "a")
    run_study(study(0, 1), out, evaluate=note)
    assert capsys.readouterr().err == ""
    other_code(monkeypatch, "b")
    found = run_study(study(0, 1, 2), out, evaluate=note)
    said = capsys.readouterr().err
    assert "2 stored results are of other code (ohmformer " in said
    assert "code aaaaaaaa) than the present one (ohmformer " in said
    assert said.rstrip().endswith("code bbbbbbbb), and computed again; --keep-old keeps them")
    assert log.read_text().split() == ["0", "1", "0", "1", "2"]
    assert [result.old_code for result in found] == [None] * 3


def test_old_points_are_kept_knowingly_each_with_its_version(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other_code(monkeypatch, "a")
    run_study(study(0, 1), out, evaluate=note)
    other_code(monkeypatch, "b")
    asked = study(0, 1, 2)
    for _ in range(2):
        found = run_study(asked, out, evaluate=note, keep_old=True)
        assert gammas(found) == [0, 1, 2]
        assert [result.old_code and result.old_code.code for result in found] == ["aaaaaaaa", "aaaaaaaa", None]
        assert "and kept" in capsys.readouterr().err
    assert log.read_text().split() == ["0", "1", "2"]
    document = study_results(asked, study_keys(asked), found)
    assert caveats(document)[0].startswith("Kept from other code than the present one: 2 of 3 points (ohmformer ")
    assert "old_code" in to_json(document)
    assert [row["code"] for row in results(out).rows] == ["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"]
    run_study(asked, out, evaluate=note)
    assert [row["code"] for row in results(out).rows] == ["bbbbbbbb"] * 3


def test_a_damaged_row_is_computed_again_and_said(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run_study(study(0, 1), out, evaluate=note)
    with closing(sqlite3.connect(out / "results.sqlite")) as database, database:
        database.execute("UPDATE results SET result = '{}' WHERE key = ?", study_keys(study(1)))
    with pytest.raises(BadInput, match=r"rows of it are damaged; run the study again"):
        results(out)
    assert gammas(run_study(study(0, 1), out, evaluate=note)) == [0, 1]
    assert "a row is damaged; points without an intact result are computed again" in capsys.readouterr().err
    assert log.read_text().split() == ["0", "1", "1"]
    assert len(results(out).rows) == 2


def test_a_second_driver_is_refused_but_stored_results_are_read(tmp_path: Path, log: Path) -> None:
    out = tmp_path / "out"
    run_study(study(0), out, evaluate=note)
    with one_driver(out):
        assert gammas(run_study(study(0), out, evaluate=note)) == [0]
        for asked, fresh in ((study(0, 1), False), (study(0), True)):
            with pytest.raises(BadInput, match="another run computes into this folder"):
                run_study(asked, out, evaluate=note, fresh=fresh)
    assert log.read_text().split() == ["0"]
    with Store(out / "results.sqlite") as store:
        assert [json.loads(point.name) for point in store.points()] == [dict(study(0).points[0].set)]


def test_a_worker_with_other_code_refuses_points(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = old_code.code_version(study(0).points[0].settings).replace('"torch":"', '"torch":"9.')
    monkeypatch.setattr(old_code, "_same", set())
    monkeypatch.setattr(old_code, "code_version", lambda _: there)
    with pytest.raises(
        BadInput, match=r"the code of a worker \(.*torch 9\..*\) is not that of the driver \("
    ) as refused:
        run_study(study(0), tmp_path / "out", evaluate=note)
    assert str(refused.value).endswith("install the same versions for all workers")
    assert log.read_text() == ""
