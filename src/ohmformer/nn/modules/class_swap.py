"""Swap the class of a module in place, and undo it.

Attributes that are written onto modules of users begin with `ohmformer_`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

CROSSBAR_CLASS = "ohmformer_own"
"""Name in the namespace of each crossbar class; classes that are derived from it do not have the name themselves."""


def swap_class(module: nn.Module, cls: type[nn.Module], **attributes: object) -> None:
    """Give a module another class in place, and the attributes that the class needs; `restore_class` undoes it."""
    vars(module).setdefault("ohmformer_classes", []).append((type(module), tuple(attributes)))
    module.__class__ = cls
    for name, value in attributes.items():
        setattr(module, name, value)


def set_attributes(module: nn.Module, **attributes: object) -> None:
    """Change attributes of a module; `restore_class` undoes it."""
    before = vars(module).setdefault("ohmformer_values", {})
    for name, value in attributes.items():
        before.setdefault(name, getattr(module, name))
        setattr(module, name, value)


def restore_class(module: nn.Module) -> None:
    """Give a module its digital class and its former attributes again.

    If its class was derived from a crossbar class since, as parametrizations of PyTorch do, the new class is derived in
    the same way from the digital class.
    """
    for name, value in vars(module).pop("ohmformer_values", {}).items():
        setattr(module, name, value)
    for cls, attributes in reversed(vars(module).pop("ohmformer_classes", [])):
        for name in attributes:
            delattr(module, name)
        module.__class__ = _derived(type(module), cls)


def _derived(cls: type[Any], digital: type[nn.Module]) -> type[nn.Module]:
    """Return a class with its crossbar base replaced by a digital one."""
    crossbar = next((base for base in cls.__mro__ if CROSSBAR_CLASS in vars(base)), cls)
    if crossbar is cls:
        return digital
    bases = tuple(_derived(base, digital) if issubclass(base, crossbar) else base for base in cls.__bases__)
    slots = ("__dict__", "__weakref__")  # each class gets new ones
    names: dict[str, Any] = {name: value for name, value in vars(cls).items() if name not in slots}
    derived: type[nn.Module] = type(cls.__name__.replace(crossbar.__name__, digital.__name__), bases, names)
    return derived


def added_values(module: nn.Module) -> list[object]:
    """Return the values that a conversion added to a module."""
    return [
        value
        for name, value in vars(module).items()
        if name.startswith("ohmformer_") and name not in ("ohmformer_classes", "ohmformer_values")
    ]


def converted_part(model: nn.Module) -> str | None:
    """Return the name of the first converted module in a model ("" is the model itself); None without one."""
    for name, module in model.named_modules():
        if vars(module).get("ohmformer_classes") or "ohmformer_crossbars" in vars(module):
            return str(name)
    return None
