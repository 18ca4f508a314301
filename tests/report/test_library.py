"""What `list`, `show` and `schema` say agrees with the library's files."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console
from rich.table import Table

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import KINDS, load
from ohmformer.report.json_schema import file_schema
from ohmformer.report.library import ALL, list_table, names, show_tables
from ohmformer.study.record.written import unit_of

ENTRIES = [(kind, name) for kind in ALL for name in names(kind)]
FILES = [(kind, file) for kind in (*KINDS, "shapes", "costs", "study") for file in catalog.entries(kind).values()]


def text(*tables: Table) -> str:
    output = StringIO()
    for table in tables:
        Console(file=output, width=200).print(table)
    return output.getvalue()


def test_every_entry_is_listed() -> None:
    found = text(list_table())
    assert all(name in found for _, name in ENTRIES)
    assert "bundled" not in text(list_table("cell"))
    with pytest.raises(BadInput, match="'cells' is not a kind of library entry; did you mean 'cell'"):
        list_table("cells")


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
@pytest.mark.slow
def test_every_entry_can_be_shown(kind: str, name: str) -> None:
    assert name in text(*show_tables(name, sources=True))


def test_values_have_friendly_units_and_sources() -> None:
    plain, full = text(*show_tables("rram_clipformer_2024")), text(*show_tables("rram_clipformer_2024", sources=True))
    row = next(line for line in plain.splitlines() if "g_max" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["g_max", "10 uS", "derived", "clipformer2024"]
    assert "1 / R_ON" in full
    assert "1 / R_ON" not in plain


def test_units_are_found_however_deep() -> None:
    hardware = load("clipformer_tcad_2024")
    assert unit_of(hardware, "attention.key.array.cell.g_max") == "S"
    assert unit_of(hardware, "attention.key.array.cell.g_ceiling") == "S"
    assert unit_of(hardware, "attention.key.array.age") == "s"
    assert unit_of(hardware, "attention.key.array.bits") == ""


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(BadInput, match="did you mean 'clipformer_2024'"):
        list(show_tables("clipformer_2042"))


def test_what_cannot_be_shown_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tables = r"give a study, or a file with one of the tables \[accelerator\], \[array\], \[cell\], \[shapes\]"
    for content, hint in (
        ("[[claim]]\nid = 'a'", "; `ohmformer validate` checks the claims of papers"),
        ("", ""),
        ("[x]", ""),
    ):
        Path("a.toml").write_text(content)
        with pytest.raises(BadInput, match=rf"^a.toml: cannot be shown; {tables}{hint}$"):
            list(show_tables("a.toml"))
    for name in ("results.json", "./a", "a.TOML"):
        with pytest.raises(
            BadInput, match=rf"^{name}: is not a .toml file; give a study or hardware file, or the name"
        ):
            list(show_tables(name))


def mismatches(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[str]:
    """Where a value breaks a schema of the few forms that ours has."""
    if "$ref" in schema:
        yield from mismatches(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, path)
    for option in schema.get("allOf", []):
        yield from mismatches(value, option, root, path)
    for options in (schema.get(key) for key in ("anyOf", "oneOf") if key in schema):
        found = [list(mismatches(value, option, root, path)) for option in options]
        if all(found):
            yield f"{path}: fits none of {len(found)} forms ({min(found, key=len)[0]})"
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if "type" in schema and schema["type"] != "null" and not isinstance(value, types[schema["type"]]):
        yield f"{path}: {value!r} is no {schema['type']}"
    if schema.get("type") == "null" and value is not None:
        yield f"{path}: {value!r} is not null"
    for key, allowed in (("const", lambda: [schema["const"]]), ("enum", lambda: schema["enum"])):
        if key in schema and value not in allowed():
            yield f"{path}: {value!r} is not {schema[key]!r}"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from (f"{path}: {name} is missing" for name in schema.get("required", []) if name not in value)
        for name, inner in value.items():
            if name in properties:
                yield from mismatches(inner, properties[name], root, f"{path}.{name}")
            elif schema.get("additionalProperties") is False:
                yield f"{path}: {name} is unknown"


def complaints(kind: str, content: dict[str, Any]) -> list[str]:
    schema = file_schema(kind)
    return list(mismatches(content, schema, schema))


@pytest.mark.parametrize(("kind", "file"), [*FILES, ("costs", catalog.find("study", "platforms"))])
def test_library_files_satisfy_the_schema(kind: str, file: Path) -> None:
    assert complaints(kind, tomllib.loads(file.read_text(encoding="utf-8"))) == []


CELL: dict[str, Any] = {"g_min": "1 uS", "g_max": "10 uS"}


@pytest.mark.parametrize(
    "cell",
    [
        {**CELL, "g_max": 1e-5},
        {**CELL, "g_mx": "1 uS"},
        {"g_min": "1 uS"},
        {**CELL, "write_noise": {"kind": "sqrt", "sigma": 0.1}},
        {**CELL, "g_max": {"value": "10 uS", "sorce": "x"}},
        {**CELL, "g_max": {"value": 1e-5, "source": "x"}},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(cell: dict[str, Any]) -> None:
    assert complaints("cell", {"cell": CELL}) == []
    assert complaints("cell", {"cell": cell})


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "examples").glob("*.toml")), ids=lambda file: file.name
)
def test_examples_satisfy_the_schema(file: Path) -> None:
    """A search was refused as an unknown key."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    assert complaints("study" if "task" in content else "costs", content) == []


def test_shares_may_be_written_in_percent() -> None:
    """Numbers in percent, as the documentation writes them, were refused."""
    cell = {**CELL, "write_noise": {"kind": "uniform", "sigma": "3 %"}, "faults": {"stuck_at_g_min": "0.5 %"}}
    assert complaints("cell", {"cell": cell}) == []
    study = {"name": "x", "model": {"source": "bundled:fashion-vit"}, "hardware": {"base": "clipformer_tcad_2024"}}
    study |= {"task": {"source": "bundled:fashion-mnist"}}
    assert complaints("study", {**study, "trials": {"ci_halfwidth": "0.5 %", "yield_above": "85 %"}}) == []


@pytest.mark.parametrize(
    "search",
    [
        {"choose": [{"path": "dataflow.block", "values": [1]}]},
        {"objectives": ["aera"], "choose": [{"path": "dataflow.block", "values": [1]}]},
        {"objectives": ["area"], "choose": []},
        {"objectives": ["area"], "choose": [{"path": "dataflow.block"}]},
        {"objectives": ["area"], "choose": [{"path": "dataflow.block", "low": 1}]},
        {"objectives": ["area"], "choose": [{"path": "dataflow.block", "valeus": [1]}]},
        {"objectives": ["area"], "choose": [{"path": "dataflow.block", "values": [1]}], "trials": 0},
    ],
)
def test_the_schema_refuses_what_a_search_refuses(search: dict[str, Any]) -> None:
    study = {"name": "x", "model": {"source": "shapes:bert-base"}, "hardware": {"base": "xformer_tvlsi_2023"}}
    good = {"objectives": ["area"], "choose": [{"path": "dataflow.block", "values": [1]}]}
    validator = jsonschema.Draft202012Validator(file_schema("costs"))
    assert list(validator.iter_errors({**study, "search": good})) == []
    assert list(validator.iter_errors({**study, "search": search}))


def test_an_unknown_kind_of_file_is_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'study'"):
        file_schema("studdy")


def test_the_schema_of_studies_has_budgets_and_no_fields_that_code_sets() -> None:
    schema = file_schema("study")
    assert {"auto", "latency", "energy", "cells", "area", "residual", "first_tokens"} == set(
        schema["$defs"]["KVBudget"]["properties"]
    )
    assert {
        "name",
        "model",
        "task",
        "hardware",
        "rules",
        "mitigation",
        "dataflow",
        "cost",
        "seed",
        "simulation",
    } <= set(schema["properties"])
    assert not {"timing", "pricing"} & set(schema["properties"])
