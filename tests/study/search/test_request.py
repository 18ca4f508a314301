"""What a file may say under [search]: everything else is refused in one line with key, value and remedy."""

from __future__ import annotations

import builtins
from math import inf, nan
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load
from ohmformer.study.read_study import make_whole
from ohmformer.study.search.goals import Constraint, goals_of
from ohmformer.study.search.proposals import check_optuna
from ohmformer.study.search.request import read_request
from ohmformer.tasks.metric_kinds import METRICS
from tests.study.search.build import CHOICES, SIZES, document

SIZE, SLICES, GAMMA = CHOICES
BAD: list[tuple[dict[str, Any], str]] = [
    ({"search": {"objectives": []}}, "search.objectives: is missing or empty"),
    ({"search": {"objectives": ["enrgy"]}}, "'enrgy': is not a quantity; did you mean 'energy'"),
    ({"search": {"objectives": ["wear"]}}, "is called lifetime here"),
    ({"search": {"objectives": ["loss", "accuracy"]}}, "loss and accuracy say the same"),
    ({"search": {"objectives": ["area", "area"]}}, "'area' stands twice"),
    ({"search": {"constraints": ["area < 3 mm2"]}}, "has <; write <= or >="),
    ({"search": {"constraints": ["area <= 3"]}}, "'3' has no unit"),
    ({"search": {"constraints": ["area <= 3 pJ"]}}, "has the unit 'pJ'"),
    (
        {"search": {"constraints": ["loss >= 1 %"]}},
        "leaves out the best designs, since lower values are better; write <=",
    ),
    ({"search": {"constraints": ["small"]}}, "is not a constraint; write one such as"),
    ({"search": {"constraints": "area <= 3 mm2"}}, "is not a list of texts"),
    ({"search": {"trials": 0}}, "search.trials = 0: must be a whole number from 1"),
    ({"search": {"trails": 3}}, "search: unknown key 'trails'; did you mean 'trials'"),
    ({"search": {"sampler": "tree"}}, "search.sampler = 'tree': is not known"),
    ({"search": {"batch": 1.5}}, "search.batch = 1.5: must be a whole number"),
    ({"search": {"first": [{"size": 32}]}}, "search.first 1.slices: is missing"),
    ({"search": {"first": [{"size": 48, "slices": 1, "gamma": 0.0}]}}, "search.first 1.size = 48: is no value of size"),
    ({"choose": []}, "search.choose: is missing"),
    ({"choose": [{"path": "hardware.attention.array.size"}]}, "has no values; give one of"),
    ({"choose": [{**SIZE, "values": []}]}, "values = []: is not a list of values"),
    ({"choose": [{**SIZE, "values": [32, 32]}]}, "has 32 twice"),
    ({"choose": [{**SIZE, "values": [32, -3]}]}, "search.choose 1 (size) = -3: hardware.projection.array.size"),
    ({"choose": [{**SIZE, "paths": [*SIZES, SIZES[0]]}]}, "names a path twice"),
    ({"choose": [{**SIZE, "step": 2}]}, "step: is for a range"),
    ({"choose": [SIZE, SIZE]}, "two choices have this name"),
    ({"choose": [SIZE, {**SIZE, "name": "again"}]}, "which overwrites hardware.projection.array.size"),
    ({"choose": [{"path": "hardwear.base", "values": ["x"]}]}, "begins with no section of a study"),
    ({"choose": [{"path": "task.limit", "values": [10]}]}, "metrics of different data cannot be compared"),
    ({"choose": [{"path": "hardware.attention.array.sise", "values": [32]}]}, "sise"),
    ({"choose": [{"path": "dataflow.block", "low": 8, "high": 4}]}, "low = 8: must be below high = 4"),
    ({"choose": [{"path": "dataflow.block", "low": 8}]}, "high: is missing"),
    ({"choose": [{"path": "cost.rate", "low": nan, "high": 4}]}, "low = nan: must be a finite number"),
    ({"choose": [{"path": "cost.rate", "low": 1, "high": inf}]}, "high = inf: must be a finite number"),
    ({"choose": [{"path": "cost.rate", "low": "1 Hz", "high": 4}]}, "low = '1 Hz': must be a number; write its unit"),
    ({"choose": [{"path": "cost.rate", "low": 1, "high": 4, "step": 9}]}, "step = 9: must be above 0"),
    ({"choose": [{**SIZE, "when": {"slices": 1}}]}, "no choice before this one is called 'slices'"),
    ({"choose": [SIZE, {**SLICES, "when": {"size": 48}}]}, "when.size = 48: is no value of size"),
    ({"choose": [{"name": "a", "options": {"b": 3}}]}, "options.b = 3: is not a table"),
    ({"choose": [{"name": "a", "options": {"b": {"name": "x"}}}]}, "begins with no section"),
    ({"sweep": {SLICES["path"]: [1, 2]}}, "sweep and search: a study has one of them"),
    ({"task": None}, "task"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_tables_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    changes = dict(changes)
    if "task" in changes:
        study = {name: value for name, value in document().items() if name != "task"}
    else:
        study = document(**changes)
    with pytest.raises(BadInput) as refused:
        read_request(study)
    assert message in str(refused.value)
    assert str(refused.value).startswith("study: ")


def test_every_verb_refuses_a_search_that_is_no_table() -> None:
    for value in (nan, 3, "fast", [1]):
        for other in ({}, {"sweep": {SLICES["path"]: [1, 2]}}):
            with pytest.raises(BadInput, match=r"study: search = .*: is not a table"):
                make_whole({**document(), "search": value, **other})


def test_a_study_without_search_is_refused() -> None:
    study = {name: value for name, value in document().items() if name != "search"}
    with pytest.raises(BadInput, match=r"search: is missing; add a table \[search\]"):
        read_request(study)


def test_other_verbs_take_the_study_without_its_search() -> None:
    (point,) = make_whole(document()).points
    assert point.set == {}
    assert point.settings.hardware == load(Accelerator, "clipformer_tcad_2024")


def test_changes_reach_the_study_but_not_what_is_searched() -> None:
    assert read_request(document(), ["trials.chips=7"]).checked[0].trials.chips == 7
    with pytest.raises(BadInput, match=r"search.choose 1 \(size\) sets .*, so it has no effect"):
        read_request(document(), [f"{SIZES[0]}=64"])
    with pytest.raises(BadInput, match="with --trials"):
        read_request(document(), ["search.trials=3"])


def test_values_that_fit_no_first_design_but_another_one_are_accepted() -> None:
    bits = {"path": "hardware.attention.array.bits", "values": [8, 6]}
    cells = {"path": "hardware.attention.array.bits_per_cell", "values": [2, 1]}
    assert read_request(document(choose=[bits, cells])).checked


def test_choices_move_paths_together_and_options_set_several() -> None:
    options = {"name": "o", "options": {"b": {SIZES[0]: 32, "dataflow": {"kind": "sequence_blocking", "block": 4}}}}
    asked = read_request(document(choose=[options]))
    changes, whole = asked.settings_of((("o", "b"),))
    assert changes == {SIZES[0]: 32, "dataflow.kind": "sequence_blocking", "dataflow.block": 4}
    assert whole.dataflow.block == 4  # type: ignore[attr-defined]
    square = read_request(document()).settings_of((("size", 32), ("slices", 1), ("gamma", 0.0)))[1].hardware
    assert square.attention.key.array.rows == square.projection.array.columns == 32  # type: ignore[union-attr]


def test_both_ends_of_the_example_are_the_designs_of_the_library() -> None:
    asked = read_request("examples/13_search.toml")
    all_nvm, xformer = (asked.settings_of(design)[1] for design in asked.table.first)
    assert all_nvm.hardware == load(Accelerator, "clipformer_tcad_2024")
    assert xformer.hardware == load(Accelerator, "xformer_tvlsi_2023")
    assert not all_nvm.rules
    assert not xformer.rules


def test_bounds_are_those_of_the_unit() -> None:
    goals = goals_of(["loss"], ["area <= 100 mm2", "loss <= 1 point", "lifetime >= 2 years"], METRICS["top1"])
    assert [each.bound for each in goals.constraints] == [1e-4, 0.01, 2 * 31_557_600.0]
    assert goals_of(["perplexity"], ["perplexity <= 25"], METRICS["perplexity"]).constraints[0].bound == 25
    with pytest.raises(BadInput, match="the metric of the task is top1"):
        goals_of(["perplexity"], [], METRICS["top1"])
    for metric, text, message in (
        ("top1", "accuracy <= 50 %", "leaves out the best designs, since higher values are better; write >="),
        ("top1", "accuracy >= 150 %", "'150 %' is no value of accuracy, from 0 to 100"),
        ("perplexity", "perplexity >= 25", "leaves out the best designs, since lower values are better; write <="),
    ):
        with pytest.raises(BadInput, match=message):
            goals_of(["area"], [text], METRICS[metric])


def test_unlimited_values_keep_lower_bounds() -> None:
    (bound,) = goals_of(["lifetime"], ["lifetime >= 2 years"], None).constraints
    assert isinstance(bound, Constraint)
    assert bound.violation(float("inf")) <= 0 < bound.violation(1.0)


def test_a_search_without_optuna_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "optuna":
            raise ImportError("No module named 'optuna'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r"pip install 'ohmformer\[search\]'"):
        check_optuna()
