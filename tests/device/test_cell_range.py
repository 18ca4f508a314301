"""Ranges and levels of cells in files: conductances, resistances, on/off ratios and lists."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.report.json_schema import file_schema
from ohmformer.schema import replace, validate
from ohmformer.study.sweep import parse_set
from tests.build import array


def read(**table: Any) -> Cell:
    return validate(Cell, table, where="file")


@pytest.mark.parametrize(
    ("table", "g_min", "g_max"),
    [
        ({"r_on": "100 kohm", "r_off": "10 Mohm"}, 1e-7, 1e-5),
        ({"r_on": "100 kohm", "on_off_ratio": 100}, 1e-7, 1e-5),
        ({"g_max": "10 uS", "on_off_ratio": {"value": 100, "source": "mine"}}, 1e-7, 1e-5),
        ({"g_max": "10 uS", "on_off_ratio": "inf"}, 0.0, 1e-5),
        ({"g_min": "0.1 uS", "r_on": "100 kohm"}, 1e-7, 1e-5),
        ({"level_conductances": ["0.1 uS", "4 uS", "10 uS"]}, 1e-7, 1e-5),
        ({"level_conductances": ["10 Mohm", "200 kohm", "100 kohm"]}, 1e-7, 1e-5),
        ({"level_conductances": ["0.1 uS", "100 kohm"], "g_max": "10 uS"}, 1e-7, 1e-5),
    ],
)
def test_the_range_follows_from_what_a_file_states(table: dict[str, Any], g_min: float, g_max: float) -> None:
    found = read(**table)
    assert (found.g_min, found.g_max) == pytest.approx((g_min, g_max), rel=1e-12)


def test_sources_stay_with_the_field() -> None:
    table = {"value": 50, "source": "mine", "where": "page 3", "how": "mean of two cells"}
    source = dict(read(g_max="10 uS", on_off_ratio=table).provenance)["g_min"]
    assert (source.source, source.where, source.kind) == ("mine", "page 3", "derived")
    assert source.how == "g_max / on_off_ratio; mean of two cells"


def test_shorthands_can_be_set() -> None:
    hardware = array()
    for text, g_min, g_max in (
        ("cell.on_off_ratio=20", 5e-7, 1e-5),
        ('cell.r_on="50 kohm"', 1e-7, 2e-5),
        ('cell.r_off="5 Mohm"', 2e-7, 1e-5),
    ):
        changed = replace(hardware, *parse_set(text), in_file=True).cell
        assert (changed.g_min, changed.g_max) == pytest.approx((g_min, g_max), rel=1e-12)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"r_on": "10 uS", "g_min": "0 S"}, "r_on = '10 uS': has the unit 'uS' where ohm is expected"),
        ({"r_on": 1e5, "g_min": "0 S"}, "r_on = 100000.0: is not a resistance; write a number and a unit in quotes"),
        ({"r_on": "0 ohm", "g_min": "0 S"}, "r_on = '0 ohm': is not a resistance above 0"),
        ({"r_on": "1 kohm", "g_max": "1 mS", "g_min": "0 S"}, "r_on = '1 kohm': and g_max both state g_max"),
        ({"r_on": "1 kohm", "r_off": "1 Mohm", "on_off_ratio": 3}, "on_off_ratio = 3: and r_off both state g_min"),
        ({"r_on": "1 Mohm", "r_off": "1 kohm"}, "is not below g_max"),
        ({"on_off_ratio": 5}, "on_off_ratio = 5: needs the other end of the range; give g_max or r_on"),
        ({"g_max": "1 uS", "on_off_ratio": 1}, "on_off_ratio = 1: is not an on/off ratio; write a number above 1"),
        ({"g_max": "1 uS", "on_off_ratio": "many"}, "on_off_ratio = 'many': is not an on/off ratio"),
        ({"level_conductances": ["1 uS", "3 uS", "3 uS"]}, "level_conductances holds a conductance twice"),
        ({"level_conductances": ["1 uS", "3 uS"], "g_max": "4 uS"}, "do not span g_min = 1 uS to g_max = 4 uS"),
        ({"level_conductances": ["1 uS"], "g_min": "1 uS", "g_max": "2 uS"}, "has one level; give two or more"),
        ({"level_conductances": ["1 uS", "much"], "g_min": "1 uS", "g_max": "2 uS"}, "is not a quantity"),
        ({"level_conductances": ["1 uS", "2 uS"], "levels": 3}, "levels = 3, but level_conductances has 2"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(**table)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_schema_knows_the_shorthands() -> None:
    options = file_schema("cell")["$defs"]["Cell"]["anyOf"]
    table = next(option for option in options if "r_on" in option.get("properties", {}))
    assert "g_min" not in table.get("required", [])


@pytest.mark.parametrize("g_max", [{"base": "x"}, [1.0], True, 10**400])
def test_a_ratio_beside_an_unusable_end_names_that_end(g_max: object) -> None:
    with pytest.raises(BadInput, match=r"g_max"):
        read(on_off_ratio=4.5, g_max=g_max)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["1 uS", "inf"], r"level_conductances\.1 = 'inf': is not a quantity"),
        (["1 uS", 800], r"level_conductances\.1 = 800: is not a magnitude that occurs in S"),
        (["-5 uS", "1 uS"], r"level_conductances\.0 = '-5 uS': must be >= 0"),
        (["1 uS", "0 ohm"], r"level_conductances\.1 = '0 ohm': is not a resistance above 0"),
        (["1 uS", ["2 uS"]], r"level_conductances\.1 = \['2 uS'\]: is not a conductance"),
        (["1 uS", 1e-5], r"level_conductances\.1 = 1e-05: has no unit"),
        ("2 Mohm", r"level_conductances = '2 Mohm': must be a list; put it in \[ \]"),
        (5, r"level_conductances = 5: must be a list"),
    ],
)
def test_a_wrong_level_is_named_itself_and_not_the_range_that_follows_from_it(levels: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(level_conductances=levels)


def test_uneven_levels_say_both_fields_that_an_array_needs() -> None:
    cell = {**array().cell.canonical(), **dict.fromkeys(("g_min", "g_max")), "levels": None}
    uneven = [1e-6, 3e-6, 4e-6, 8e-6, 9e-6, 15e-6, 20e-6]
    cell = {name: value for name, value in cell.items() if value is not None}
    with pytest.raises(BadInput, match="set levels = 7 and bits_per_cell = 3"):
        replace(array(), "cell", {**cell, "level_conductances": uneven})
