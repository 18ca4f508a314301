"""Lines of hardware files that other lines of the same file overwrite are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import KINDS
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load

ENGINE = '{ kind = "crossbar", array = "isaac_2016" }'


def read(folder: Path, text: str) -> Accelerator:
    file = folder / "mine.toml"
    file.write_text(f"[accelerator]\n{text}\n")
    return load(Accelerator, str(file))


LOST = {
    "alias after a field": (
        'base = "nvm_ideal"\n"attention.key.array.rows" = 64\n"attention.array.rows" = 32',
        "attention.key.array.rows: is overwritten by accelerator.attention.array.rows, which comes later",
    ),
    "alias after a field, in tables": (
        'base = "nvm_ideal"\n[accelerator.attention.key.array]\nrows = 64\n[accelerator.attention.array]\nrows = 32',
        "attention.key.array.rows: is overwritten by accelerator.attention.array.rows, which comes later",
    ),
    "alias of a whole array": (
        'base = "nvm_ideal"\nattention.key.array.rows = 64\nattention.array = "isaac_2016"',
        "attention.key.array.rows: is overwritten by accelerator.attention.array, which comes later",
    ),
    "fields after an alias": (
        'base = "nvm_ideal"\nattention.array.rows = 64\nattention.key.array.rows = 32\nattention.value.array.rows = 32',
        "attention.array.rows: is overwritten by accelerator.attention.key.array.rows, which comes later",
    ),
    "a table after one of its keys": (
        'base = "nvm_ideal"\n"projection.array.rows" = 64\n[accelerator.projection.array]\nbits = 8',
        "projection.array.rows: is overwritten by accelerator.projection, which comes later",
    ),
    "an entry after one of its keys": (
        'base = "nvm_ideal"\n"projection.array.rows" = 64\n"projection.array" = "isaac_2016"',
        "projection.array.rows: is overwritten by accelerator.projection.array, which comes later",
    ),
    "a key after its table": (
        'base = "nvm_ideal"\nprojection.array.rows = 64\n"projection.array.rows" = 32',
        "projection.array.rows: is overwritten by accelerator.projection.array.rows, which comes later",
    ),
    "within an array of its own": (
        'base = "nvm_ideal"\n[accelerator.projection.array]\nbase = "isaac_2016"\n"cell.g_max" = "20 uS"\n'
        "cell = { g_max = '30 uS' }",
        "projection.array.cell.g_max: is overwritten by accelerator.projection.array.cell, which comes later",
    ),
    "alias beside both fields": (
        f'projection = {ENGINE}\n[accelerator.attention]\narray = "isaac_2016"\nkey = {ENGINE}\nvalue = {ENGINE}',
        "attention.array: is overwritten by accelerator.attention.key, which is set beside value",
    ),
}


@pytest.mark.parametrize(("text", "told"), LOST.values(), ids=LOST)
def test_a_line_that_another_overwrites_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadInput, match=rf"mine\.toml: accelerator\.{re.escape(told)}; leave one of them out$"):
        read(tmp_path, text)


def test_a_finer_line_after_a_coarser_one_and_what_a_base_says_are_no_conflict(tmp_path: Path) -> None:
    found = read(tmp_path, 'base = "nvm_ideal"\nattention.array = "isaac_2016"\nattention.key.array.rows = 64')
    assert found.attention.key.array.rows == 64  # type: ignore[attr-defined]
    assert found.attention.value.array.rows != 64  # type: ignore[attr-defined]
    partly = read(tmp_path, f'projection = {ENGINE}\n[accelerator.attention]\narray = "isaac_2016"\nkey = {ENGINE}')
    assert partly.attention.key == partly.attention.value


@pytest.mark.parametrize("kind", KINDS)
def test_no_entry_of_the_library_has_such_a_line(kind: str) -> None:
    for name in catalog.entries(kind):
        load(KINDS[kind], name)
