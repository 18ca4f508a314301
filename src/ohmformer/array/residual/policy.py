"""Which digit each cell should get, by backward induction over what is still missing.

A value takes n cells with the weights w_1 >= ... >= w_n (copies share one weight). Before cell i is written, rho is
what is missing, as far as it is known. Cell i gets the digit d with the sign s that minimize

    J_n(rho) = E[(rho - s w_n h)^2],
    J_i(rho) = E_y[w_i^2 Var(h | y, d) + J_{i+1}(rho - s w_i E[h | y, d])]        for i < n,

where h is what the pair holds after the write, and y what the read-back says of it. The errors of cells are
independent, so this minimizes the mean square error of the value. A cell stays empty where a write would add more
noise than it removes; and no policy that knows as little is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ohmformer.array.residual.held_digits import Numbers, Outcomes, exact_read_back, outcomes, read_back_codes
from ohmformer.array.residual.spec import MOST_CODES
from ohmformer.array.spec import Crossbar

STEPS = 32
"""Points of the grid of rho per unit of the least significant cell, unless the grid gets longer than `MOST`."""
MOST = 12 * MOST_CODES
"""Points of the longest grid: at least 8 for each unit of the least significant cell."""
BEYOND = 1.5
"""Where the grid ends, as a multiple of what the remaining cells can hold."""
TIE = 1e-13
"""Two digits whose costs differ by less than this share of the largest cost of a grid are equally good."""

Function = Callable[[Numbers], Numbers]


@dataclass(frozen=True, eq=False)
class Choice:
    """What to write into one cell.

    Attributes:
        weight: the weight of the cell, in codes per digit.
        step: distance of two points of rho [codes], for all cells the same.
        digits: [T] the signed digit for rho = 0, step, 2 step ...; the last one holds beyond. Its negative for -rho.
    """

    weight: float
    step: float
    digits: Tensor


@dataclass(frozen=True, eq=False)
class Policy:
    """A table by cell: the digit to write for each amount that is missing.

    Attributes:
        choices: by cell, the most significant first.
        read_back: [max_digit + 1, codes] what a pair holds on average [digits] after a digit was written and a code
            was read back; None if the read-back is exact.
        read_back_step: step of a code of the read-back [digits].
        lowest_code: the code of the first column of `read_back`.
        step: distance of two points of `mean_error` and `mean_square_error` [codes].
        mean_error: [T] of value less what its cells hold, for a magnitude of 0, step, 2 step ... [codes].
        mean_square_error: [T] [codes^2].
    """

    choices: tuple[Choice, ...]
    read_back: Tensor | None
    read_back_step: float
    lowest_code: int
    step: float
    mean_error: Numbers
    mean_square_error: Numbers


@lru_cache(maxsize=256)
def policy(array: Crossbar, max_code: int | None = None) -> Policy:
    """The best policy of an array; the same one at each age, since a read-back follows its write at once.

    Args:
        array: the hardware, with `residual`.
        max_code: the largest code in use, by default that of the array; it decides how many cells are written.
    """
    if array.age:
        return policy(array.model_copy(update={"age": 0.0}), max_code)
    slices = array.slices(max_code)
    weights = [array.slice_weight(s) / array.redundancy for s in reversed(range(slices))]
    by_digit = [outcomes(array, digit) for digit in range(array.max_digit + 1)]
    ends = [BEYOND * array.max_digit * sum(weights[i:]) for i in range(slices)]
    step = max(weights[-1] / STEPS, ends[0] / MOST)
    choices: list[Choice] = []
    square: Function | None = None
    error: Function | None = None
    for i in reversed(range(slices)):
        rho: Numbers = np.arange(1 + int(np.ceil(ends[i] / step)), dtype=np.float64) * np.float64(step)
        if square is None or error is None:
            costs = _of_last_cell(rho, weights[i], by_digit)
        else:
            costs = _of_cell(rho, weights[i], by_digit, square, error)
        digits, squares, errors = _best(*costs)
        choices.insert(0, Choice(weights[i], step, torch.from_numpy(digits)))
        square, error = _interpolated(rho, squares, errors), _interpolated_odd(rho, errors)
    table, read_back_step, lowest = None, 0.0, 0
    if not exact_read_back(array):
        read_back_step, lowest, highest = read_back_codes(array)
        table = torch.from_numpy(np.stack([_means(each, lowest, highest, read_back_step) for each in by_digit]))
    return Policy(tuple(choices), table, read_back_step, lowest, step, errors, squares)


Costs = tuple[list[int], Numbers, Numbers]
"""The signed digits D of one cell, and for each rho the mean square and the mean of what is missing in the end if that
digit is written: two arrays [D, rho]."""


def _signed(by_digit: list[Outcomes]) -> list[tuple[int, Outcomes]]:
    """The signed digits that may be written, the smallest magnitude first, with the outcomes of their magnitudes."""
    return [(sign * digit, each) for digit, each in enumerate(by_digit) for sign in ((1, -1) if digit else (1,))]


def _of_last_cell(rho: Numbers, weight: float, by_digit: list[Outcomes]) -> Costs:
    """The costs of the last cell, in closed form."""
    digits, squares, errors = [], [], []
    for digit, outcome in _signed(by_digit):
        mean = float(outcome.probability @ outcome.mean)
        variance = float(outcome.probability @ (outcome.mean**2 + outcome.variance)) - mean**2
        rest = rho - (1 if digit >= 0 else -1) * weight * mean
        digits.append(digit)
        errors.append(rest)
        squares.append(rest**2 + weight**2 * variance)
    return digits, np.stack(squares), np.stack(errors)


def _of_cell(rho: Numbers, weight: float, by_digit: list[Outcomes], square: Function, error: Function) -> Costs:
    """The costs of a cell with cells behind it, of which `square` and `error` say what they leave.

    What a cell holds is spread over the two nearest grid points. For functions that are linear between grid points,
    this is exact, and the expectation becomes a convolution.
    """
    step = float(rho[1])
    places = [weight * each.mean / step for each in by_digit]
    lowest, highest = int(np.floor(min(map(np.min, places)))), int(np.floor(max(map(np.max, places)))) + 1
    reach = len(rho) - 1 + max(abs(lowest), abs(highest))
    x: Numbers = np.arange(-reach, reach + 1, dtype=np.float64) * np.float64(step)
    length = 1 << (2 * reach + highest - lowest + 1).bit_length()
    spectra = [np.fft.rfft(f(x), length) for f in (square, error)]
    middle, last = reach - lowest, len(rho) - 1
    digits, squares, errors = [], [], []
    for digit, outcome in enumerate(by_digit):
        spread = np.fft.rfft(_spread(outcome, places[digit] - lowest, highest - lowest + 1), length)
        mean_square, mean = (np.fft.irfft(each * spread, length)[middle - last : middle + last + 1] for each in spectra)
        noise = weight**2 * float(outcome.variance @ outcome.probability)
        digits.append(digit)
        squares.append(mean_square[last:] + noise)
        errors.append(mean[last:])
        if digit:  # the functions are even and odd, so -digit at rho is like digit at -rho
            digits.append(-digit)
            squares.append(mean_square[last::-1] + noise)
            errors.append(-mean[last::-1])
    return digits, np.maximum(np.stack(squares), 0.0), np.stack(errors)


def _spread(outcome: Outcomes, places: Numbers, points: int) -> Numbers:
    """The probabilities [points] of grid points if each outcome lies at a place between two of them."""
    below = np.floor(places).astype(np.int64)
    share = outcome.probability * (places - below)
    spread = np.bincount(below, outcome.probability - share, points) + np.bincount(below + 1, share, points)
    return np.asarray(spread, dtype=np.float64)


def _best(digits: list[int], squares: Numbers, errors: Numbers) -> tuple[npt.NDArray[np.int64], Numbers, Numbers]:
    """The best signed digit for each rho, with the mean square and the mean of what is missing in the end.

    Of digits that are equally good, the first one is taken.
    """
    least = squares.min(axis=0) + TIE * float(squares.max())
    index = (squares <= least).argmax(axis=0)
    here = np.arange(squares.shape[1])
    return np.array(digits)[index], squares[index, here], errors[index, here]


def _interpolated(rho: Numbers, squares: Numbers, errors: Numbers) -> Function:
    """J between grid points and for both signs; beyond the grid, the remaining cells hold what they can."""
    last = float(errors[-1])
    variance = float(squares[-1]) - last**2

    def square(x: Numbers) -> Numbers:
        size = np.abs(x)
        beyond = (last + size - rho[-1]) ** 2 + variance
        inside: Numbers = np.interp(size, rho, squares)
        return np.asarray(np.where(size > rho[-1], beyond, inside), dtype=np.float64)

    return square


def _interpolated_odd(rho: Numbers, errors: Numbers) -> Function:
    """The mean of what is missing in the end, likewise; it changes its sign with rho.

    At rho = 0 it is not zero if some digit leaves less than digit 0 does, as where many cells are stuck.
    """

    def error(x: Numbers) -> Numbers:
        size = np.abs(x)
        inside: Numbers = np.interp(size, rho, errors)
        odd = np.where(x < 0, -1.0, 1.0) * (inside + np.maximum(size - rho[-1], 0.0))
        return np.asarray(odd, dtype=np.float64)

    return error


def _means(outcome: Outcomes, lowest: int, highest: int, step: float) -> Numbers:
    """What a pair holds on average, by code; what the code says where it does not occur."""
    table: Numbers = np.arange(lowest, highest + 1, dtype=np.float64) * np.float64(step)
    table[outcome.code - lowest] = outcome.mean
    return table
