"""The front door: every public name exists, is documented, and type checkers see the same names as users."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import ohmformer

FRONT_DOOR = Path(ohmformer.__file__)


@pytest.mark.parametrize("name", sorted(ohmformer._HOME))
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(ohmformer, name).__doc__


def test_type_checkers_see_the_same_names_as_users() -> None:
    block = next(node for node in ast.parse(FRONT_DOOR.read_text(encoding="utf-8")).body if isinstance(node, ast.If))
    imports = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imports == {name: f"ohmformer.{module}" for name, module in ohmformer._HOME.items()}


def test_a_star_import_gives_all_names_and_leaves_dataclasses_replace_alone() -> None:
    code = "from dataclasses import replace\nfrom ohmformer import *\nprint(replace.__module__, Task.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "dataclasses Task\n", done.stderr
    assert ohmformer.replace is not dataclasses.replace


@pytest.mark.parametrize(("former", "present"), ohmformer._RENAMED.items())
def test_a_former_name_is_refused_with_its_present_one(former: str, present: str) -> None:
    with pytest.raises(AttributeError, match=f"ohmformer.{former} is now ohmformer.{present}"):
        getattr(ohmformer, former)
    assert present in dir(ohmformer)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        ohmformer.no_such_name  # noqa: B018
