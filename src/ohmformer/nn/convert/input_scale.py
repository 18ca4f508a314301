"""How large the inputs were that ranges are calibrated on: later ones that are far larger saturate every range."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.nn.convert.call_info import named_arguments

FAR = 5.0
"""Inputs of so many times the magnitude that calibration saw are warned of."""


class BeyondCalibration(UserWarning):
    """Inputs are many times larger than those that ranges were calibrated on, so they saturate."""


def magnitudes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, float]:
    """The largest magnitude of each floating-point argument of a call, masks left out."""
    found: dict[str, float] = {}
    for name, value in named_arguments(model, args, dict(kwargs)).items():
        if "mask" in name or not isinstance(value, (Tensor, tuple, list, Mapping)):
            continue
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel():
                low, high = torch.aminmax(leaf.detach())
                found[name] = max(found.get(name, 0.0), -float(low), float(high))
    return found


def of_sample(model: nn.Module, sample: Any) -> dict[str, float]:
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
