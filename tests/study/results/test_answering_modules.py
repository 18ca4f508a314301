"""Every module that takes part in the computation of an answer is part of result keys, found by watching one run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.read_study import make_study
from ohmformer.study.results.key import ANSWERING, PACKAGE
from tests.house.test_rooms import NO_ANSWERS
from tests.study.small import document


def modules_in(settings: Any) -> set[Path]:
    """Files of the package whose code runs while a point is evaluated."""
    ran: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        ran.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        evaluate_point(settings)
    finally:
        sys.setprofile(None)
    return {Path(name) for name in ran if name.startswith(f"{PACKAGE}/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sets",
    [
        ["simulation.level=noise"],
        ["simulation.level=array"],
        ["simulation.level=noise", "mitigation.kv=auto"],
        ["simulation.level=noise", 'hardware.attention.array.age="1 h"'],
    ],
    ids=["noise", "array", "auto", "aged"],
)
def test_what_runs_for_an_answer_is_part_of_its_key(sets: list[str]) -> None:
    point = make_study(document(), sets).points[0]
    ran = modules_in(point.settings)
    covered = {path for pattern in ANSWERING for path in PACKAGE.glob(pattern)}
    others = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in ran - covered}
    assert len(ran) > 50
    assert sorted(others - NO_ANSWERS) == []
