"""No number without a source: every quantity in the hardware library says where it comes from."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ohmformer import catalog
from ohmformer.report.library import SPECS
from ohmformer.schema import load, walk

LIBRARY = Path(__file__).parents[2] / "src" / "ohmformer" / "library"
FOLDERS = ("cells", "arrays", "accelerators", "models")
BIB_KEY = re.compile(r"^\s*@\w+\s*\{\s*([^\s,]+)\s*,", re.MULTILINE)
QUANTITY = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*(?:%|[^\W\d_]*(?:\^\d)?(?:/[^\W\d_]+)?)\s*")
"""A number, alone or with one unit: '64', '10 uS', '2.5 mm^2', '5 %'. Not '1T1R', not '2 bits per cell'."""


def entries() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (LIBRARY / folder).rglob("*.toml"))


def known_sources() -> set[str]:
    return set(BIB_KEY.findall((LIBRARY / "sources.bib").read_text(encoding="utf-8")))


def is_number(value: Any) -> bool:
    if isinstance(value, str):
        return QUANTITY.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def complaint(table: dict[str, Any], sources: set[str]) -> str | None:
    """What a table with a value lacks: a known source, or a kind that needs none."""
    source, kind = table.get("source", ""), table.get("kind", "published")
    if source and source not in sources:
        return f"source {source!r} is not in sources.bib"
    if not source and kind == "published":
        return 'has neither source nor kind; add source = "KEY" with its entry in sources.bib, or kind and how'
    return None


def complaints(value: Any, path: str, sources: set[str]) -> Iterator[str]:
    if isinstance(value, dict) and "value" in value and not isinstance(value["value"], dict):
        if found := complaint(value, sources):
            yield f"{path}: {found}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from complaints(inner, f"{path}.{key}" if path else key, sources)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from complaints(inner, f"{path}[{index}]", sources)
    elif is_number(value):
        yield f"{path} = {value!r}: a bare number; write {{ value = {value!r}, source = ... }}"


def test_every_number_has_a_source_or_a_kind() -> None:
    files = entries()
    assert files, f"found no entries in {LIBRARY}"
    sources = known_sources()
    violations = [
        f"{path.relative_to(LIBRARY)}: {line}"
        for path in files
        for line in complaints(tomllib.loads(path.read_text(encoding="utf-8")), "", sources)
    ]
    assert not violations, "\n" + "\n".join(violations)


@pytest.mark.parametrize("text", ["64", "10 uS", "-1.5e-3", "2.5 mm^2", "5 %", "3 pJ/bit", "8bit"])
def test_a_quantity_is_recognized(text: str) -> None:
    assert is_number(text)


@pytest.mark.parametrize("text", ["1T1R", "64x64", "2 bits per cell", "differential", "TSMC 28"])
def test_prose_is_no_quantity(text: str) -> None:
    assert not is_number(text)


def bare_keys(value: Any, key: str = "") -> Iterator[str]:
    """Last part of the key of every value that a table states without a source."""
    if isinstance(value, dict) and "value" not in value:
        for inner_key, inner in value.items():
            yield from bare_keys(inner, inner_key.rpartition(".")[2])
    elif not isinstance(value, dict):
        yield key


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_only_what_a_file_states_is_marked_as_the_users(kind: str) -> None:
    files = {name: tomllib.loads(file.read_text(encoding="utf-8")) for name, file in catalog.entries(kind).items()}
    assert files
    for name, table in files.items():
        stated = set(bare_keys(table))
        marked = {path for path, _, source in walk(load(SPECS[kind], name)) if source and source.kind == "user"}
        assert {path for path in marked if path.rpartition(".")[2] not in stated} == set(), name
