"""Slopes of conductances over time: straight lines of ln G, under errors of two kinds.

The error of a measurement has the standard deviation s sqrt(G^2 + floor^2): a share s of the conductance G that the
line gives, and the same s times `floor` at all conductances. So measurements of cells that have lost their charge
count little, and may be below zero. The logarithm of such measurements is no use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Law = Callable[[Array], Array]
"""Times [N] -> what ln G falls in proportion to [N]."""

FLOORS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
"""Floors that are tried, as shares of the median of the largest conductances of all lines."""
STEPS = 20
"""Number of steps of Gauss and Newton."""
LARGEST_STEP = 1.0
"""Largest change of ln G in one step."""
MOST_LINES = 300
"""Number of lines that the floor is chosen by."""
SMALLEST_ERROR = 1e-12
"""Smallest relative error of a measurement."""
LOWEST = 40.0
"""ln of the largest over the smallest conductance of a line."""
CLEAR = 0.3
"""Share of its largest conductance above which a measurement of a line counts at the start of the fit."""


@dataclass(frozen=True)
class Lines:
    """Conductances over time.

    Attributes:
        line: [N], number of the line, from 0, rising.
        times: [N], times [s].
        values: [N], conductances [S].
        cells: number of the cell of each line; of the line itself if no cells are named.
    """

    line: npt.NDArray[np.intp]
    times: Array
    values: Array
    cells: Array

    def taken(self, which: npt.NDArray[np.bool_]) -> Lines:
        """The lines for which `which` is true."""
        rows = which[self.line]
        number = np.cumsum(which) - 1
        return Lines(number[self.line[rows]], self.times[rows], self.values[rows], self.cells[which])

    def longer_than(self, t0: float) -> Lines:
        """The lines that end after `t0`, have two times or more, and begin above zero."""
        count = len(self.cells)
        high, first = np.full(count, -np.inf), np.full(count, np.inf)
        np.maximum.at(high, self.line, self.times)
        np.minimum.at(first, self.line, self.times)
        begin = np.full(count, np.inf)
        at_first = self.times == first[self.line]
        np.minimum.at(begin, self.line[at_first], self.values[at_first])
        return self.taken((begin > 0) & (high > max(t0, 0.0)) & (high > first))


@dataclass(frozen=True)
class Slopes:
    """Straight lines.

    Attributes:
        slopes: of -ln G over a law of time, of each line.
        variances: their variances; NaN where measurements do not tell the slope.
        misfit: negative logarithm of the likelihood of a measurement, in the mean, but for a constant.
    """

    slopes: Array
    variances: Array
    misfit: float


def slopes(lines: Lines, law: Law) -> Slopes:
    """Fit a straight line to -ln G over a law of time in each line, with the floor of the largest likelihood."""
    count = len(lines.cells)
    some = np.zeros(count, dtype=bool)
    some[:: -(-count // MOST_LINES)] = True
    sample = lines.taken(some) if count > MOST_LINES else lines
    scale = float(np.median(_largest(lines)))
    floors = [scale * share for share in FLOORS if share or lines.values.min() > 0]
    best = min(floors, key=lambda floor: _fit(sample, law, floor).misfit)
    return _fit(lines, law, best)


def _fit(lines: Lines, law: Law, floor: float) -> Slopes:
    """The lines of least squares at one floor; those of ln G without a floor."""
    x = law(lines.times)
    if floor == 0:
        logs = np.log(lines.values)
        slope, rows, scales = _straight(x, logs, np.ones_like(x), lines)
        return _result(lines, slope, scales, (logs - rows) ** 2, logs)
    rows, (low, high) = _start(lines, x), np.log(_largest(lines))[lines.line] + np.array([[-LOWEST], [LARGEST_STEP]])
    for _ in range(STEPS):
        g = np.exp(rows)
        slope, target, scales = _straight(x, rows + (lines.values - g) / g, g**2 / (g**2 + floor**2), lines)
        change = np.zeros(len(lines.cells))
        np.maximum.at(change, lines.line, np.abs(target - rows))
        step = np.minimum(1.0, LARGEST_STEP / np.maximum(change, LARGEST_STEP))[lines.line]
        rows = np.clip(rows + step * (target - rows), low, high)
    g = np.exp(rows)
    spread = g**2 + floor**2
    return _result(lines, slope, scales, (lines.values - g) ** 2 / spread, 0.5 * np.log(spread))


def _start(lines: Lines, x: Array) -> Array:
    """ln G of each row by straight lines through the clear measurements; with the median slope where these are few."""
    largest = _largest(lines)
    clear = lines.values > CLEAR * largest[lines.line]
    logs = np.log(np.maximum(lines.values, CLEAR * largest[lines.line]))
    slope, rows, scales = _straight(x, logs, clear.astype(np.float64), lines)
    few = scales <= 0
    if not few.any():
        return rows
    common = float(np.median(slope[~few])) if not few.all() else 0.0
    first = np.full(len(largest), np.inf)
    np.minimum.at(first, lines.line, x)
    return np.asarray(np.where(few[lines.line], (np.log(largest) + common * first)[lines.line] - common * x, rows))


def _largest(lines: Lines) -> Array:
    """The largest conductance of each line."""
    found = np.zeros(len(lines.cells))
    np.maximum.at(found, lines.line, lines.values)
    return found


def _straight(x: Array, y: Array, weights: Array, lines: Lines) -> tuple[Array, Array, Array]:
    """Weighted straight lines: the fall of y over x in each line, y of each row by its line, and the scatter of x."""
    line, count = lines.line, len(lines.cells)

    def total(values: Array) -> Array:
        return np.bincount(line, weights=values, minlength=count).astype(np.float64)

    all_weights = np.maximum(total(weights), 1e-300)
    center, middle = total(weights * x) / all_weights, total(weights * y) / all_weights
    off = x - center[line]
    scales, products = total(weights * off**2), total(weights * off * (y - middle[line]))
    slope = np.divide(-products, scales, out=np.zeros(count), where=scales > 0)
    return slope, middle[line] - slope[line] * off, scales


def _result(lines: Lines, slope: Array, scales: Array, squares: Array, logs: Array) -> Slopes:
    """Slopes with their variances, from squares of relative residuals and logarithms of what they are relative to."""
    count, total = len(squares), float(squares.sum())
    free = count - 2 * len(lines.cells)
    variance = total / free if free > 0 else 0.0
    variances = np.divide(variance, scales, out=np.full(len(scales), math.nan), where=scales > 0)
    error = max(math.sqrt(total / count), SMALLEST_ERROR)
    return Slopes(slope, variances, math.log(error) + float(logs.mean()))
