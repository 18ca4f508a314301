"""Warnings of values that a calibration did not see: operands and converters that met only zeros, and larger inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.torch_private import plain
from ohmformer.nn.convert.call_info import named_arguments
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand

SHOWN = 3
"""Number of operands that a warning names."""
FAR = 5.0
"""Ratio to the largest magnitude in the calibration above which inputs raise a warning."""


class NothingSeen(UserWarning):
    """Calibration met only zeros or negligible values at some operand, so its range is a guess."""


def warn_of_unseen(model: nn.Module, operands: Iterable[Operand], *, stacklevel: int) -> None:
    """Warn of operands whose inputs, tokens or converter currents were all zero while ranges were calibrated.

    Inputs and tokens within float32 rounding of the largest weight of the model count as zero.

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


def _listed(missed: dict[str, str]) -> str:
    """Return the first names with their parts, and the number of further ones."""
    listed = ", ".join(f"{name} ({part})" for name, part in list(missed.items())[:SHOWN])
    return listed + (f" and {len(missed) - SHOWN} more" if len(missed) > SHOWN else "")


def _negligible(model: nn.Module) -> float:
    """Return the float32 rounding step of the largest weight of a model."""
    magnitudes = [float(p.detach().abs().amax()) for p in model.parameters() if p.is_floating_point() and p.numel()]
    return torch.finfo(torch.float32).eps * max(magnitudes, default=0.0)


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


class BeyondCalibration(UserWarning):
    """Inputs are many times larger than those of the calibration, so they saturate."""


def magnitudes(named: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest magnitude of each argument of a call; none if a mask or whole numbers may hide values."""
    largest: dict[str, float] = {}
    tensors = tensors_in(dict(named))
    masked = any("mask" in name and value is not None for name, value in named.items())
    if masked or not all(leaf.is_floating_point() for leaf in tensors):
        return {}
    for name, value in named.items():
        if not isinstance(value, (Tensor, tuple, list, Mapping)):
            continue
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and plain(leaf) and leaf.is_floating_point() and leaf.numel():
                low, high = torch.aminmax(leaf.detach())
                largest[name] = max(largest.get(name, 0.0), -float(low), float(high))
    return largest


def magnitudes_of_sample(model: nn.Module, sample: Any) -> dict[str, float]:
    """Return the magnitudes of a call with a sample batch; see `magnitudes`."""
    if isinstance(sample, Mapping):
        return magnitudes(sample)
    args = tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    return magnitudes(named_arguments(model, args, {}))


def warn_beyond(largest: dict[str, float], named: Mapping[str, Any]) -> None:
    """Warn of inputs that are far larger than in the calibration, once: `largest` is emptied then.

    Args:
        largest: argument -> largest magnitude in the calibration.
        named: arguments of the call by name.
    """
    if not largest:
        return
    for name, magnitude in magnitudes(named).items():
        if 0 < FAR * largest.get(name, 0.0) < magnitude < float("inf"):
            warnings.warn(
                f"{name} reaches {magnitude:.2g}, but ranges were calibrated on values up to {largest[name]:.2g}, so "
                "larger values mostly saturate; convert with a sample of real inputs, or widen ranges by "
                "calibrate_ranges(model, batches)",
                BeyondCalibration,
                stacklevel=2,
            )
            largest.clear()
            return
