"""Paths into documents: what is put is found, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.errors import BadInput
from ohmformer.study.sweep import Sweep, flatten, has, opened, parse_set, put

NAMES = st.text("abc", min_size=1, max_size=2)
SCALARS = st.integers() | st.booleans() | st.text(max_size=3)
TABLES = st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=6)


def at(document: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        document = document[part]
    return document


@given(st.dictionaries(NAMES, TABLES, max_size=3), st.lists(NAMES, min_size=1, max_size=3), SCALARS)
def test_what_is_put_is_found_and_the_rest_stays(table: dict[str, Any], parts: list[str], value: Any) -> None:
    before = {"task": table}
    path = ".".join(["task", *parts])
    try:
        after = put(before, path, value)
    except BadInput:
        assert any(not isinstance(found, dict) for _, found in flatten(before)), "refused without a reason"
        return
    assert has(after, path)
    assert at(after, path) == value
    assert before == {"task": table}, "changed its argument"
    rest = {name: found for name, found in flatten(before) if not f"{path}.".startswith(f"{name}.")}
    rest = {name: found for name, found in rest.items() if not f"{name}.".startswith(f"{path}.")}
    assert rest.items() <= dict(flatten(after)).items()


def test_hardware_paths_stay_whole_and_the_last_one_comes_last() -> None:
    document = {"hardware": {"base": "x", "attention.array.bits": 8, "projection.array.bits": 8}}
    changed = put(document, "hardware.attention.array.bits", 4)
    assert list(changed["hardware"].items()) == [
        ("base", "x"),
        ("projection.array.bits", 8),
        ("attention.array.bits", 4),
    ]
    assert put({"hardware": "x"}, "hardware.attention.array.bits", 4) == {
        "hardware": {"base": "x", "attention.array.bits": 4}
    }


@given(st.dictionaries(NAMES, st.lists(st.integers(), min_size=1, max_size=4).map(tuple), max_size=4))
def test_a_sweep_has_every_combination_once_and_the_last_axis_runs_fastest(axes: dict[str, tuple[int, ...]]) -> None:
    sets = list(Sweep(tuple(axes.items())).sets())
    size = 1
    for values in axes.values():
        size *= len(values)
    assert len(sets) == size
    digits = [tuple(values.index(found[path]) for path, values in axes.items()) for found in sets]
    if all(len(set(values)) == len(values) for values in axes.values()):
        assert digits == sorted(set(digits))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b = 3.5", 3.5),
        ("a.b=true", True),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b={ alpha = 2.0, beta = 0.25 }", {"alpha": 2.0, "beta": 0.25}),
        ("a.b=10 uS", "10 uS"),
        ('a.b="3"', "3"),
        ("a.b=none", "none"),
        ("a.b=x=y", "x=y"),
        ("a.b=''", ""),
        ("a.b=1\nc = 2", "1\nc = 2"),
    ],
)
def test_a_change_is_a_toml_value_or_text(text: str, value: Any) -> None:
    assert parse_set(text) == ("a.b", value)


def test_a_name_that_is_not_text_is_told_from_a_missing_one() -> None:
    with pytest.raises(BadInput, match="name = 3: is not text; put it in quotes"):
        opened({"name": 3})
