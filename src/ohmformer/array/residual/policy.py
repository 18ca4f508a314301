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
from ohmformer.array.spec import Crossbar

STEPS = 32
"""Points of the grid of rho per unit of the least significant cell, unless the grid gets longer than `MOST`."""
MOST = 6_000
BEYOND = 1.5
"""Where the grid ends, as a multiple of what the remaining cells can hold."""

CostToGo = Callable[[Numbers], Numbers]


@dataclass(frozen=True, eq=False)
class Choice:
    """What to write into one cell.

    Attributes:
        weight: the weight of the cell, in codes per digit.
        step: distance of two points of rho [codes].
        digits: [T] the signed digit for rho = 0, step, 2 step ...; the last one holds beyond. Its negative for -rho.
    """

    weight: float
    step: float
    digits: Tensor


@dataclass(frozen=True, eq=False)
class Policy:
    """How to write a value into its cells.

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
    """The best policy of an array.

    Args:
        array: the hardware, with `residual`.
        max_code: the largest code in use, by default that of the array; it decides how many cells are written.
    """
    slices = array.slices(max_code)
    weights = [array.slice_weight(s) / array.redundancy for s in reversed(range(slices))]
    by_digit = [outcomes(array, digit) for digit in range(array.max_digit + 1)]
    choices: list[Choice] = []
    square: CostToGo = np.square
    error: CostToGo = np.asarray
    for i in reversed(range(slices)):
        rho = _grid(array.max_digit * sum(weights[i:]), weights[-1])
        digits, squares, errors = _best(rho, weights[i], by_digit, square, error)
        choices.insert(0, Choice(weights[i], float(rho[1]), torch.from_numpy(digits)))
        square, error = _interpolated(rho, squares, errors), _interpolated_odd(rho, errors)
    table, step, lowest = None, 0.0, 0
    if not exact_read_back(array):
        step, lowest, highest = read_back_codes(array)
        table = torch.from_numpy(np.stack([_means(each, lowest, highest, step) for each in by_digit]))
    return Policy(tuple(choices), table, step, lowest, float(rho[1]), errors, squares)


def _grid(capacity: float, unit: float) -> Numbers:
    """Values of rho from 0 to beyond what the remaining cells can hold."""
    end = BEYOND * capacity
    return np.linspace(0.0, end, 1 + min(MOST, max(2, int(np.ceil(end / unit * STEPS)))))


def _best(
    rho: Numbers, weight: float, by_digit: list[Outcomes], square: CostToGo, error: CostToGo
) -> tuple[npt.NDArray[np.int64], Numbers, Numbers]:
    """The best signed digit of a cell at each rho, with the mean square and the mean of what is missing in the end.

    Of two digits that are equally good, the smaller one is taken.
    """
    best = np.full(len(rho), np.inf)
    digits, errors = np.zeros(len(rho), dtype=np.int64), np.zeros(len(rho))
    for digit, outcome in enumerate(by_digit):
        for sign in (1, -1) if digit else (1,):
            rest = rho[:, None] - sign * weight * outcome.mean
            cost = square(rest) @ outcome.probability + weight**2 * float(outcome.variance @ outcome.probability)
            better = cost < best * (1 - 1e-12) - 1e-15
            best[better], digits[better] = cost[better], sign * digit
            errors[better] = (error(rest) @ outcome.probability)[better]
    return digits, best, errors


def _interpolated(rho: Numbers, squares: Numbers, errors: Numbers) -> CostToGo:
    """J between grid points and for both signs; beyond the grid, the remaining cells hold what they can."""
    last = float(errors[-1])
    variance = float(squares[-1]) - last**2

    def square(x: Numbers) -> Numbers:
        size = np.abs(x)
        beyond = (last + size - rho[-1]) ** 2 + variance
        return np.where(size > rho[-1], beyond, np.interp(size, rho, squares))

    return square


def _interpolated_odd(rho: Numbers, errors: Numbers) -> CostToGo:
    """The mean of what is missing in the end, likewise; it changes its sign with rho."""

    def error(x: Numbers) -> Numbers:
        size = np.abs(x)
        inside = np.interp(size, rho, errors) + np.maximum(size - rho[-1], 0.0)
        return np.sign(x) * inside

    return error


def _means(outcome: Outcomes, lowest: int, highest: int, step: float) -> Numbers:
    """What a pair holds on average, by code; what the code says where it does not occur."""
    table = np.arange(lowest, highest + 1) * step
    table[outcome.code - lowest] = outcome.mean
    return table
