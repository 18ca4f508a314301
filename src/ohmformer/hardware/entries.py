"""Library entries that describe hardware, by name."""

from __future__ import annotations

from typing import TypeVar

from ohmformer import catalog, schema
from ohmformer.array.spec import Crossbar
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import Spec

Entry = TypeVar("Entry", Accelerator, Crossbar, Cell)

KINDS: dict[str, type[Spec]] = {"accelerator": Accelerator, "array": Crossbar, "cell": Cell}
"""Kinds of entry that describe hardware, the largest first, and their specifications."""


def load(name: str) -> Accelerator:
    """The accelerator of this name, or of this .toml file; see `load_crossbar` and `load_cell` for parts of one.

    Raises:
        BadInput: there is none, or its file is wrong; one line says where and what to do.
    """
    return _load(Accelerator, name)


def load_crossbar(name: str) -> Crossbar:
    """The array of this name, or of this .toml file.

    Raises:
        BadInput: as in `load`.
    """
    return _load(Crossbar, name)


def load_cell(name: str) -> Cell:
    """The cell of this name, or of this .toml file.

    Raises:
        BadInput: as in `load`.
    """
    return _load(Cell, name)


_DOORS = {"accelerator": "load", "array": "load_crossbar", "cell": "load_cell"}


def _load(cls: type[Entry], name: str) -> Entry:
    """An entry of one kind; where there is only one of another kind, the function that loads that is named."""
    if not isinstance(name, str):
        raise BadInput(f"name is of type {type(name).__name__}; give the name of a library entry, or of a .toml file")
    kind = cls.catalog_kind
    if name.endswith(".toml") or name not in catalog.entries(kind):
        other = kind_of(name)
        if other != kind and not (name.endswith(".toml") and kind in catalog.read(catalog.find(kind, name))):
            raise BadInput(f"{name!r} is no {kind}: the library has it as {other}; take of.{_DOORS[other]}({name!r})")
    return schema.load(cls, name)


def kind_of(name: str) -> str:
    """The kind of a named entry or .toml file."""
    if name.endswith(".toml"):
        content = catalog.read(catalog.find("accelerator", name))
        for kind in KINDS:
            if kind in content:
                return kind
        raise BadInput(f"{name}: has no table [{'], ['.join(KINDS)}]; put the hardware into one")
    for kind in KINDS:
        if name in catalog.entries(kind):
            return kind
    known = [entry for kind in KINDS for entry in catalog.entries(kind)]
    raise BadInput(f"{name!r} is not in the library; {suggest(name, known)}")
