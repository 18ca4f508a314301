"""The warning of weights that have grown since ranges were calibrated."""

from __future__ import annotations

import warnings
from math import sqrt

GROWTH = 1.5
"""Ratio of the root mean square of weights to that at calibration above which they raise a warning."""


class GrownWeights(UserWarning):
    """Weights are much larger than in the calibration, so the inputs of later layers saturate."""


def has_grown(calibrated: float, now: float) -> bool:
    """True if weights are much larger than in the calibration; both arguments are sums of squares."""
    return 0 < GROWTH**2 * calibrated < now < float("inf")


def warn_of_growth(name: str, calibrated: float, now: float) -> None:
    """Warn of weights that have grown, as those do that are normalized or scaled after the conversion.

    Args:
        name: name of the operand.
        calibrated: sum of the squares of the weights when ranges were calibrated.
        now: the same of the weights that are written.
    """
    whose = name or "the model itself"
    warnings.warn(
        f"the weights of {whose} are {sqrt(now / calibrated):.3g} times as large as those with which ranges were "
        "calibrated, so its outputs may saturate the layers that follow; call calibrate_ranges(model), or change "
        "weights before the conversion",
        GrownWeights,
        stacklevel=2,
    )
