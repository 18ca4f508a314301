"""Each kind of hardware entry has a function that loads it, with its type."""

from __future__ import annotations

from pathlib import Path

import pytest

import ohmformer as of


def test_every_kind_is_loaded_by_its_own_function() -> None:
    assert isinstance(of.load("clipformer_tcad_2024"), of.Accelerator)
    assert isinstance(of.load_crossbar("clipformer_2024"), of.Crossbar)
    assert isinstance(of.load_cell("rram_clipformer_2024"), of.Cell)
    assert isinstance(of.load("generic_amplitude"), of.Accelerator), "an accelerator and an array have this name"
    assert isinstance(of.load_crossbar("generic_amplitude"), of.Crossbar)


@pytest.mark.parametrize(
    ("function", "name", "line"),
    [
        (of.load, "clipformer_2024", r"'clipformer_2024' is not of kind accelerator: .* use of.load_crossbar"),
        (of.load, "generic", "use of.load_cell"),
        (of.load_crossbar, "clipformer_tcad_2024", r"is not of kind array: .* use of.load\('clipformer_tcad_2024'\)"),
        (of.load_cell, "puma_2019", "use of.load_crossbar"),
        (of.load, "clipformer_tcad_2023", "did you mean 'clipformer_tcad_2024'"),
        (of.load, 3, "name is an int, 3"),
        (of.load, "nowhere.toml", "nowhere.toml"),
    ],
)
def test_what_is_not_there_gets_one_line(function: object, name: object, line: str) -> None:
    with pytest.raises(of.BadInput, match=line) as error:
        function(name)  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_a_file_of_another_kind_names_the_function(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[array]\nbase = "generic_amplitude"\n', encoding="utf-8")
    assert isinstance(of.load_crossbar(str(file)), of.Crossbar)
    with pytest.raises(of.BadInput, match=r"use of\.load_crossbar"):
        of.load(str(file))
