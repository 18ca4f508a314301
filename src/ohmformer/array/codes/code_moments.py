"""Mean and variance of what a differential pair holds after a code was written, in closed form.

Noise whose lower tail is cut off by the clamp at G = 0 has a bias, so the mean differs from the code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.residual.policy import policy
from ohmformer.array.spec import VERIFY_FORMS, Crossbar
from ohmformer.device import drift, faults, write_verify
from ohmformer.device.moments import write_moments
from ohmformer.errors import BadInput
from ohmformer.wording import with_article


def held_moments(array: Crossbar, max_code: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance, in codes, of what a pair holds after the magnitude c = 0..max_code was written.

    They include write noise with its clamp, write-verify, the unused half of the pair, faults (as probabilities over
    all chips), and wear. The mean of code -c is the negative of that of c.

    Args:
        array: the hardware.
        max_code: the largest code in use, by default that of the array; it decides how many slices are written.

    Returns:
        Mean and variance, each [max_code + 1] in float64.

    Raises:
        BadInput: the cells drift before they are read, the encoding is not differential, the write noise has no closed
            form, or the array has no code as large as `max_code`.
    """
    top = array.max_code if max_code is None else max_code
    _check(array, top)
    slices = array.slices(max_code)
    codes = torch.arange(top + 1, dtype=torch.float64)
    mean, variance = torch.zeros_like(codes), torch.zeros_like(codes)
    for s, digits in enumerate(encoding.slice_digits(codes, array, slices)):
        digit_mean, digit_variance = _digit_moments(array, s)
        index, weight = digits.long(), float(array.slice_weight(s))
        mean += weight * (digit_mean[index] - digit_mean[0])  # the unused half holds digit 0
        variance += weight**2 * (digit_variance[index] + digit_variance[0])
    return mean / array.redundancy, variance / array.redundancy**2


def moments_of_values(values: Tensor, array: Crossbar, max_code: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance, in codes, of what a pair holds after a code, or any value of residual writing, was written.

    Args:
        values: codes of either sign, of any shape: integers unless the array has `residual`.
        array: the hardware.
        max_code: as in `held_moments`.

    Returns:
        Two tensors of the same shape, in the type of the values.

    Raises:
        BadInput: as in `held_moments`.
    """
    if array.residual is None:
        tables = held_moments(array, max_code)
        place, mix = values.abs().long(), None
    else:
        if reason := no_closed_form(array):
            raise BadInput(f"moments_of_values: {reason}")
        rules = policy(array, max_code)
        error, square = torch.from_numpy(rules.mean_error), torch.from_numpy(rules.mean_square_error)
        tables = (
            torch.arange(len(error), dtype=torch.float64) * rules.step - error,
            (square - error.square()).clamp(min=0.0),
        )
        exact = (values.abs() / rules.step).clamp(max=len(error) - 1)
        place = exact.long().clamp(max=len(error) - 2)
        mix = exact - place
    mean, variance = (
        table[place] if mix is None else torch.lerp(table[place], table[place + 1], mix)
        for table in (t.to(values) for t in tables)
    )
    return torch.where(values < 0, -mean, mean), variance


def no_closed_form(array: Crossbar) -> str:
    """Why `held_moments` has no closed form for an array, and what to change; empty if it has one."""
    if array.encoding != "differential":
        return f"{with_article(repr(array.encoding))} array has no magnitudes of its own; use encoding = 'differential'"
    if drift.drifts(array.cell, array.age):
        return (
            f"the cells drift for age = {array.age:g} s, for which there is no closed form; set age = 0 for what they "
            "hold just after the write"
        )
    if array.residual is not None:  # its policy integrates over every kind of write noise
        return ""
    return array.cell.write_noise.missing_forms(*(("moments",) if array.write_verify is None else VERIFY_FORMS))


def _check(array: Crossbar, top: int) -> None:
    if array.residual is not None:
        raise BadInput("held_moments: cells of an array with residual hold any value; use moments_of_values")
    if reason := no_closed_form(array):
        raise BadInput(f"held_moments: {reason}")
    if not 1 <= top <= array.max_code:
        raise BadInput(f"held_moments: max_code = {top}: must be 1 to {array.max_code}, the largest code of the array")


def _digit_moments(array: Crossbar, s: int) -> tuple[Tensor, Tensor]:
    """Mean and variance, in digits, of a cell of slice s, by the digit that was written: each [max_digit + 1]."""
    cell = array.aged_cell
    targets = encoding.level_conductances(array)
    digits = torch.arange(array.max_digit + 1, dtype=torch.float64)
    if cell.uneven or array.saturates:
        digits = (targets - cell.g_min) / array.step
    if array.write_verify is None:
        error, variance = write_moments(targets, cell)
    else:
        error, variance = write_verify.moments(targets, cell, array.write_verify.tolerance, array.max_writes(s))
    mean, variance = digits + error / array.step, variance / array.step**2
    return faults.moments_with_faults(mean, variance, cell, array.max_digit)
