"""What a calibration did not see: operands and converters that met nothing but zeros, and far larger inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.torch_private import plain
from ohmformer.nn.convert.call_info import named_arguments
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand

SHOWN = 3
"""So many names stand in the warning."""
FAR = 5.0
"""Inputs of so many times the magnitude that calibration saw are warned of."""


class NothingSeen(UserWarning):
    """Calibration met nothing but zeros somewhere, or next to nothing, so a range there is a guess."""


def warn_of_unseen(model: nn.Module, operands: Iterable[Operand], *, stacklevel: int) -> None:
    """Warn of operands whose inputs, tokens or converter currents were all zero while ranges were calibrated.

    So are, as good as, inputs and tokens that vanish in rounding beside the largest weight of the model.
    """
    operands = tuple(operands)
    missed = {operand.name: what for operand in operands if (what := unseen(operand))}
    if missed:
        line = (
            f"calibration saw nothing but zeros at {_listed(missed)}, so the range there is a guess and what comes "
            "later may saturate; calibrate on a sample of real inputs, or keep it digital by a rule"
        )
        warnings.warn(line, NothingSeen, stacklevel=stacklevel + 1)
    least = _least(model)
    tiny = {op.name: what for op in operands if op.name not in missed and (what := unseen(op, least))}
    if tiny:
        line = (
            f"calibration saw nothing above {least:.1g} at {_listed(tiny)}, which vanishes beside the weights of the "
            "model, so all later values may saturate; calibrate on a sample of real inputs, or keep it digital by a "
            "rule"
        )
        warnings.warn(line, NothingSeen, stacklevel=stacklevel + 1)


def _listed(missed: dict[str, str]) -> str:
    named = ", ".join(f"{name} ({what})" for name, what in list(missed.items())[:SHOWN])
    return named + (f" and {len(missed) - SHOWN} more" if len(missed) > SHOWN else "")


def _least(model: nn.Module) -> float:
    """A rounding step of the largest weight of a model."""
    sizes = [float(p.detach().abs().amax()) for p in model.parameters() if p.is_floating_point() and p.numel()]
    return torch.finfo(torch.float32).eps * max(sizes, default=0.0)


def unseen(operand: Operand, least: float = 0.0) -> str:
    """What of an operand has no range from its calibration: "inputs", "tokens", "converters"; "" where nothing.

    Ranges of at most `least` are no ranges.
    """
    if operand.array.inputs.range == "calibrated" and not _above(operand.x_range, least):
        return "inputs"
    if isinstance(operand, KVOperand) and operand.w_range is not None and not _above(operand.w_range, least):
        return "tokens"
    if operand.calibrates_converters() and not _any_current(operand):
        return "converters"
    return ""


def _above(found: Tensor | None, least: float) -> bool:
    return found is not None and bool((found > least).any())


def _any_current(operand: Operand) -> bool:
    """Whether a converter met any current: where all are zero, `column_percentiles` gives 0 to 1."""
    if operand.adc_range is None:
        return False
    low, high = (torch.as_tensor(end) for end in operand.adc_range)
    return bool((low != 0).any()) or bool((high > 1).any())


class BeyondCalibration(UserWarning):
    """Inputs are many times larger than those that ranges were calibrated on, so they saturate."""


def magnitudes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, float]:
    """The largest magnitude of each floating-point argument of a call, masks left out."""
    found: dict[str, float] = {}
    for name, value in named_arguments(model, args, dict(kwargs)).items():
        if "mask" in name or not isinstance(value, (Tensor, tuple, list, Mapping)):
            continue
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and plain(leaf) and leaf.is_floating_point() and leaf.numel():
                low, high = torch.aminmax(leaf.detach())
                found[name] = max(found.get(name, 0.0), -float(low), float(high))
    return found


def magnitudes_of_sample(model: nn.Module, sample: Any) -> dict[str, float]:
    """`magnitudes` of a sample batch."""
    if isinstance(sample, Mapping):
        return magnitudes(model, (), sample)
    return magnitudes(model, tuple(sample) if isinstance(sample, (tuple, list)) else (sample,), {})


def warn_beyond(largest: dict[str, float], model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Warn once of inputs that are far larger than those of the calibration, whose magnitudes `largest` holds."""
    if not largest:
        return
    for name, size in magnitudes(model, args, kwargs).items():
        if 0 < FAR * largest.get(name, 0.0) < size < float("inf"):
            warnings.warn(
                f"{name} reaches {size:.2g}, but ranges were calibrated on values up to {largest[name]:.2g}, so most "
                "of what is larger saturates; convert with a sample of real inputs, or widen ranges by "
                "calibrate_ranges(model, batches)",
                BeyondCalibration,
                stacklevel=2,
            )
            largest.clear()
            return
