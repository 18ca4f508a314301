"""Drift and endurance in measurements over time and over cycles."""

from __future__ import annotations

import math
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


def series(table: Measurements) -> list[tuple[Array, Array]]:
    """Times and conductances of each cell and target, or of each target if no cells are named, sorted by time."""
    assert table.time is not None
    keys = [table.target] + [column for column in (table.cell, table.cycle) if column is not None]
    if table.cell is None:
        return [_means(table, table.target == target) for target in np.unique(table.target) if target > 0]
    _, group = np.unique(np.stack(keys), axis=1, return_inverse=True)
    found = []
    for index in range(int(group.max()) + 1):
        rows = group.ravel() == index
        order = np.argsort(table.time[rows], kind="stable")
        times, values = table.time[rows][order], table.measured[rows][order]
        if len(np.unique(times)) > 1 and values.min() > 0:
            found.append((times, values))
    return found


def _means(table: Measurements, rows: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Mean conductance by time, of some rows."""
    assert table.time is not None
    times = np.unique(table.time[rows])
    return times, np.array([table.measured[rows & (table.time == time)].mean() for time in times])


def drift(table: Measurements) -> Aging:
    """The drift that fits better: a power law of time, or an exponential decay to zero; none if no slope is seen."""
    assert table.time is not None
    t0 = float(table.time[table.time > 0].min()) if (table.time > 0).any() else 0.0
    lines = [line for line in series(table) if line[1].min() > 0 and line[0].max() > t0]
    if t0 == 0 or len(lines) == 0:
        return Aging("", {}, {})
    laws = {
        "power_law": lambda t: np.log(np.maximum(t, t0) / t0),
        "exponential": lambda t: t - t0,
    }
    fits = {kind: _slopes(lines, law) for kind, law in laws.items()}
    kind = min(fits, key=lambda name: fits[name][1])
    slopes, misfit = fits[kind]
    other = next(fits[name][1] for name in fits if name != kind)
    mean, spread = float(slopes.mean()), float(slopes.std(ddof=1)) if len(slopes) > 1 else 0.0
    error = spread / math.sqrt(len(slopes)) if len(slopes) > 1 else math.inf
    if mean <= 0 or (len(slopes) > 1 and mean < SIGNIFICANT * error):
        return Aging("", {}, {}, misfit, other)
    if kind == "power_law":
        return Aging(kind, {"t0": t0, "nu": mean, "nu_std": spread}, {"nu": error}, misfit, other)
    logs = np.log(slopes[slopes > 0])
    tau = math.exp(-float(logs.mean()))
    values = {"tau": tau, "tau_spread": float(logs.std(ddof=1)) if len(logs) > 1 else 0.0, "g_rest": 0.0}
    return Aging(kind, values, {"tau": tau * error / mean}, misfit, other)


def _slopes(lines: list[tuple[Array, Array]], law: object) -> tuple[Array, float]:
    """Slopes of -ln G over a law of time, and the root mean square of all residuals."""
    slopes, squares, count = [], 0.0, 0
    for times, values in lines:
        x, y = law(times), -np.log(values)  # type: ignore[operator]
        centered = x - x.mean()
        scale = float((centered**2).sum())
        slope = float((centered * y).sum() / scale) if scale > 0 else 0.0
        residual = y - y.mean() - slope * centered
        slopes.append(slope)
        squares, count = squares + float((residual**2).sum()), count + len(times)
    return np.array(slopes), math.sqrt(squares / count)


def endurance(table: Measurements) -> tuple[float, bool] | None:
    """The cycle at which the window is worn to half, and True; the last cycle and False if it is not.

    None without cycles. The window is the difference of the mean conductances of the largest and the smallest target.
    """
    if table.cycle is None:
        return None
    cycles = np.unique(table.cycle[np.isfinite(table.cycle)])
    low, high = table.target.min(), table.target.max()
    windows = []
    for cycle in cycles:
        ends = [table.measured[(table.cycle == cycle) & (table.target == end)] for end in (high, low)]
        windows.append(ends[0].mean() - ends[1].mean() if all(len(end) for end in ends) else math.nan)
    known = [(cycle, window) for cycle, window in zip(cycles, windows, strict=True) if math.isfinite(window)]
    if not known or cycles[-1] < 1:
        return None
    worn = next((cycle for cycle, window in known if window < WORN * known[0][1]), None)
    return (float(max(1.0, worn)), True) if worn is not None else (float(cycles[-1]), False)
