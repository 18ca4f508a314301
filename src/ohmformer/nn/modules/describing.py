"""Texts that `print` shows for the layers of a converted model: arrays of operands, and why others are digital."""

from __future__ import annotations

from typing import Any

from torch import nn

from ohmformer.capture.table import CaptureTable
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.weight import WeightOperand


def on_arrays(title: str, operand: Operand) -> str:
    """Return the title of an operand with the size of its arrays, what a cell holds, and the bits of its values.

    A mitigation of static weights follows in parentheses.
    """
    array = operand.array
    holds = f"{array.bits_per_cell} bits" if array.levels is None else f"{array.levels} levels"
    text = f"{title} on {array.rows} x {array.columns} cells of {holds}, values of {array.bits} bits"
    mitigation = _mitigation(operand) if isinstance(operand, WeightOperand) else ""
    return f"{text} ({mitigation})" if mitigation else text


def _mitigation(operand: WeightOperand) -> str:
    """Return what a mitigation does to static weights, such as 'rotated, residual, radix = 1'; "" for nothing."""
    spec, words = operand.mitigation, []
    if operand.rotated:
        words.append("rotated")
    if spec.unbiased:
        words.append("unbiased")
    if spec.residual is not None:
        words.append("residual with feedback" if spec.residual.feedback else "residual")
    for name in ("scaling", "scale", "percentile", "range", "radix", "redundancy"):
        if (value := getattr(spec, name)) != type(spec).model_fields[name].default:
            words.append(f"{name} = {value}" if isinstance(value, str) else f"{name} = {value:g}")
    return ", ".join(words)


def joined(layer: str, crossbars: str) -> str:
    """Return the description of a layer and that of its crossbars, separated by "; " if neither is empty."""
    return "; ".join(part for part in (layer, crossbars) if part)


class DigitalRepr:
    """Replaces the `extra_repr` of a module that stays digital: adds the reasons to its text."""

    def __init__(self, module: nn.Module, reasons: tuple[str, ...]) -> None:
        self.module, self.reasons = module, reasons

    def __call__(self) -> str:
        """Return what the class itself says, followed by the reasons why products are digital."""
        return joined(type(self.module).extra_repr(self.module), f"digital: {', '.join(self.reasons)}")


def note_digital(model: nn.Module, table: CaptureTable) -> None:
    """Add to the printed text of each layer that stays digital the reasons in the capture table."""
    reasons: dict[str, dict[str, None]] = {}
    for row in table.digital:
        reasons.setdefault(row.module, {})[row.reason] = None
    modules = dict(model.named_modules())
    for name, of_module in reasons.items():
        module: Any = modules.get(name)
        if module is not None:
            module.extra_repr = DigitalRepr(module, tuple(of_module))


def forget_note(module: nn.Module) -> None:
    """Remove the `extra_repr` that `note_digital` gave to a module."""
    if isinstance(vars(module).get("extra_repr"), DigitalRepr):
        del module.extra_repr
