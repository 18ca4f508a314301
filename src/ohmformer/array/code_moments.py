"""What differential arrays hold on average after a write, by code: noise whose lower half is cut off has a bias."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.spec import VERIFY_FORMS, Crossbar
from ohmformer.device import drift, faults, write_verify
from ohmformer.device.moments import write_moments
from ohmformer.errors import BadInput


def held_moments(array: Crossbar, max_code: int | None = None) -> tuple[Tensor, Tensor]:
    """Expected value and variance, in codes, of what a pair holds after the magnitude c = 0..max_code was written.

    Both are [max_code + 1], float64; of the code -c the mean is the negative. Write noise, its clamp, the unused half
    of the pair and faults (as chances, over all chips) are in them. Slices are those that codes up to `max_code` use.

    Args:
        array: the hardware.
        max_code: the largest code in use; by default that of the array.

    Raises:
        BadInput: cells drift until they are read, the encoding has no pairs, or the array has no such code.
    """
    top = array.max_code if max_code is None else max_code
    _check(array, top)
    slices = array.slices(max_code)
    codes = torch.arange(top + 1, dtype=torch.float64)
    held, spread = torch.zeros_like(codes), torch.zeros_like(codes)
    for s, digit in enumerate(encoding.places(codes, array, slices)):
        mean, variance = _digit_moments(array, s)
        found, place = digit.long(), float(array.place(s))
        held += place * (mean[found] - mean[0])
        spread += place**2 * (variance[found] + variance[0])
    return held / array.copies, spread / array.copies**2


def no_closed_form(array: Crossbar) -> str:
    """Why there is no closed form of what an array holds, and what to change; empty where there is one."""
    if array.encoding != "differential":
        return f"an {array.encoding!r} array has no magnitudes of its own; use encoding = 'differential'"
    if drift.drifts(array.cell, array.age):
        return (
            f"the cells drift for age = {array.age:g} s, for which there is no closed form; set age = 0 for what they "
            "hold just after the write"
        )
    return array.cell.write_noise.without(*(("moments",) if array.verify is None else VERIFY_FORMS))


def _check(array: Crossbar, top: int) -> None:
    if why := no_closed_form(array):
        raise BadInput(f"held_moments: {why}")
    if not 1 <= top <= array.max_code:
        raise BadInput(f"held_moments: max_code = {top}: must be 1 to {array.max_code}, the largest code of the array")


def _digit_moments(array: Crossbar, s: int) -> tuple[Tensor, Tensor]:
    """Expected value and variance, in digits, of a cell of slice s that was written to each of its digits."""
    cell = array.cell
    digits = torch.arange(array.max_digit + 1, dtype=torch.float64)
    targets = encoding.levels(array)
    if array.verify is None:
        shift, variance = write_moments(targets, cell)
    else:
        shift, variance = write_verify.moments(targets, cell, array.verify.tolerance, array.writes(s))
    mean, variance = digits + shift / array.step, variance / array.step**2
    return faults.with_faults(mean, variance, cell, array.max_digit)
