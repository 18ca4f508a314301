"""The structure of a converted model: its submodules and their forwards, so that later changes are noticed.

A module that is added after the conversion computes digitally, while the capture table still shows the former module.
So a changed model is refused.
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
"""Python modules whose classes compute element by element, except `nn.MultiheadAttention`, which has parameters."""


def without_products(module: nn.Module | None) -> bool:
    """True if a module is one of PyTorch without parameters that multiplies nothing, such as `nn.Identity`."""
    cls = type(module)
    elementwise = cls is nn.Identity or (cls.__module__ in WITHOUT_PRODUCTS and issubclass(cls, nn.Module))
    return module is not None and elementwise and "forward" not in vars(module) and is_bare(module)


def is_bare(module: nn.Module) -> bool:
    """True if a module has no parameters, buffers or submodules."""
    return not any((module._parameters, module._buffers, module._modules))


@dataclass(frozen=True, eq=False)
class ModuleRecord:
    """One module as it was at its conversion.

    Attributes:
        name: name in the model.
        module: the module.
        cls: its class: a crossbar class if it multiplies.
        forward: the forward of that class.
        own_forward: a forward that was set as an attribute of the module; None without one.
        children: its submodules.
        child_names: names of the submodules.
        exchangeable: True if it has no parameters and multiplied nothing, so that another such module may replace it.
    """

    name: str
    module: nn.Module
    cls: type[nn.Module]
    forward: Callable[..., Any]
    own_forward: Callable[..., Any] | None
    children: tuple[nn.Module | None, ...]
    child_names: tuple[str, ...]
    exchangeable: bool = False

    def difference(self, exchangeable: set[int]) -> str:
        """Return a phrase for the first change that may concern products; "" without one.

        Args:
            exchangeable: `id`s of the modules that other modules without products may replace.
        """
        now = {name: child for name, child in self.module._modules.items() if name != PARAMETRIZED}
        before = {n: c for n, c in zip(self.child_names, self.children, strict=True) if n != PARAMETRIZED}
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
        own_forward = vars(self.module).get("forward")
        changed = own_forward is not self.own_forward and not self._wraps(own_forward)
        if cls.forward is not self.forward or changed:
            return "has another forward"
        return ""

    def _wraps(self, forward: Any) -> bool:
        """True if a forward calls that of the conversion, as the wrappers of mixed precision or offloading do."""
        while forward is not None:
            forward = getattr(forward, "__func__", forward)
            if forward is self.forward or forward is self.own_forward:
                return True
            forward = getattr(forward, "__wrapped__", None)
        return False


class Structure:
    """The records of a converted model; a copied or unpickled model has a separate structure."""

    def __init__(self) -> None:
        self.records: tuple[ModuleRecord, ...] = ()

    def note(self, model: nn.Module, multiplying: Iterable[str]) -> None:
        """Record the modules of the model in their present form.

        Args:
            model: the whole model.
            multiplying: names of the modules that compute products.
        """
        names = set(multiplying)
        self.records = tuple(
            _record(name, module, exchangeable=name not in names and is_bare(module))
            for name, module in model.named_modules()
        )

    def check(self) -> None:
        """Refuse a model that no longer has the structure of its conversion. Takes about 0.3 us per module.

        Raises:
            BadInput: the model was changed.
        """
        exchanged = False
        for record in self.records:
            module = record.module
            if (
                tuple(module._modules.values()) != record.children
                or module.__class__ is not record.cls
                or record.cls.forward is not record.forward
                or module.__dict__.get("forward") is not record.own_forward
            ):
                difference = record.difference({id(each.module) for each in self.records if each.exchangeable})
                if difference:
                    raise BadInput(
                        f"{record.name or 'the model itself'} {difference} since the model was converted, which would "
                        "run digitally; undo the change, or convert the changed model again: "
                        "convert(revert(model), ...)"
                    )
                exchanged = exchanged or tuple(module._modules) == record.child_names
        if exchanged:
            self._note_exchanged()

    def _note_exchanged(self) -> None:
        """Record the modules without products that replaced others."""
        by_id = {id(record.module): record for record in self.records}
        records = []
        for name, module in self.records[0].module.named_modules():
            record = by_id.get(id(module))
            if record is None and without_products(module):
                record = _record(name, module, exchangeable=True)
            elif record is not None and tuple(module._modules) == record.child_names:
                record = replace(record, children=tuple(module._modules.values()))
            if record is not None:
                records.append(record)
        self.records = tuple(records)

    def __deepcopy__(self, memo: dict[int, Any]) -> Structure:
        """Return the structure of the copied model."""
        copied = Structure()
        memo[id(self)] = copied
        copied.records = tuple(
            replace(
                record,
                module=deepcopy(record.module, memo),
                own_forward=deepcopy(record.own_forward, memo),
                children=tuple(deepcopy(child, memo) for child in record.children),
            )
            for record in self.records
        )
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the records without classes and forwards, since crossbar classes are made when they are needed."""
        state = []
        for record in self.records:
            unchanged = record.own_forward is vars(record.module).get("forward")
            forward = record.own_forward if unchanged else _lost_forward
            state.append(
                (record.name, record.module, forward, record.children, record.child_names, record.exchangeable)
            )
        return Structure, (), state

    def __setstate__(self, state: list[tuple[Any, ...]]) -> None:
        """Restore the records; classes are those of the unpickled modules."""
        self.records = tuple(
            ModuleRecord(name, module, type(module), type(module).forward, forward, children, names, exchangeable)
            for name, module, forward, children, names, exchangeable in state
        )


def _record(name: str, module: nn.Module, *, exchangeable: bool) -> ModuleRecord:
    """Return a module in its present form."""
    cls, own_forward = type(module), vars(module).get("forward")
    children = tuple(module._modules.values())
    return ModuleRecord(name, module, cls, cls.forward, own_forward, children, tuple(module._modules), exchangeable)


def _lost_forward(*_: object) -> None:
    """Stands for a forward of the conversion that the module no longer had when it was pickled."""
