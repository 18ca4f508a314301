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
    """Conductances of one cell and target over time; of one target if no cells are named.

    Attributes:
        cell: number of the cell, or of the target if no cells are named.
        times: rising [s].
        values: conductances [S].
    """

    cell: float
    times: Array
    values: Array


def series(table: Measurements) -> list[Series]:
    """Conductances over time: of each cell and target, or mean ones of each target if no cells are named."""
    assert table.time is not None
    if table.cell is None:
        return _means(table)
    keys = [table.target, table.cell, *([] if table.cycle is None else [table.cycle])]
    order = np.lexsort([table.time, *keys])
    changes = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    found = []
    for rows in np.split(order, np.flatnonzero(changes) + 1):
        times, values = table.time[rows], table.measured[rows]
        if times[-1] > times[0] and values.min() > 0:
            found.append(Series(float(table.cell[rows[0]]), times, values))
    return found


def _means(table: Measurements) -> list[Series]:
    """Mean conductance of each target by time."""
    assert table.time is not None
    targets, target = np.unique(table.target, return_inverse=True)
    times, time = np.unique(table.time, return_inverse=True)
    place, index = np.unique(target.ravel() * len(times) + time.ravel(), return_inverse=True)
    means = np.bincount(index.ravel(), weights=table.measured) / np.bincount(index.ravel())
    found = []
    for number in np.flatnonzero(targets > 0):
        rows = place // len(times) == number
        found.append(Series(float(number), times[place[rows] % len(times)], means[rows]))
    return found


def drift(table: Measurements) -> Aging:
    """The drift that fits better: a power law of time, or an exponential decay to zero; none if no slope is seen."""
    assert table.time is not None
    t0 = float(table.time[table.time > 0].min()) if (table.time > 0).any() else 0.0
    lines = [line for line in series(table) if line.values.min() > 0 and line.times.max() > t0]
    if t0 == 0 or len(lines) == 0:
        return Aging("", {}, {})
    laws: dict[str, Callable[[Array], Array]] = {
        "power_law": lambda t: np.asarray(np.log(np.maximum(t, t0) / t0)),
        "exponential": lambda t: t - t0,
    }
    fits = {kind: _slopes(lines, law) for kind, law in laws.items()}
    kind = min(fits, key=lambda name: fits[name].misfit)
    fit, other = fits[kind], next(fits[name].misfit for name in fits if name != kind)
    cells = np.array([line.cell for line in lines])
    mean, error = float(fit.slopes.mean()), _error_of_mean(fit.slopes, cells)
    if mean <= 0 or (len(lines) > 1 and mean < SIGNIFICANT * error):
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


def _slopes(lines: list[Series], law: Callable[[Array], Array]) -> _Slopes:
    """Fit a straight line to -ln G over a law of time in each line."""
    slopes, scales, squares, count, free = [], [], 0.0, 0, 0
    for line in lines:
        x, y = law(line.times), -np.log(line.values)
        centered = x - x.mean()
        scale = float((centered**2).sum())
        slope = float((centered * y).sum() / scale) if scale > 0 else 0.0
        residual = y - y.mean() - slope * centered
        slopes.append(slope)
        scales.append(scale if scale > 0 else math.inf)
        squares, count, free = squares + float((residual**2).sum()), count + len(x), free + len(x) - 2
    variance = squares / free if free > 0 else 0.0
    return _Slopes(np.array(slopes), variance / np.array(scales), math.sqrt(squares / count))


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
