"""Drift and endurance in measurements over time and over cycles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ohmformer.fitting.measurements import Measurements

Array = npt.NDArray[np.float64]

SIGNIFICANT = 3.0
"""Standard errors by which a mean slope must differ from zero to count as drift."""
WORN = 0.5
"""Share of the first window between the extreme targets at which a cell counts as worn out."""


@dataclass(frozen=True)
class Aging:
    """Drift of a kind.

    Attributes:
        kind: `power_law` or `exponential`; empty if no drift is seen.
        values: fields of the kind.
        errors: their standard errors.
        misfit: root mean square of the residuals of ln G.
        other_misfit: that of the other kind.
    """

    kind: str
    values: dict[str, float]
    errors: dict[str, float]
    misfit: float = math.nan
    other_misfit: float = math.nan


@dataclass(frozen=True)
class Series:
    """Conductances over time, as lines: one for each cell and target, or for each target if no cells are named.

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

    def longer_than(self, t0: float) -> Series:
        """The lines that end after `t0`, have two times or more, and no conductance at or below zero."""
        count = len(self.cells)
        low, high, first = np.full(count, np.inf), np.full(count, -np.inf), np.full(count, np.inf)
        np.minimum.at(low, self.line, self.values)
        np.minimum.at(first, self.line, self.times)
        np.maximum.at(high, self.line, self.times)
        taken = (low > 0) & (high > max(t0, 0.0)) & (high > first)
        rows = taken[self.line]
        number = np.cumsum(taken) - 1
        return Series(number[self.line[rows]], self.times[rows], self.values[rows], self.cells[taken])


def series(table: Measurements) -> Series:
    """Conductances over time: of each cell and target, or mean ones of each target if no cells are named."""
    assert table.time is not None
    if table.cell is None:
        return _means(table)
    keys = np.stack([column for column in (table.target, table.cell, table.cycle) if column is not None])
    order = np.lexsort([table.time, *keys])
    changes = np.any(keys[:, order[1:]] != keys[:, order[:-1]], axis=0)
    line = np.concatenate([[0], np.cumsum(changes)])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return Series(line, table.time[order], table.measured[order], table.cell[order[starts]])


def _means(table: Measurements) -> Series:
    """Mean conductance of each target above zero by time."""
    assert table.time is not None
    targets, target = np.unique(table.target[table.target > 0], return_inverse=True)
    times, time = np.unique(table.time[table.target > 0], return_inverse=True)
    place, index = np.unique(target.ravel() * len(times) + time.ravel(), return_inverse=True)
    means = np.bincount(index.ravel(), weights=table.measured[table.target > 0]) / np.bincount(index.ravel())
    return Series(place // len(times), times[place % len(times)], means, np.arange(len(targets), dtype=np.float64))


def drift(table: Measurements) -> Aging:
    """The drift that fits better: a power law of time, or an exponential decay to zero; none if no slope is seen."""
    assert table.time is not None
    t0 = float(table.time[table.time > 0].min()) if (table.time > 0).any() else 0.0
    lines = series(table).longer_than(t0)
    cells = lines.cells
    if t0 == 0 or len(cells) == 0:
        return Aging("", {}, {})
    laws: dict[str, Callable[[Array], Array]] = {
        "power_law": lambda t: np.asarray(np.log(np.maximum(t, t0) / t0)),
        "exponential": lambda t: t - t0,
    }
    fits = {kind: _slopes(lines, law) for kind, law in laws.items()}
    kind = min(fits, key=lambda name: fits[name].misfit)
    fit, other = fits[kind], next(fits[name].misfit for name in fits if name != kind)
    mean, error = float(fit.slopes.mean()), _error_of_mean(fit.slopes, cells)
    if mean <= 0 or (len(cells) > 1 and mean < SIGNIFICANT * error):
        return Aging("", {}, {}, fit.misfit, other)
    if kind == "power_law":
        values = {"t0": t0, "nu": mean, "nu_std": _spread(fit.slopes, fit.variances)}
        return Aging(kind, values, {"nu": error}, fit.misfit, other)
    falls = fit.slopes > 0
    logs, variances = np.log(fit.slopes[falls]), fit.variances[falls] / fit.slopes[falls] ** 2
    tau = math.exp(-float(logs.mean()))
    values = {"tau": tau, "tau_spread": _spread(logs, variances), "g_rest": 0.0}
    return Aging(kind, values, {"tau": tau * _error_of_mean(logs, cells[falls])}, fit.misfit, other)


@dataclass(frozen=True)
class _Slopes:
    """Slopes of -ln G over a law of time: of each line, their variances, and the misfit of all residuals."""

    slopes: Array
    variances: Array
    misfit: float


def _error_of_mean(values: Array, cells: Array) -> float:
    """Standard error of the mean of values of the lines; lines of the same cell may have common errors."""
    numbers, index = np.unique(cells, return_inverse=True)
    if len(values) < 2:
        return math.inf
    if len(numbers) < 2:
        return float(values.std(ddof=1)) / math.sqrt(len(values))
    sums = np.bincount(index.ravel(), weights=values - values.mean())
    return math.sqrt(float((sums**2).sum()) * len(numbers) / (len(numbers) - 1)) / len(values)


def _spread(values: Array, variances: Array) -> float:
    """Standard deviation of values from line to line, without what the errors of the values add to it."""
    if len(values) < 2:
        return 0.0
    return math.sqrt(max(0.0, float(values.var(ddof=1)) - float(np.nan_to_num(variances).mean())))


def _slopes(lines: Series, law: Callable[[Array], Array]) -> _Slopes:
    """Fit a straight line to -ln G over a law of time in each line."""
    x, y, line = law(lines.times), -np.log(lines.values), lines.line
    counts = np.bincount(line)
    x, y = (value - (np.bincount(line, weights=value) / counts)[line] for value in (x, y))
    scales, products = np.bincount(line, weights=x * x), np.bincount(line, weights=x * y)
    known = scales > 0
    slopes = np.divide(products, scales, out=np.zeros(len(scales)), where=known)
    squares = float(((y - slopes[line] * x) ** 2).sum())
    free = len(x) - 2 * len(counts)
    variance = squares / free if free > 0 else 0.0
    variances = np.divide(variance, scales, out=np.zeros(len(scales)), where=known)
    return _Slopes(slopes, variances, math.sqrt(squares / len(x)))


def endurance(table: Measurements) -> tuple[float, bool] | None:
    """The cycle at which the window is worn to half, and True; the last cycle and False if it is not.

    None without cycles. The window is the difference of the mean conductances of the largest and the smallest target.
    """
    if table.cycle is None:
        return None
    low, high = table.target.min(), table.target.max()
    cycles, windows = np.unique(table.cycle[np.isfinite(table.cycle)]), None
    for end in (high, low):
        rows = np.isfinite(table.cycle) & (table.target == end)
        index = np.searchsorted(cycles, table.cycle[rows])
        counts = np.bincount(index, minlength=len(cycles)).astype(np.float64)
        sums = np.bincount(index, weights=table.measured[rows], minlength=len(cycles))
        means = np.divide(sums, counts, out=np.full(len(cycles), np.nan), where=counts > 0)
        windows = means if windows is None else windows - means
    assert windows is not None
    known = [(cycle, window) for cycle, window in zip(cycles, windows, strict=True) if math.isfinite(window)]
    if not known or cycles[-1] < 1:
        return None
    worn = next((cycle for cycle, window in known if window < WORN * known[0][1]), None)
    return (float(max(1.0, worn)), True) if worn is not None else (float(cycles[-1]), False)
