"""The variance of a read as a polynomial in the conductance, for loops that compute with numbers instead of tensors."""

from __future__ import annotations

from ohmformer.array.spec import Crossbar
from ohmformer.device.kinds import NoNoise, Proportional, SqrtReadNoise, Uniform
from ohmformer.device.spec import Cell

Coefficients = tuple[float, float, float]
"""v0 [S^2], v1 [S] and v2 of a variance v0 + v1 G + v2 G^2, for conductances G of 0 or more."""


def coefficients(cell: Cell) -> Coefficients | None:
    """The coefficients of the variance of one read, at any age; None for kinds of read noise without such a form."""
    noise = cell.read_noise
    kind = type(noise)  # a kind that derives from one of these may compute something else
    if kind is NoNoise:
        return 0.0, 0.0, 0.0
    if isinstance(noise, Proportional) and kind is Proportional:
        return 0.0, 0.0, noise.sigma**2
    if isinstance(noise, Uniform) and kind is Uniform:
        return (noise.sigma * (cell.g_max - cell.g_min)) ** 2, 0.0, 0.0
    if isinstance(noise, SqrtReadNoise) and kind is SqrtReadNoise:
        return 0.0, noise.sigma**2 * cell.g_max, 0.0
    return None


def variance_of_digits(array: Crossbar) -> tuple[float, float, float] | None:
    """v0, v1 and v2 where one read of digit d has the variance v0 + v1 d + v2 d^2, in digits squared; else None."""
    found = coefficients(array.cell)
    if found is None:
        return None
    v0, v1, v2 = found
    lowest = array.cell.g_min / array.step
    v0, v1 = v0 / array.step**2, v1 / array.step
    return v0 + v1 * lowest + v2 * lowest**2, v1 + 2 * v2 * lowest, v2
