"""The warning of inputs that are far larger than those on which ranges were calibrated."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.torch_private import plain, tree_leaves
from ohmformer.nn.calls.call_info import named_arguments

FAR = 5.0
"""Ratio to the largest magnitude in the calibration above which inputs raise a warning."""


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
                largest[name] = max(largest.get(name, 0.0), float(torch.maximum(-low, high)))
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
