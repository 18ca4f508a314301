"""The structure of a converted model: its submodules and their forwards, so that later changes are noticed.

A module that is put into a converted model later computes digitally, while the capture table still shows what stood
there before. So a changed model is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import nn

from ohmformer.errors import BadInput

PARAMETRIZED = "parametrizations"
"""The submodule that `torch.nn.utils.parametrize` adds; the products of the module stay the same."""


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
    """

    name: str
    module: nn.Module
    cls: type[nn.Module]
    forward: Callable[..., Any]
    own_forward: Callable[..., Any] | None
    children: tuple[nn.Module | None, ...]
    names: tuple[str, ...]

    def difference(self) -> str:
        """What has changed since; empty if nothing has that concerns products."""
        now = {name: child for name, child in self.module._modules.items() if name != PARAMETRIZED}
        before = {n: c for n, c in zip(self.names, self.children, strict=True) if n != PARAMETRIZED}
        for name in [*now, *before]:
            if name not in before:
                return f"has a new submodule {name!r}"
            if name not in now:
                return f"lacks its submodule {name!r}"
            if now[name] is not before[name]:
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
    """The parts of a converted model; copies have their own, and a pickled model notes its parts when first used."""

    def __init__(self) -> None:
        self.parts: tuple[Part, ...] = ()

    def note(self, model: nn.Module) -> None:
        """Note the model as it is now."""
        self.parts = tuple(
            Part(
                name,
                module,
                type(module),
                type(module).forward,
                vars(module).get("forward"),
                tuple(module._modules.values()),
                tuple(module._modules),
            )
            for name, module in model.named_modules()
        )

    def check(self, model: nn.Module) -> None:
        """Check that the model still has the structure of its conversion. Takes about 0.3 us per module.

        Raises:
            BadInput: it has another one.
        """
        if not self.parts:
            self.note(model)
        for part in self.parts:
            module = part.module
            if (
                tuple(module._modules.values()) != part.children
                or module.__class__ is not part.cls
                or part.cls.forward is not part.forward
                or module.__dict__.get("forward") is not part.own_forward
            ) and (difference := part.difference()):
                raise BadInput(
                    f"{part.name or 'the model itself'} {difference} since the model was converted, which would run "
                    "digitally; undo the change, or convert the changed model again: convert(revert(model), ...)"
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> Structure:
        """The structure of a copied model."""
        copied = Structure()
        memo[id(self)] = copied
        copied.parts = tuple(
            Part(
                part.name,
                deepcopy(part.module, memo),
                part.cls,
                part.forward,
                deepcopy(part.own_forward, memo),
                tuple(deepcopy(child, memo) for child in part.children),
                part.names,
            )
            for part in self.parts
        )
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Nothing is pickled, since classes on crossbars are made as they are needed."""
        return Structure, ()
