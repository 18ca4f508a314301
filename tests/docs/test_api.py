"""The page of public names holds all of them, each once, in the group where it belongs."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

import ohmformer as of

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def rows() -> list[tuple[str, str, str]]:
    """(group, name, text) of every row of the page's tables."""
    group, found = "", []
    for line in PAGE.splitlines():
        if line.startswith("## "):
            group = line[3:].split(":")[0]
        elif row := re.match(r"^\| `(\w+)` \| (.+) \|$", line):
            found.append((group, row[1], row[2]))
    return found


def test_the_page_names_every_public_name_once() -> None:
    counts = Counter(name for _, name, _ in rows())
    assert [name for name, count in counts.items() if count > 1] == []
    assert sorted(set(of._HOME) - set(counts)) == [], "public, and not in docs/api.md"
    assert sorted(set(counts) - set(of._HOME)) == [], "in docs/api.md, and not public"


def test_every_row_is_one_sentence() -> None:
    assert [name for _, name, text in rows() if not text.endswith(".")] == []


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, name, _ in rows()])
def test_a_name_stands_in_the_group_of_what_it_is(group: str, name: str) -> None:
    value = getattr(of, name)
    if group == "Verbs":
        assert inspect.isfunction(value)
    elif group == "Errors and warnings":
        assert issubclass(value, of.BadInput if name == "BadInput" else UserWarning)
    else:
        assert inspect.isclass(value) or name == "register"
        assert not (inspect.isclass(value) and issubclass(value, Exception))


def test_what_changes_its_argument_is_known_by_its_name() -> None:
    """`calibrate*` and `set_*` return no model; the page says "in place" of these and of no other name."""
    in_place = {name for _, name, text in rows() if "in place" in text}
    assert in_place == {name for name in of._HOME if name.startswith(("calibrate", "set_"))}
    for name in in_place:
        returned = inspect.signature(getattr(of, name)).return_annotation
        assert returned in ("None", "Calibration")
