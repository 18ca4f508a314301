"""Library entries by name alone, whatever their kind."""

from __future__ import annotations

from ohmformer import catalog, schema
from ohmformer.array.spec import Crossbar
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import Spec

KINDS: dict[str, type[Spec]] = {"accelerator": Accelerator, "array": Crossbar, "cell": Cell}
"""Kinds of entry that describe hardware, the largest first, and their specifications."""


def load(name: str) -> Accelerator | Crossbar | Cell:
    """The accelerator, array or cell of this name, or of this .toml file.

    Raises:
        BadInput: there is none, or its file is wrong; one line says where and what to do.
    """
    spec = schema.load(KINDS[kind_of(name)], name)
    assert isinstance(spec, (Accelerator, Crossbar, Cell))
    return spec


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
