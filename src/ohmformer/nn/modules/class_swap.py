"""Modules that become others in place, and the way back.

What is written onto modules of users is called `ohmformer_...`.
"""

from __future__ import annotations

from torch import nn


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
    """Give a module its digital class and attributes again."""
    for name, value in vars(module).pop("ohmformer_values", {}).items():
        setattr(module, name, value)
    for cls, attributes in reversed(vars(module).pop("ohmformer_classes", [])):
        for name in attributes:
            delattr(module, name)
        module.__class__ = cls


def converted_part(model: nn.Module) -> str | None:
    """Name of the first module that has become another (the model itself: ""); None where there is none."""
    for name, module in model.named_modules():
        if vars(module).get("ohmformer_classes") or "ohmformer_crossbars" in vars(module):
            return str(name)
    return None
