"""Patches as trees."""

import doctest

import pytest

import ohmformer as of
from ohmformer import patch
from ohmformer.patch import Patch


def test_the_example_of_the_docstring_holds() -> None:
    assert doctest.testmod(patch).failed == 0
    assert doctest.testmod(patch).attempted == 3


def test_a_dotted_key_goes_into_a_table_that_was_given_before() -> None:
    made = Patch.of({"cell": {"g_max": 1}, "cell.g_min": 2})
    assert made.as_table() == {"cell": {"g_max": 1, "g_min": 2}}
    assert Patch.of({"cell.g_min": 2, "cell": 3}).as_table() == {"cell": 3}


def test_the_only_change_has_its_full_path() -> None:
    assert Patch.of({"a.b.c": 1}).only_change() == (("a", "b", "c"), 1)
    assert Patch.of({"a.b": 1, "a.c": 2}).only_change() == ((), None)
    assert Patch.of({}).only_change() == ((), None)


def test_a_specification_refuses_changes_in_place_with_the_way_to_make_a_copy() -> None:
    hardware = of.load("nvm_ideal")
    for change in (lambda: setattr(hardware, "title", "x"), lambda: delattr(hardware, "title")):
        with pytest.raises(of.BadInput, match=r"^Accelerator\.title: an Accelerator never changes; make a changed"):
            change()
    with pytest.raises(of.BadInput, match=r"^KVClip\.alpha: .*; make a changed copy with of\.replace\(\.\.\., 'alpha'"):
        of.KVClip().alpha = 1.0  # type: ignore[misc]
