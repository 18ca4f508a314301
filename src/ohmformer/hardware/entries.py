"""Loading of hardware by name: entries of the library, or .toml files."""

from __future__ import annotations

from typing import TypeVar

from ohmformer import catalog, schema
from ohmformer.array.spec import Crossbar
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput, check_type, shown, suggest
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import Spec

Entry = TypeVar("Entry", Accelerator, Crossbar, Cell)

KINDS: dict[str, type[Spec]] = {"accelerator": Accelerator, "array": Crossbar, "cell": Cell}
"""Kind of entry -> specification, for the kinds that describe hardware, the largest first."""


def load(name: str) -> Accelerator:
    """Load an accelerator; see `load_crossbar` and `load_cell` for parts of one.

    Args:
        name: name of a library entry, or path of a .toml file.

    Raises:
        BadInput: there is no such accelerator, or its file has a fault.
    """
    return _load(Accelerator, name)


def load_crossbar(name: str) -> Crossbar:
    """Load an array by the name of a library entry, or from a .toml file.

    Raises:
        BadInput: as in `load`.
    """
    return _load(Crossbar, name)


def load_cell(name: str) -> Cell:
    """Load a cell by the name of a library entry, or from a .toml file.

    Raises:
        BadInput: as in `load`.
    """
    return _load(Cell, name)


_LOADERS = {"accelerator": "load", "array": "load_crossbar", "cell": "load_cell"}
"""Kind of entry -> public function that loads it."""


def _load(cls: type[Entry], name: str) -> Entry:
    """Load an entry of one kind.

    Raises:
        BadInput: as in `load`. If the entry is of another kind, the message names the function that loads that kind.
    """
    kind = cls.catalog_kind
    check_type(_LOADERS[kind], "name", name, str, "the name of a library entry, or of a .toml file")
    if name.endswith(".toml") or name not in catalog.entries(kind):
        other = kind_of(name)
        if other != kind and not (name.endswith(".toml") and kind in catalog.read(catalog.find(kind, name))):
            raise BadInput(
                f"{shown(name)} is not of kind {kind}: the library has it as {other}; "
                f"use of.{_LOADERS[other]}({shown(name)})"
            )
    return schema.load(cls, name)


def kind_of(name: str) -> str:
    """The kind of a library entry or .toml file.

    Raises:
        BadInput: the library has no entry of this name, or the file has no table of hardware.
    """
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
    raise BadInput(f"{shown(name)} is not in the library; {suggest(name, known)}")
