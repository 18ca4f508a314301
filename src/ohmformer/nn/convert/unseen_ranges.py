"""Warnings of operands and converters that met only zeros while their ranges were calibrated."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from statistics import median

import torch
from torch import Tensor, nn

from ohmformer.capture.opaque_tensors import stored_values
from ohmformer.capture.torch_private import own_dispatch
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.weight import guessed_banks

SHOWN = 3
"""Number of operands that a warning names."""


class NothingSeen(UserWarning):
    """Calibration met no values, or only negligible ones, at some operand, so its range is a guess."""


def warn_of_unseen(model: nn.Module, operands: Iterable[Operand], *, stacklevel: int) -> None:
    """Warn of operands whose inputs, tokens or converter currents were all zero while ranges were calibrated.

    So are banks of experts of which the inputs used less than half, as those of a sample of a few tokens do.
    Inputs and tokens within float32 rounding of the largest weight of a usual matrix of the model count as zero.

    Args:
        model: the converted model.
        operands: its operands.
        stacklevel: as in `warnings.warn`, counted from the caller.
    """
    operands = tuple(operands)
    missed = {operand.name: part for operand in operands if (part := unseen_part(operand))}
    if missed:
        message = (
            f"calibration saw only zeros at {_listed(missed)}, so the range there is a guess and later values may "
            "saturate; calibrate on a sample of real inputs, or keep it digital by a rule"
        )
        warnings.warn(message, NothingSeen, stacklevel=stacklevel + 1)
    limit = _negligible(model)
    tiny = {op.name: part for op in operands if op.name not in missed and (part := unseen_part(op, limit))}
    if tiny:
        message = (
            f"calibration saw nothing above {limit:.1g} at {_listed(tiny)}, which is negligible beside the weights of "
            "the model, so all later values may saturate; calibrate on a sample of real inputs, or keep it digital by "
            "a rule"
        )
        warnings.warn(message, NothingSeen, stacklevel=stacklevel + 1)
    for bank, (used, total) in list(guessed_banks(operands).items())[:1]:
        message = (
            f"calibration used {used} of the {total} matrices of {bank}, so the others have the range of those, and "
            "their values may saturate; convert with a larger sample, or widen ranges by "
            "calibrate_ranges(model, batches)"
        )
        warnings.warn(message, NothingSeen, stacklevel=stacklevel + 1)


def _listed(missed: dict[str, str]) -> str:
    """Return the first names with their parts, and the number of further ones."""
    listed = ", ".join(f"{name} ({part})" for name, part in list(missed.items())[:SHOWN])
    return listed + (f" and {len(missed) - SHOWN} more" if len(missed) > SHOWN else "")


def _negligible(model: nn.Module) -> float:
    """Return the float32 rounding step of the largest weight of a usual matrix of a model: that of the median.

    One matrix may have far larger weights than all others, such as a linear probe if a feature hardly varies.
    """
    parameters = [stored_values(p) for p in model.parameters() if p.is_floating_point() and not own_dispatch(p)]
    magnitudes = [float(values.abs().amax()) for values in parameters if values.ndim > 1 and values.numel()]
    return torch.finfo(torch.float32).eps * (median(magnitudes) if magnitudes else 0.0)


def unseen_part(operand: Operand, limit: float = 0.0) -> str:
    """Return the part of an operand without a range from calibration: "inputs", "tokens", "converters" or "" for none.

    A range counts as missing if all of it is at most `limit`.
    """
    if operand.array.inputs.range == "calibrated" and not _above(operand.x_range, limit):
        return "inputs"
    if isinstance(operand, KVOperand) and operand.w_range is not None and not _above(operand.w_range, limit):
        return "tokens"
    if operand.calibrates_converters() and not _any_current(operand):
        return "converters"
    return ""


def _above(values: Tensor | None, limit: float) -> bool:
    """True if there are values above the limit."""
    return values is not None and bool((values > limit).any())


def _any_current(operand: Operand) -> bool:
    """True if a converter met a current other than zero; without one, `column_percentiles` gives the range 0 to 1."""
    if operand.adc_range is None:
        return False
    low, high = (torch.as_tensor(end) for end in operand.adc_range)
    return bool((low != 0).any()) or bool((high > 1).any())
