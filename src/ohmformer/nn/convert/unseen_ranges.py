"""What a calibration did not see: operands and converters that met nothing but zeros have no range of their own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch

from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand

SHOWN = 3
"""So many names stand in the warning."""


class NothingSeen(UserWarning):
    """Calibration met nothing but zeros somewhere, so a range there is a guess: values beyond 1 will saturate."""


def warn_of_unseen(operands: Iterable[Operand], *, stacklevel: int) -> None:
    """Warn of operands whose inputs, tokens or converter currents were all zero while ranges were calibrated."""
    missed = {operand.name: what for operand in operands if (what := unseen(operand))}
    if not missed:
        return
    named = ", ".join(f"{name} ({what})" for name, what in list(missed.items())[:SHOWN])
    more = f" and {len(missed) - SHOWN} more" if len(missed) > SHOWN else ""
    line = (
        f"calibration saw nothing but zeros at {named}{more}, so the range there is a guess and what comes later may "
        "saturate; calibrate on a sample of real inputs, or keep it digital by a rule"
    )
    warnings.warn(line, NothingSeen, stacklevel=stacklevel + 1)


def unseen(operand: Operand) -> str:
    """What of an operand has no range from its calibration: "inputs", "tokens", "converters"; "" where nothing."""
    if operand.array.inputs.range == "calibrated" and (operand.x_range is None or not bool(operand.x_range.any())):
        return "inputs"
    if isinstance(operand, KVOperand) and operand.w_range is not None and not bool(operand.w_range.any()):
        return "tokens"
    if operand.calibrates_converters() and not _any_current(operand):
        return "converters"
    return ""


def _any_current(operand: Operand) -> bool:
    """Whether a converter met any current: where all are zero, `column_percentiles` gives 0 to 1."""
    if operand.adc_range is None:
        return False
    low, high = (torch.as_tensor(end) for end in operand.adc_range)
    return bool((low != 0).any()) or bool((high > 1).any())
