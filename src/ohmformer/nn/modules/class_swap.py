"""Modules that become others in place, and the way back.

What is written onto modules of users is called `ohmformer_...`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

OWN = "ohmformer_own"
"""What the namespace of a class on crossbars holds, which tells it from classes that others derive from it."""


def swap_class(module: nn.Module, cls: type[nn.Module], **attributes: object) -> None:
    """Give a module another class, in place, and what that class needs; `restore_class` takes it back."""
    vars(module).setdefault("ohmformer_classes", []).append((type(module), tuple(attributes)))
    module.__class__ = cls
    for name, value in attributes.items():
        setattr(module, name, value)


def changing(module: nn.Module, **attributes: object) -> None:
    """Set attributes of a module that it has; `restore_class` sets them back."""
    before = vars(module).setdefault("ohmformer_values", {})
    for name, value in attributes.items():
        before.setdefault(name, getattr(module, name))
        setattr(module, name, value)


def restore_class(module: nn.Module) -> None:
    """Give a module its digital class and attributes again.

    What others derived from its class on crossbars since, as parametrizations of PyTorch do, is derived from the
    digital class.
    """
    for name, value in vars(module).pop("ohmformer_values", {}).items():
        setattr(module, name, value)
    for cls, attributes in reversed(vars(module).pop("ohmformer_classes", [])):
        for name in attributes:
            delattr(module, name)
        module.__class__ = _derived(type(module), cls)


def _derived(cls: type[Any], digital: type[nn.Module]) -> type[nn.Module]:
    """A class with its base on crossbars exchanged for a digital one."""
    own = next((each for each in cls.__mro__ if OWN in vars(each)), cls)
    if own is cls:
        return digital
    bases = tuple(_derived(base, digital) if issubclass(base, own) else base for base in cls.__bases__)
    own_slots = ("__dict__", "__weakref__")
    names: dict[str, Any] = {name: value for name, value in vars(cls).items() if name not in own_slots}
    derived: type[nn.Module] = type(cls.__name__.replace(own.__name__, digital.__name__), bases, names)
    return derived


def own_attributes(module: nn.Module) -> list[object]:
    """What a module holds for its class on crossbars."""
    return [
        value
        for name, value in vars(module).items()
        if name.startswith("ohmformer_") and name not in ("ohmformer_classes", "ohmformer_values")
    ]


def converted_part(model: nn.Module) -> str | None:
    """Name of the first module that has become another (the model itself: ""); None where there is none."""
    for name, module in model.named_modules():
        if vars(module).get("ohmformer_classes") or "ohmformer_crossbars" in vars(module):
            return str(name)
    return None
