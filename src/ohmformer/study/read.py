"""Reading a study file: every point of it is checked before the first one runs. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ohmformer import catalog
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace, validate
from ohmformer.study.spec import Point, Settings, Study
from ohmformer.study.sweep import SECTIONS, Document, flatten, parse_set, put, read_sweeps


def read_study(name: str, sets: Sequence[str] = ()) -> Study:
    """The study of a file, or of a library entry, with changes.

    Args:
        name: a path that ends in .toml, or the name of a study in the library.
        sets: changes 'PATH=VALUE' with the paths of the file. In a sweep of that path they replace its values.

    Raises:
        BadInput: anything in it that cannot be used: one line with file, path, value and remedy.
    """
    file = catalog.find("study", name)
    return make_study(catalog.read(file), sets, where=str(file), folder=file.parent)


def make_study(document: Document, sets: Sequence[str] = (), *, where: str = "study", folder: Path | None = None) -> Study:
    """The study that a document describes; `where` names it in messages, hardware files are also looked up in `folder`."""
    try:
        return _make(dict(document), [parse_set(text) for text in sets], folder or Path())
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error.__cause__


def _make(document: Document, sets: list[tuple[str, Any]], folder: Path) -> Study:
    name = document.pop("name", None)
    if not isinstance(name, str) or not name.strip():
        raise BadInput("name: is missing; add a line such as name = 'my study'")
    sweeps = read_sweeps(document.pop("sweep", []))
    for unknown in sorted(set(document) - set(SECTIONS)):
        raise BadInput(f"unknown key {unknown!r}; {suggest(unknown, ['name', *SECTIONS, 'sweep'])}")
    document = {**document, **_flat_hardware(document)}
    for path, value in sets:
        swept = any(path == axis for sweep in sweeps for axis, _ in sweep.axes)
        if not (swept and isinstance(value, list)):
            document = put(document, path, value)
        sweeps = [sweep.pinned(path, value) for sweep in sweeps]
    points = [
        Point(values, sweep.label, settings(_with(document, values), folder)) for sweep in sweeps for values in sweep.sets()
    ]
    return Study(name, tuple(points))


def _flat_hardware(document: Document) -> Document:
    """The hardware with dotted keys throughout, where it starts from a base."""
    table = document.get("hardware")
    return {"hardware": dict(flatten(table))} if isinstance(table, dict) and "base" in table else {}


def _with(document: Document, values: Document) -> Document:
    for path, value in values.items():
        document = put(document, path, value)
    return document


def settings(document: Document, folder: Path) -> Settings:
    """The settings of a document without name and sweep.

    Raises:
        BadInput: one line with path, value and remedy.
    """
    if "hardware" not in document:
        raise BadInput(f"hardware.base: is missing; name one of: {', '.join(catalog.entries('accelerator'))}")
    try:
        return validate(Settings, {**document, "hardware": _hardware(document["hardware"], folder)}, where="")
    except BadInput as error:
        raise BadInput(str(error).removeprefix(": ")) from error.__cause__


def _hardware(table: Any, folder: Path) -> Accelerator:
    """The accelerator of `[hardware]`: its base with dotted changes, in the order of the file, or a whole one."""
    if isinstance(table, str):
        table = {"base": table}
    if not isinstance(table, dict):
        raise BadInput(f"hardware = {table!r}: is no table; write [hardware] and base = 'NAME' below it")
    if "base" not in table:
        return validate(Accelerator, table, where="hardware")
    base = table["base"]
    if not isinstance(base, str):
        raise BadInput(f"hardware.base = {base!r}: is no name; write the name of a library accelerator, or a path")
    beside = folder / base
    try:
        spec = load(Accelerator, str(beside) if base.endswith(".toml") and beside.is_file() else base)
    except BadInput as error:
        raise BadInput(f"hardware.base = {base!r}: {error}") from error.__cause__
    for path, value in table.items():
        if path != "base":
            spec = _replaced(spec, path, value)
    return spec


def _replaced(spec: Accelerator, path: str, value: Any) -> Accelerator:
    try:
        return replace(spec, path, value, in_file=True)
    except BadInput as error:
        raise BadInput(f"hardware.{error}") from error.__cause__
