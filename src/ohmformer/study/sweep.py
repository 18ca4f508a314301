"""Dotted paths into a study file, and the points that its sweep makes. Free of torch.

A document is the file as plain data. Its tables may be written with quoted dotted keys or as nested tables:
`"attention.array.bits" = 8` and `attention.array.bits = 8` mean the same.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from ohmformer.errors import BadInput, cut, shown, suggest
from ohmformer.hardware.spec import Accelerator
from ohmformer.key_search import former_names, nearest_paths
from ohmformer.lost_lines import lost_line
from ohmformer.mitigation.spec import KVClip
from ohmformer.schema import Spec
from ohmformer.study.overwriting import overwrites, overwritten
from ohmformer.study.spec import Whole
from ohmformer.textfiles import DEEPEST, parse_toml

Document = dict[str, Any]

SECTIONS = [name for name in Whole.model_fields if name != "provenance"]
"""Sections of a study, with which a path may begin. One file serves both halves."""

WHOLE_TABLES = {
    "base": "a library entry with changes",
    "kind": "a kind of a family, such as a write noise, with its parameters",
    "value": "a quantity with its source",
    **dict.fromkeys(set(KVClip.model_fields) - set(Spec.model_fields), "a clip of K and V, which has no kind"),
}
"""Key -> the kind of table that it marks. The keys of such a table have a meaning only together, so it is one value,
which is set as a whole. Any other table is a step of a path, and each of its keys is set by itself."""


@dataclass(frozen=True)
class Sweep:
    """Axes (path, values) whose cartesian product is taken; the last axis runs fastest."""

    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    label: str = ""

    @property
    def size(self) -> int:
        """Number of points."""
        return prod(len(values) for _, values in self.axes)

    def sets(self) -> Iterator[dict[str, Any]]:
        """The values of each point, path by path."""
        paths = [path for path, _ in self.axes]
        for values in product(*(values for _, values in self.axes)):
            yield dict(zip(paths, values, strict=True))

    def pinned(self, path: str, value: Any) -> Sweep:
        """The sweep with the axis of this path, if it has one, replaced by one value or a list of them."""
        axes = ((name, _values(name, value) if name == path else old) for name, old in self.axes)
        return Sweep(tuple(axes), self.label)


def flatten(table: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of each value in a table; tables are nested, save those of `WHOLE_TABLES`."""
    for key, value in table.items():
        if isinstance(value, dict) and value and not WHOLE_TABLES.keys() & value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def put(document: Document, path: str, value: Any) -> Document:
    """A copy of the document with the value at a path set; a path starts with one of the sections.

    A path into the hardware is added after the existing ones, so the last one wins. The part after `rules.` is one name
    pattern, dots included; a new pattern is added after the existing ones.

    Raises:
        BadInput: the path begins with no known section, has an empty key, or leads through a value that is not a table.
    """
    head, *rest = path.split(".")
    if head and head not in SECTIONS:
        raise BadInput(f"{cut(path)} = {shown(value)}: {_unknown_section(head)}")
    if not all(part.strip() for part in [head, *([".".join(rest)] if head == "rules" and rest else rest)]):
        raise BadInput(f"{cut(path)} = {shown(value)}: has an empty key; join the keys by single dots")
    if len(rest) > DEEPEST and head != "rules":
        raise BadInput(f"{cut(path)} = {shown(value)}: names a key that is nested too deeply; correct it")
    if head == "hardware" and rest:
        return {**document, head: _put_last(_hardware_table(document), ".".join(rest), value)}
    if head == "rules" and rest:
        table = document.get("rules", {})
        return {**document, head: _put(table, [".".join(rest)], value, path)}
    return _put(document, [head, *rest], value, path)


def _unknown_section(name: str) -> str:
    """Fault and remedy of a path that begins with no section."""
    if new := former_names(Whole).get(name):
        return f"{name} is now called {new}; rename it"
    if name == "sweep":
        return "a sweep is changed by the paths that it sweeps; write PATH=VALUE or PATH=[VALUE, VALUE]"
    if name == "search":
        return "a search is changed in its file, and its number of trials with --trials"
    if name == "name":
        return "the name of a study is written in its file; choose another folder with --out instead"
    if paths := nearest_paths(Whole, name):
        return f"unknown key {shown(name)}; did you mean {' or '.join(paths)}? known: {', '.join(sorted(SECTIONS))}"
    return f"unknown key {shown(name)}; {suggest(name, SECTIONS)}"


def has(document: Document, path: str) -> bool:
    """True if a document has a value at a path."""
    head, *rest = path.split(".")
    if head == "hardware" and rest:
        return ".".join(rest) in _hardware_table(document)
    if head == "rules" and rest:
        return ".".join(rest) in document.get("rules", {})
    table: Any = document
    for part in (head, *rest):
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def _put_last(table: Document, key: str, value: Any) -> Document:
    return {**{name: old for name, old in table.items() if name != key}, key: value}


def _hardware_table(document: Document) -> Document:
    table = document.get("hardware", {})
    return table if isinstance(table, dict) else {"base": table}


def _put(table: Any, parts: Sequence[str], value: Any, path: str) -> Document:
    if not isinstance(table, dict):
        parent = path.split(".")[: -len(parts)]
        raise BadInput(
            f"{cut(path)} = {shown(value)}: {cut('.'.join(parent))} is {shown(table)}, which has no keys; set "
            f"{cut('.'.join(parent))} as a whole"
        )
    head, *rest = parts
    return {**table, head: _put(table.get(head, {}), rest, value, path) if rest else value}


def parse_set(text: str) -> tuple[str, Any]:
    """'PATH=VALUE' -> path and value: a TOML value where it is one, else the text itself.

    Raises:
        BadInput: no '=', or a value that is TOML but cannot be read.
    """
    path, equals, written = text.partition("=")
    if not equals or not path.strip():
        raise BadInput(f"--set {cut(text)}: is not a change; write PATH=VALUE, such as --set trials.chips=5")
    if not written.strip():
        raise BadInput(f"--set {cut(text)}: has no value; write PATH=VALUE, and an empty text as PATH=''")
    try:
        return path.strip(), _toml_value(written.strip())
    except ValueError as error:
        raise BadInput(f"--set {cut(text)}: is not valid TOML ({error}); correct the value") from None


def parse_sets(texts: Sequence[str]) -> list[tuple[str, Any]]:
    """Paths and values of changes 'PATH=VALUE'.

    Raises:
        BadInput: as `parse_set`; or a change leaves nothing of an earlier one, since their paths are equal, or since
            its path is that of the table that the earlier one changes.
    """
    changes: list[tuple[str, Any]] = []
    for path, value in map(parse_set, texts):
        for earlier, old in changes:
            if overwrites(path, earlier):
                first, second = f"--set {cut(earlier)}={shown(old)}", f"--set {cut(path)}={shown(value)}"
                raise BadInput(f"{second}: overwrites {first}; leave one of them out")
        changes.append((path, value))
    return changes


def _toml_value(written: str) -> Any:
    try:
        content = parse_toml(f"value = {written}")
    except tomllib.TOMLDecodeError:
        return written
    return content["value"] if len(content) == 1 else written


def opened(document: Document) -> tuple[str, list[Sweep]]:
    """The name and the sweeps of a document, taken out of it.

    Raises:
        BadInput: there is no name, a sweep cannot be used, or a key names no section.
    """
    name = document.pop("name", None)
    if name is not None and not isinstance(name, str):
        raise BadInput(f"name = {shown(name)}: is not text; put it in quotes")
    if not isinstance(name, str) or not name.strip():
        raise BadInput("name: is missing; add a line such as name = 'my study'")
    search = document.pop("search", None)  # `ohmformer search` reads it; other verbs take the study without it
    if not isinstance(search, dict | None):
        raise BadInput(f"search = {shown(search)}: is not a table; write [search], or leave it out")
    if search is not None and "sweep" in document:
        raise BadInput("sweep and search: a study has one of them, since both say which points there are; remove one")
    sweeps = read_sweeps(document.pop("sweep", []))
    _check_hardware(document.get("hardware"))
    for unknown in sorted(set(document) - set(SECTIONS)):
        if new := former_names(Whole).get(unknown):
            raise BadInput(f"{cut(unknown)}: is now called {new}; rename it")
        if paths := nearest_paths(Whole, unknown):
            raise BadInput(f"unknown key {shown(unknown)}; did you mean {' or '.join(paths)}?")
        raise BadInput(f"unknown key {shown(unknown)}; {suggest(unknown, ['name', *SECTIONS, 'sweep', 'search'])}")
    return name, sweeps


def _check_hardware(table: Any) -> None:
    """Refuse two changes of the hardware in one file of which the later leaves nothing of the earlier."""
    if not isinstance(table, dict):
        return
    if fault := overwritten([path for path, _ in flatten(table, "hardware.")]):
        path, by = map(cut, fault)
        raise BadInput(f"{path}: is overwritten by {by}, which comes later; leave one of them out")
    if lost := lost_line(Accelerator, table):
        line, by_line, why = lost
        names = [cut(".".join(("hardware", *keys))) for keys in (line, by_line)]
        raise BadInput(f"{names[0]}: is overwritten by {names[1]}, which {why}; leave one of them out")


def check_reaches(path: str, axes: Iterable[str]) -> None:
    """Refuse to set a path that a swept path overwrites.

    Raises:
        BadInput: it would have no effect.
    """
    for axis in axes:
        if axis != path and overwrites(axis, path):
            raise BadInput(
                f"--set {cut(path)}: the study sweeps {axis}, which would overwrite it; set {axis} as a whole"
            )


def read_sweeps(table: Any) -> list[Sweep]:
    """The sweeps of a document's `sweep`: one table, an array of tables, or none (a single point).

    Raises:
        BadInput: neither of these, or an axis without values.
    """
    tables = [table] if isinstance(table, dict) else table
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise BadInput(f"sweep = {shown(table)}: is not a table; write [sweep], or [[sweep]] several times")
    return [_read_sweep(entry) for entry in tables] or [Sweep(())]


def _read_sweep(table: Document) -> Sweep:
    label = table.get("label", "")
    if not isinstance(label, str):
        raise BadInput(f"sweep.label = {shown(label)}: is not text; put it in quotes")
    axes = tuple(flatten({key: value for key, value in table.items() if key != "label"}))
    if fault := overwritten([path for path, _ in axes]):
        path, by = map(cut, fault)
        remedy = "write it once" if path == by else f"write {by} before it, or leave one of them out"
        raise BadInput(f"sweep.{path}: is overwritten by sweep.{by}, which comes later; {remedy}")
    return Sweep(tuple((path, _values(path, value)) for path, value in axes), label)


def _values(path: str, value: Any) -> tuple[Any, ...]:
    if value == []:
        raise BadInput(f"sweep.{cut(path)} = []: is empty; give at least one value, or remove the line")
    return tuple(value) if isinstance(value, list) else (value,)
