"""The structure of a converted model: its submodules and their forwards, so that later changes are noticed.

A module that is put into a converted model later computes digitally, while the capture table still shows what stood
there before. So a changed model is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ohmformer.errors import BadInput

PARAMETRIZED = "parametrizations"
"""The submodule that `torch.nn.utils.parametrize` adds; the products of the module stay the same."""

WITHOUT_PRODUCTS = ("torch.nn.modules.activation", "torch.nn.modules.dropout")
"""Where PyTorch keeps modules that compute element by element; beside `nn.MultiheadAttention`, which has parameters."""


def without_products(module: nn.Module | None) -> bool:
    """True if a module is one of PyTorch, such as `nn.Identity`, that has no parameters and multiplies nothing."""
    cls = type(module)
    known = cls is nn.Identity or (cls.__module__ in WITHOUT_PRODUCTS and issubclass(cls, nn.Module))
    return module is not None and known and "forward" not in vars(module) and bare(module)


def bare(module: nn.Module) -> bool:
    """True if a module has no parameters, buffers or submodules."""
    return not any((module._parameters, module._buffers, module._modules))


@dataclass(frozen=True, eq=False)
class Part:
    """One module as it was at its conversion.

    Attributes:
        name: name in the model.
        module: the module.
        cls: its class, which is that on crossbars if it multiplies.
        forward: the forward of that class.
        own_forward: a forward that was set on the module itself; None without one.
        children: its submodules.
        names: names of the submodules.
        exchangeable: it has no parameters and multiplied nothing, so that it may become another such module.
    """

    name: str
    module: nn.Module
    cls: type[nn.Module]
    forward: Callable[..., Any]
    own_forward: Callable[..., Any] | None
    children: tuple[nn.Module | None, ...]
    names: tuple[str, ...]
    exchangeable: bool = False

    def difference(self, exchangeable: set[int]) -> str:
        """What has changed since; empty if nothing has that concerns products.

        Args:
            exchangeable: the modules, by `id`, that may have become others without products.
        """
        now = {name: child for name, child in self.module._modules.items() if name != PARAMETRIZED}
        before = {n: c for n, c in zip(self.names, self.children, strict=True) if n != PARAMETRIZED}
        for name in [*now, *before]:
            if name not in before:
                return f"has a new submodule {name!r}"
            if name not in now:
                return f"lacks its submodule {name!r}"
            old, new = before[name], now[name]
            if new is not old and not (id(old) in exchangeable and without_products(new)):
                return f"has another submodule {name!r}"
        if list(now) != list(before):
            return "has its submodules in another order"
        cls = type(self.module)
        if not issubclass(cls, self.cls):
            return f"is of class {cls.__name__}, not {self.cls.__name__}"
        own = vars(self.module).get("forward")
        if cls.forward is not self.forward or (own is not self.own_forward and not self._wraps(own)):
            return "has another forward"
        return ""

    def _wraps(self, forward: Any) -> bool:
        """True if a forward ends up in that of the conversion, as those of mixed precision or offloading do."""
        while forward is not None:
            forward = getattr(forward, "__func__", forward)
            if forward is self.forward or forward is self.own_forward:
                return True
            forward = getattr(forward, "__wrapped__", None)
        return False


class Structure:
    """The parts of a converted model; copies and pickled models have their own."""

    def __init__(self) -> None:
        self.parts: tuple[Part, ...] = ()

    def note(self, model: nn.Module, multiplying: Iterable[str]) -> None:
        """Note the model as it is now.

        Args:
            model: the whole model.
            multiplying: names of the modules that compute products.
        """
        names = set(multiplying)
        self.parts = tuple(
            _part(name, module, exchangeable=name not in names and bare(module))
            for name, module in model.named_modules()
        )

    def check(self) -> None:
        """Check that the model still has the structure of its conversion. Takes about 0.3 us per module.

        Raises:
            BadInput: it has another one.
        """
        exchanged = False
        for part in self.parts:
            module = part.module
            if (
                tuple(module._modules.values()) != part.children
                or module.__class__ is not part.cls
                or part.cls.forward is not part.forward
                or module.__dict__.get("forward") is not part.own_forward
            ):
                difference = part.difference({id(each.module) for each in self.parts if each.exchangeable})
                if difference:
                    raise BadInput(
                        f"{part.name or 'the model itself'} {difference} since the model was converted, which would "
                        "run digitally; undo the change, or convert the changed model again: "
                        "convert(revert(model), ...)"
                    )
                exchanged = exchanged or tuple(module._modules) == part.names
        if exchanged:
            self._note_exchanged()

    def _note_exchanged(self) -> None:
        """Note the modules without products that stand in the place of others."""
        known = {id(part.module): part for part in self.parts}
        found = []
        for name, module in self.parts[0].module.named_modules():
            part = known.get(id(module))
            if part is None and without_products(module):
                part = _part(name, module, exchangeable=True)
            elif part is not None and tuple(module._modules) == part.names:
                part = replace(part, children=tuple(module._modules.values()))
            if part is not None:
                found.append(part)
        self.parts = tuple(found)

    def __deepcopy__(self, memo: dict[int, Any]) -> Structure:
        """The structure of a copied model."""
        copied = Structure()
        memo[id(self)] = copied
        copied.parts = tuple(
            replace(
                part,
                module=deepcopy(part.module, memo),
                own_forward=deepcopy(part.own_forward, memo),
                children=tuple(deepcopy(child, memo) for child in part.children),
            )
            for part in self.parts
        )
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Classes and their forwards are not pickled; those on crossbars are made as they are needed."""
        kept = []
        for part in self.parts:
            same = part.own_forward is vars(part.module).get("forward")
            forward = part.own_forward if same else _forgotten
            kept.append((part.name, part.module, forward, part.children, part.names, part.exchangeable))
        return Structure, (), kept

    def __setstate__(self, kept: list[tuple[Any, ...]]) -> None:
        """Classes are those of the modules, which have them as soon as they are made."""
        self.parts = tuple(
            Part(name, module, type(module), type(module).forward, forward, children, names, exchangeable)
            for name, module, forward, children, names, exchangeable in kept
        )


def _part(name: str, module: nn.Module, *, exchangeable: bool) -> Part:
    cls, own_forward = type(module), vars(module).get("forward")
    children = tuple(module._modules.values())
    return Part(name, module, cls, cls.forward, own_forward, children, tuple(module._modules), exchangeable)


def _forgotten(*_: object) -> None:
    """In place of a forward that a module no longer had when it was pickled."""
