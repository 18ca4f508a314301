"""Failures of points become one line, and a file if there are several or a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.failures import ERRORS, FULL, Failure, collected, in_words, named_point, raise_failures
from ohmformer.study.spec import Point, Study

POINT = Point({"a.b": 1, "c": "x"}, "", None)
STUDY = Study("s", (POINT, Point({}, "", None)), "s.toml")


def line(tmp_path: Path, *failures: Failure, total: int = 3) -> str:
    with pytest.raises(BadInput) as caught:
        raise_failures(
            failures, total=total, done=total - len(failures), what="stored", where="s.toml", folder=tmp_path
        )
    return str(caught.value)


def test_a_single_failure_needs_no_file(tmp_path: Path) -> None:
    failure = Failure(in_words(POINT), BadInput("too many"))
    said = "s.toml: 1 of 3 points failed (2 of 3 points stored), first a.b = 1, c = 'x': too many"
    assert line(tmp_path, failure) == said
    assert line(tmp_path, failure, total=1) == "s.toml: the only point failed: too many"
    assert not (tmp_path / ERRORS).exists()


def test_several_failures_stand_in_a_file_if_the_folder_holds_others(tmp_path: Path) -> None:
    failures = Failure("a = 1", BadInput("one")), Failure("a = 2", BadInput("two"))
    assert line(tmp_path, *failures, total=2).endswith("first a = 1: one")
    assert not (tmp_path / ERRORS).exists(), "nothing is stored, so that the folder may be removed"
    assert line(tmp_path, *failures).endswith(f"one; details are in {tmp_path / ERRORS}")
    assert (tmp_path / ERRORS).read_text() == "a = 1: one\n\na = 2: two\n"


def test_what_nobody_foresaw_has_its_traceback_in_the_file(tmp_path: Path) -> None:
    assert "ZeroDivisionError: none" in line(tmp_path, Failure("a = 1", ZeroDivisionError("none")))
    assert FULL in line(tmp_path, Failure("a = 1", MemoryError()))
    assert "MemoryError" in (tmp_path / ERRORS).read_text()


def test_a_message_names_file_and_point() -> None:
    with pytest.raises(BadInput, match=r"^s\.toml: wrong \(at a\.b = 1, c = 'x'\)$"), named_point(STUDY, POINT):
        raise BadInput("wrong")
    with pytest.raises(BadInput, match=r"^wrong$"), named_point(Study("s", (POINT,), ""), POINT):
        raise BadInput("wrong")


def test_other_points_go_on_after_a_failure() -> None:
    failures: list[Failure] = []
    with collected(failures, STUDY.points[1]):
        raise BadInput("wrong")
    assert [failure.text() for failure in failures] == ["the only point: wrong\n"]
