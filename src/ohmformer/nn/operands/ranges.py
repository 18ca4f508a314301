"""Calibrated tensors of an operand by name, as files and state dictionaries hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ohmformer.array.residual.feedback import ErrorFeedback
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.weight import WeightOperand

FITTED = ("mean", "basis", "inverse")
"""The tensors of a conditioning."""
MAGNITUDES = ("x_range", "w_range")
"""Ranges that are the largest magnitude of values."""


def ranges(operand: Operand) -> dict[str, Tensor]:
    """Name -> calibrated tensor: those of ranges, converters, weights and a conditioning."""
    tensors = {} if operand.x_range is None else {"x_range": operand.x_range}
    if isinstance(operand, WeightOperand) and operand.scaling is not None:
        tensors["scaling"] = operand.scaling
    if isinstance(operand, WeightOperand) and operand.feedback is not None:
        tensors |= {"feedback_order": operand.feedback.order, "feedback_shares": operand.feedback.shares}
    if isinstance(operand, KVOperand) and operand.w_range is not None:
        tensors["w_range"] = operand.w_range
    if isinstance(operand, KVOperand) and operand.conditioner is not None:
        fitted = {name: getattr(operand.conditioner, name) for name in FITTED}
        tensors |= {name: t for name, t in fitted.items() if t is not None}
    if operand.adc_range is not None:
        tensors |= {f"adc_{end}": torch.as_tensor(t) for end, t in zip(("low", "high"), operand.adc_range, strict=True)}
    return tensors


def unfit(operand: Operand, stored: Mapping[str, Tensor]) -> str:
    """Name of the first stored value that does not fit; "" if all fit.

    It is missing, unknown, no tensor, of another shape, not finite, a range below zero, a factor of zero or less, or an
    order that is none.
    """
    current = ranges(operand)
    for name in [*current, *stored]:
        tensor = stored.get(name)
        if name not in current or not isinstance(tensor, Tensor) or tensor.shape != current[name].shape:
            return name
        if not bool(tensor.to(current[name].dtype).isfinite().all()) or (
            name in MAGNITUDES and bool((tensor < 0).any())
        ):
            return name
        if name == "scaling" and not bool((tensor > 0).all()):
            return name
        if name == "feedback_order" and not torch.equal(tensor.sort().values, torch.arange(len(tensor)).to(tensor)):
            return name
    if "adc_low" in stored and bool((stored["adc_low"] > stored["adc_high"]).any()):
        return "adc_low"
    return ""


def set_ranges(operand: Operand, stored: Mapping[str, Tensor]) -> None:
    """Replace the calibrated tensors of an operand by stored ones that fit (see `unfit`), on its devices."""
    tensors = {
        name: stored[name].detach().to(current.device, current.dtype) for name, current in ranges(operand).items()
    }
    operand.x_range = tensors.get("x_range")
    if isinstance(operand, KVOperand):
        operand.w_range = tensors.get("w_range")
        if operand.conditioner is not None:
            mean, basis, inverse = (tensors.get(name) for name in FITTED)
            operand.conditioner = replace(operand.conditioner, mean=mean, basis=basis, inverse=inverse)
    if isinstance(operand, WeightOperand) and operand.scaling is not None:
        operand.scaling = tensors["scaling"]
        operand.cells.cells, operand.cells.key = None, ()
    if isinstance(operand, WeightOperand) and operand.feedback is not None:
        operand.feedback = ErrorFeedback(tensors["feedback_order"], tensors["feedback_shares"])
        operand.cells.cells, operand.cells.key = None, ()
    if "adc_low" in tensors:
        operand.adc_range = (tensors["adc_low"].cpu(), tensors["adc_high"].cpu())
