"""What `print` says of the layers of a converted model: which arrays hold what, and what stays digital, and why."""

from __future__ import annotations

from typing import Any

from torch import nn

from ohmformer.capture.table import CaptureTable
from ohmformer.nn.operands.base import Operand


def on_arrays(what: str, operand: Operand) -> str:
    """An operand with the size of its arrays and the bits of its values."""
    array = operand.array
    return f"{what} on {array.rows} x {array.columns} cells of {array.bits_per_cell} bits, values of {array.bits} bits"


def joined(own: str, more: str) -> str:
    """What a layer says of itself, and what is added."""
    return "; ".join(part for part in (own, more) if part)


class StaysDigital:
    """In place of a module's `extra_repr`: the same, and why it stays digital."""

    def __init__(self, module: nn.Module, reasons: tuple[str, ...]) -> None:
        self.module, self.reasons = module, reasons

    def __call__(self) -> str:
        """The text."""
        return joined(type(self.module).extra_repr(self.module), f"digital: {', '.join(self.reasons)}")


def note_digital(model: nn.Module, table: CaptureTable) -> None:
    """Let the layers that stay digital say so when they are printed."""
    reasons: dict[str, dict[str, None]] = {}
    for row in table.digital:
        reasons.setdefault(row.module, {})[row.reason] = None
    modules = dict(model.named_modules())
    for name, why in reasons.items():
        module: Any = modules.get(name)
        if module is not None:
            module.extra_repr = StaysDigital(module, tuple(why))


def forget_note(module: nn.Module) -> None:
    """Take back what `note_digital` did to a module."""
    if isinstance(vars(module).get("extra_repr"), StaysDigital):
        del module.extra_repr
