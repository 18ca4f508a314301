"""Drift and endurance in measurements over time and over cycles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from ohmformer.errors import BadInput
from ohmformer.fitting.measurements import Measurements
from ohmformer.fitting.slopes import Law, Lines, slopes

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
        misfit: negative logarithm of the likelihood of a measurement, in the mean, but for a constant.
        other_misfit: that of the other kind.
    """

    kind: str
    values: dict[str, float]
    errors: dict[str, float]
    misfit: float = math.nan
    other_misfit: float = math.nan


def series(table: Measurements) -> Lines:
    """Conductances over time: of each cell and target, or mean ones of each target if no cells are named."""
    assert table.time is not None
    if table.cell is None:
        return _means(table)
    keys = np.stack([column for column in (table.target, table.cell, table.cycle) if column is not None])
    order = np.lexsort([table.time, *keys])
    changes = np.any(keys[:, order[1:]] != keys[:, order[:-1]], axis=0)
    line = np.concatenate([[0], np.cumsum(changes)])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return Lines(line, table.time[order], table.measured[order], table.cell[order[starts]])


def _means(table: Measurements) -> Lines:
    """Mean conductance of each target above zero by time."""
    assert table.time is not None
    targets, target = np.unique(table.target[table.target > 0], return_inverse=True)
    times, time = np.unique(table.time[table.target > 0], return_inverse=True)
    place, index = np.unique(target.ravel() * len(times) + time.ravel(), return_inverse=True)
    means = np.bincount(index.ravel(), weights=table.measured[table.target > 0]) / np.bincount(index.ravel())
    return Lines(place // len(times), times[place % len(times)], means, np.arange(len(targets), dtype=np.float64))


def drift(table: Measurements) -> Aging:
    """The drift that fits better: a power law of time, or an exponential decay to zero; none if no slope is seen."""
    assert table.time is not None
    t0 = float(table.time[table.time > 0].min()) if (table.time > 0).any() else 0.0
    lines = series(table).longer_than(t0)
    if t0 == 0 or len(lines.cells) == 0:
        return Aging("", {}, {})
    _check_decay(lines, table.where)
    laws: dict[str, Law] = {
        "power_law": lambda t: np.asarray(np.log(np.maximum(t, t0) / t0)),
        "exponential": lambda t: t - t0,
    }
    fits = {kind: slopes(lines, law) for kind, law in laws.items()}
    kind = min(fits, key=lambda name: fits[name].misfit)
    fit, other = fits[kind], next(fits[name].misfit for name in fits if name != kind)
    told = fit.variances < max(0.0, float(np.median(fit.slopes))) ** 2  # others are lost in errors of measurement
    found = told if told.any() else np.ones(len(lines.cells), dtype=bool)
    values, variances, cells = fit.slopes[found], fit.variances[found], lines.cells[found]
    mean, error = float(values.mean()), _error_of_mean(values, cells)
    if mean <= 0 or (len(cells) > 1 and mean < SIGNIFICANT * error):
        return Aging("", {}, {}, fit.misfit, other)
    spread = _spread(values, variances)
    if kind == "power_law":
        return Aging(kind, {"t0": t0, "nu": mean, "nu_std": spread}, {"nu": error}, fit.misfit, other)
    logs = math.sqrt(math.log1p((spread / mean) ** 2))  # rates are lognormal
    tau = math.exp(logs**2 / 2) / mean
    fields = {"tau": tau, "tau_spread": logs, "g_rest": 0.0}
    return Aging(kind, fields, {"tau": tau * error / mean}, fit.misfit, other)


def _check_decay(lines: Lines, where: str) -> None:
    """Refuse conductances that are at zero when they are read a second time.

    Raises:
        BadInput: there are some, and no line has a third time.
    """
    if lines.values.min() <= 0 and np.bincount(lines.line).max() < 3:
        raise BadInput(
            f"{where}: time: conductances fall to zero or below between their two times, so their decay is not known; "
            "measure at times in between, or leave out the later one"
        )


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


def endurance(table: Measurements) -> tuple[float, bool] | None:
    """The cycle at which the window is worn to half, and True; the last cycle and False if it is not.

    The window is the difference of the mean conductances of the largest and the smallest target. Windows that only
    shrink, as near to the measured ones as possible in the mean of squares (isotonic regression), say when it is half,
    so that a single reading far off does not. None without cycles, or if the window is never above zero.
    """
    if table.cycle is None:
        return None
    cycles = np.unique(table.cycle[np.isfinite(table.cycle)])
    means, counts = [], []
    for end in (table.target.max(), table.target.min()):
        rows = np.isfinite(table.cycle) & (table.target == end)
        index = np.searchsorted(cycles, table.cycle[rows])
        count = np.bincount(index, minlength=len(cycles)).astype(np.float64)
        sums = np.bincount(index, weights=table.measured[rows], minlength=len(cycles))
        means.append(np.divide(sums, count, out=np.full(len(cycles), np.nan), where=count > 0))
        counts.append(count)
    known = np.isfinite(windows := means[0] - means[1])
    if not known.any() or cycles[-1] < 1:
        return None
    weights = counts[0][known] * counts[1][known] / (counts[0][known] + counts[1][known])
    shrinking = isotonic_regression(windows[known], weights=weights, increasing=False).x
    if shrinking[0] <= 0:
        return None
    worn = cycles[known][shrinking < WORN * shrinking[0]]
    return (float(max(1.0, worn[0])), True) if len(worn) else (float(cycles[-1]), False)
