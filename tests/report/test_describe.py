"""What `show` says of where values come from: a value that is stated is never called a default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import ohmformer as of
import ohmformer.study.spec
from ohmformer import units
from ohmformer.registry import Family, families
from ohmformer.report.describe import spec_table
from ohmformer.schema import walk
from ohmformer.study.record.written import unit_of

ARRAYS = {"crossbar": "clipformer_2024", "sram": "xformer_2023_sram"}
LISTS: dict[str, dict[str, Any]] = {
    "piecewise_polynomial": {"g_ref": 1.0, "times": [1.0, 2.0], "borders": [0.5], "coefficients": [[1.0]] * 4},
    "power_law_table": {"t0": 1.0, "g": [0.0, 1.0], "nu": [0.1, 0.2], "nu_std": [0.1, 0.2]},
    "flicker_table": {"t_read": 1.0, "g": [0.0, 1.0], "q": [0.1, 0.2]},
    "table": {"targets": [0.0, 1.0], "times": [1.0], "std": [1.0, 1.0], "mean": [[1.0, 1.0]]},
}
"""Values of the kinds whose fields are lists."""
KINDS = [(family, kind) for family, cls in families().items() for kind in cls.kinds()]
CANDIDATES = (0.05, 1, 2, 1.0, 1e-6, 1e9)


def stated(cls: type[Family]) -> Iterator[dict[str, Any]]:
    """Every field of a kind as a number; and all that have a unit as a quantity in quotes."""
    if cls.model_fields["kind"].default in LISTS:
        yield LISTS[cls.model_fields["kind"].default]
        return
    names = [name for name in cls.model_fields if name not in ("kind", "provenance", "array")]
    table: dict[str, Any] = {"array": ARRAYS[kind]} if (kind := cls.model_fields["kind"].default) in ARRAYS else {}
    for value in CANDIDATES:
        every = table | dict.fromkeys(names, value)
        for name in names:
            for other in (value, *CANDIDATES):
                if valid(cls, every | {name: other}, name):
                    every[name] = other
                    break
            else:
                del every[name]  # one of a list of words
        if valid(cls, every):
            yield every
            made = cls.model_validate(every)
            quantities = {n: units.show(v, u) for n, v in every.items() if n in names and (u := unit_of(made, n))}
            yield every | quantities
            return
    pytest.fail(f"no values found for {cls.__name__}")


def valid(cls: type[Family], table: dict[str, Any], name: str = "") -> bool:
    """True if the table is one of this kind; with `name`, if that field is not the reason why it is none."""
    try:
        cls.model_validate(table)
    except (ValidationError, of.BadInput, ValueError) as error:
        return name != "" and name not in str(error)
    return True


def test_all_families_are_tried() -> None:
    assert {"write_noise", "read_noise", "drift", "faults", "engine", "dataflow"} <= {family for family, _ in KINDS}


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_what_a_kind_is_told_has_a_source(family: str, kind: str) -> None:
    cls = families()[family].kinds()[kind]
    for table in stated(cls):
        sources = {path: source for path, _, source in walk(cls.model_validate(table))}
        for name in set(table) - {"array"}:
            assert sources[name] is not None, (table[name], name)
            assert sources[name].kind == "user", (table[name], name)


@pytest.mark.parametrize("sigma", ["0.02", '"2 %"', '{ value = "2 %" }', '{ value = 0.02, kind = "user" }'])
def test_a_file_that_states_a_noise_shows_it_as_stated(tmp_path: Path, sigma: str) -> None:
    file = tmp_path / "cell.toml"
    file.write_text(f'[cell]\ng_min = "1 uS"\ng_max = "50 uS"\nwrite_noise = {{ kind = "uniform", sigma = {sigma} }}\n')
    cell = of.load_cell(str(file))
    table = spec_table(cell, "cell")
    kinds = dict(zip(table.columns[0].cells, table.columns[2].cells, strict=True))
    assert [kinds[name] for name in ("g_min", "g_max", "write_noise.sigma")] == ["user"] * 3
    assert kinds["write_noise.kind"] == ""
    assert kinds["levels"] == "default"
