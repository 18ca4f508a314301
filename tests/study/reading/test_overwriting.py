"""Values that would have no effect are refused: swept, set or written ones that a later path overwrites."""

from __future__ import annotations

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.overwriting import overwrites, overwritten
from ohmformer.study.read_study import make_study, make_whole

ROWS, KEY_ROWS = "hardware.attention.array.rows", "hardware.attention.key.array.rows"
BASE = {"name": "x", "model": {"source": "shapes:bert-base"}}


def whole(*sets: str, hardware: dict[str, object] | None = None, sweep: dict[str, object] | None = None) -> list[int]:
    document = {**BASE, "hardware": {"base": "nvm_ideal", **(hardware or {})}, "sweep": sweep or {}}
    points = make_whole(document, list(sets)).points
    return [point.settings.hardware.attention.key.array.rows for point in points]


def test_a_path_overwrites_itself_what_is_below_it_and_what_its_alias_stands_for():
    assert overwrites("model", "model.batch")
    assert not overwrites("model.batch", "model")
    assert overwrites(ROWS, KEY_ROWS)
    assert not overwrites(KEY_ROWS, ROWS)
    assert overwrites("hardware.attention.array", KEY_ROWS)
    assert not overwrites("hardware.attention.array.row", KEY_ROWS)
    assert overwrites("rules", "rules.a.b")
    assert not overwrites("rules.a", "rules.a.b")
    assert overwritten([ROWS, KEY_ROWS, "hardware.attention.value.array.rows"]) == (ROWS, KEY_ROWS)


@pytest.mark.parametrize(
    "sweep",
    [
        {KEY_ROWS: [32, 16], ROWS: [64, 128]},
        {KEY_ROWS: [32, 16], "hardware.attention.key.array": ["isaac_2016", "puma_2019"]},
        {"model.batch": [1, 2], "model": [{"source": "shapes:gpt2"}]},
        {"model": {"batch": [1, 2]}, "model.batch": [3, 4]},
    ],
)
def test_an_axis_that_a_later_axis_overwrites_is_refused(sweep: dict[str, object]):
    with pytest.raises(BadInput, match=r"sweep\.\S+: is overwritten by sweep\.\S+, which comes later; write "):
        whole(sweep=sweep)


def test_a_finer_axis_after_a_coarser_one_is_allowed():
    assert whole(sweep={ROWS: [64, 128], KEY_ROWS: [32, 16]}) == [32, 16, 32, 16]


def test_a_set_that_a_sweep_overwrites_by_an_alias_is_refused():
    with pytest.raises(BadInput, match=r"the study sweeps hardware\.attention\.array\.rows, which would overwrite it"):
        whole(f"{KEY_ROWS}=32", sweep={ROWS: [64, 128]})
    assert whole(f"{ROWS}=32", sweep={KEY_ROWS: [64, 128]}) == [64, 128]


def test_a_set_that_a_later_set_overwrites_by_an_alias_is_refused():
    with pytest.raises(BadInput, match=r"overwrites --set hardware\.attention\.key\.array\.rows=32"):
        whole(f"{KEY_ROWS}=32", f"{ROWS}=64")
    assert whole(f"{ROWS}=64", f"{KEY_ROWS}=32") == [32]


@pytest.mark.parametrize(
    "hardware",
    [
        {"attention.key.array.rows": 64, "attention.array.rows": 32},
        {"attention": {"array": {"rows": 64}}, "attention.array.rows": 32},
        {"attention.array.rows": 64, "attention": {"array": {"rows": 32}}},
    ],
)
def test_hardware_that_a_later_line_overwrites_is_refused(hardware: dict[str, object]):
    with pytest.raises(BadInput, match=r"hardware\.attention\S+: is overwritten by hardware\.attention\.array\.rows"):
        whole(hardware=hardware)


def test_hardware_that_a_later_table_replaces_is_refused():
    with pytest.raises(BadInput, match=r"attention\.array\.rows: is overwritten by hardware\.attention, which"):
        whole(hardware={"attention.array.rows": 64, "attention": {"key": {"array": {"columns": 32}}}})
    assert whole(hardware={"attention": {"array": {"rows": 64}}, "attention.key.array.columns": 32}) == [64]


def test_rules_of_two_patterns_may_be_set_together():
    document = {"name": "x", "model": {"source": "bundled:fashion-vit"}, "hardware": {"base": "nvm_ideal"}}
    document["task"] = {"source": "bundled:fashion-mnist", "limit": 2}
    points = make_study(document, ["rules.a.b=digital", "rules.a=digital"]).points
    assert [pattern for pattern, _ in points[0].settings.rules] == ["a.b", "a"]
