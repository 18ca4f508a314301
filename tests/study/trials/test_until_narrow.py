"""Chips and samples that are added until the interval is narrow, and the share of good chips."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.report.table import entry, trials_lines
from ohmformer.study import evaluate_point as evaluating
from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.loaded import identify
from ohmformer.study.read_study import make_study
from ohmformer.study.results.document import study_results
from ohmformer.study.results.spec import Accuracy
from ohmformer.study.trials import until_narrow as narrowing
from ohmformer.tasks.scoring import scores
from tests.study.small import GAMMA, document


def accuracy(*sets: str) -> Accuracy:
    (point,) = make_study(document(), (f"{GAMMA}=6", *sets)).points
    return evaluate_point(point.settings).accuracy


GROWING = ("trials.chips=8", "trials.samples=6", "trials.most_chips=20")


@pytest.mark.parametrize("asked", ["30 %", "22 %", "1 %"])
@pytest.mark.slow
def test_the_result_is_that_of_a_study_of_as_many_chips_and_samples(asked: str) -> None:
    found = accuracy(*GROWING, f"trials.ci_halfwidth={asked}")
    assert found.narrowed is not None
    fixed = accuracy(f"trials.chips={len(found.chips)}", f"task.limit={found.samples}")
    assert found.model_copy(update={"narrowed": None}) == fixed
    assert found.narrowed.reached == ((found.ci95[1] - found.ci95[0]) / 2 <= found.narrowed.asked)


@pytest.mark.slow
def test_trials_end_at_the_most_or_when_the_interval_is_narrow() -> None:
    ended = accuracy(*GROWING, "trials.ci_halfwidth=0.1 %")
    assert (len(ended.chips), ended.samples) == (20, 16)
    assert not ended.narrowed.reached
    early = accuracy(*GROWING, "trials.ci_halfwidth=45 %")
    assert early.narrowed.reached
    assert len(early.chips) * early.samples < 20 * 16


@pytest.mark.parametrize("sets", [("trials.chips=8",), (*GROWING, "trials.ci_halfwidth=1 %")])
def test_ctrl_c_leaves_no_result_of_a_part_of_the_chips(sets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored under the key of 8 chips is of 8 chips."""
    seen = []

    def stopped(*arguments: Any, **options: Any) -> Any:
        seen.append(1)
        if len(seen) > 3:
            raise KeyboardInterrupt
        return scores(*arguments, **options)

    for module in (evaluating, narrowing):
        monkeypatch.setattr(module, "scores", stopped)
    with pytest.raises(KeyboardInterrupt):
        accuracy(*sets)
    assert len(seen) == 4


def test_the_share_of_good_chips_has_an_exact_interval() -> None:
    found = accuracy("trials.chips=5", "trials.yield_above=60 %")
    good = sum(value > 0.6 for value in found.chips)
    assert found.chip_yield.share == good / 5
    assert found.chip_yield.ci95[0] < found.chip_yield.share or good == 0
    assert "yield" in entry(found)


def test_tables_say_what_was_asked() -> None:
    study = make_study(document(), (*GROWING, "trials.ci_halfwidth=0.1 %", "trials.yield_above=60 %"))
    results = study_results(study, ["k"], [evaluate_point(study.points[0].settings)])
    good, added = trials_lines(results)
    assert good == "yield: share of chips above 60.0 % [exact 95 % interval over chips]"
    assert added.endswith("within ±0.1 %: 1 of 1 points ended wider, at the most (20 chips and 16 samples)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("trials.most_chips=5", "most_chips = 5 needs ci_halfwidth"),
        ("trials.ci_halfwidth=1 %", "chips = 2 is too few for ci_halfwidth"),
        ("trials.ci_halfwidth=0", "trials.ci_halfwidth"),
        ("trials.yield_above=85", "write '85 %'"),
        ("trials.yield_below=85 %", "write yield_above"),
    ],
)
def test_bounds_that_cannot_hold_are_refused_in_one_line(change: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        identify(make_study(document(), (change,)).points[0].settings)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_more_samples_than_there_are_are_refused() -> None:
    sets = ("trials.chips=8", "trials.ci_halfwidth=1 %", "trials.samples=500")
    (point,) = make_study(document(), sets).points
    with pytest.raises(BadInput, match=r"trials.samples = 500: small has only 16 samples"):
        identify(point.settings)


@pytest.mark.parametrize("bound", ["ci_halfwidth", "yield_above"])
def test_a_metric_that_is_no_share_takes_no_percentage(bound: str) -> None:
    sets = ("trials.chips=8", "task.metric=fidelity", f"trials.{bound}=")
    with pytest.raises(
        BadInput, match=rf"trials.{bound} = '1.5 %': fidelity is no share; write a number in its own unit"
    ):
        identify(make_study(document(), (*sets[:2], f"{sets[2]}1.5 %")).points[0].settings)
    identify(make_study(document(), (*sets[:2], f"{sets[2]}0.015")).points[0].settings)
