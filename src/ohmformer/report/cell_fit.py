"""A fitted cell as a table of its candidates, and as a figure: fit, residuals and quantiles."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from scipy import stats

from ohmformer import units
from ohmformer.errors import BadInput, cut, suggest
from ohmformer.fitting.fit import DOUBTFUL, CellFit
from ohmformer.fitting.measurements import NAMES
from ohmformer.report.figure import COLORS, STYLE
from ohmformer.report.figure_files import encoded
from ohmformer.terminal.files import write_bytes
from ohmformer.terminal.plain import clean

FORMATS = ("svg", "png", "pdf")
MOST_DRAWN = 5_000
"""Number of measurements that are drawn; more are thinned evenly."""


def candidates_table(fit: CellFit) -> Table:
    """All candidates of the write noise, the best one first."""
    where = clean(cut(fit.measured.where))
    table = Table(title=f"Write noise of {where}: {len(fit.measured.target):,} measurements", title_justify="left")
    for column in ("write noise", "parameters", "BIC above the chosen one", "residuals: p"):
        table.add_column(column, overflow="fold")
    for each in fit.candidates:
        table.add_row(
            each.label,
            str(each.count),
            f"{each.bic - fit.chosen.bic:.1f}",
            "-" if math.isnan(each.ks) else f"{each.ks:.2g}",
        )
    return table


def sentences(fit: CellFit) -> list[str]:
    """What was found beside the write noise, and how sure it is, as sentences."""
    said = []
    if fit.doubtful:
        said.append(
            f"The residuals are far from normal (p = {fit.chosen.ks:.2g}, below {DOUBTFUL:g}): the cell is an "
            "approximation; look at its figure."
        )
    if math.isnan(fit.chosen.ks):
        said.append("All residuals are zero: there is no deviation to test.")
    if fit.left_out:
        rows, are = ("1 row", "is") if fit.left_out == 1 else (f"{fit.left_out} rows", "are")
        said.append(f"{rows} without a target, a measured value or a time {are} left out.")
    if fit.measured.unread:
        said.append(
            f"Not read: {', '.join(clean(cut(title)) for title in fit.measured.unread)}. Known: {', '.join(NAMES)}."
        )
    if fit.drift is not None and fit.measured.cell is None:
        said.append(
            "No column says which cell was measured, so drift is fitted to the mean of each target: its spread is not "
            "that of cells."
        )
    if fit.drift is not None:
        named = fit.drift.kind or "none that differs from zero by three standard errors"
        said.append(f"Drift: {named}.")
    if fit.endurance is not None:
        cycles, worn = fit.endurance
        plural = "cycle" if cycles == 1 else "cycles"
        end = (
            "; all else is fitted to the cycles before"
            if worn
            else ", the last one that was measured; no cell was worn out"
        )
        said.append(f"Endurance: {cycles:g} {plural}{end}.")
    return said


def check_figure(file: str | None) -> None:
    """Refuse a figure whose name ends with no known format, before anything is computed.

    Raises:
        BadInput: it does.
    """
    ending = Path(file).suffix.lower().lstrip(".") if file is not None else "svg"
    if ending not in FORMATS:
        raise BadInput(f"--figure {cut(file or '')}: ends with no format; {suggest(ending, list(FORMATS))}")


def save_cell_figure(fit: CellFit, file: str) -> None:
    """Draw measurements with the fit, standardized residuals, and their quantiles.

    Raises:
        BadInput: the name of the file ends with no known format, or it cannot be written.
    """
    check_figure(file)
    ending = Path(file).suffix.lower().lstrip(".")
    with mpl.rc_context(STYLE):
        content = encoded(draw(fit), ending)
    write_bytes(Path(file), content)


def draw(fit: CellFit) -> Figure:
    """The figure of a fit."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    thin = np.arange(0, len(fit.measured.target), -(-len(fit.measured.target) // MOST_DRAWN))
    target, measured = 1e6 * fit.measured.target[thin], 1e6 * fit.measured.measured[thin]
    mean, std = 1e6 * fit.scale * fit.chosen.mean[thin], 1e6 * fit.scale * fit.chosen.std[thin]
    order = np.argsort(target, kind="stable")
    left.plot(target, measured, ".", color=COLORS[5], markersize=3, label="measured")
    left.plot(target[order], mean[order], color=COLORS[0], label=fit.chosen.label)
    left.fill_between(target[order], (mean - std)[order], (mean + std)[order], color=COLORS[0], alpha=0.25)
    _labels(left, "target [uS]", "measured [uS]")
    left.legend(frameon=False, fontsize=9)
    residuals = (measured - mean) / std
    middle.plot(target, residuals, ".", color=COLORS[5], markersize=3)
    middle.axhline(0, color=COLORS[6], linewidth=0.8)
    _labels(middle, "target [uS]", "residual [standard deviations]")
    scores = np.sort(fit.chosen.scores)
    normal = stats.norm.ppf((np.arange(len(scores)) + 0.5) / len(scores))
    few = slice(None, None, -(-len(scores) // MOST_DRAWN) or 1)
    right.plot(normal[few], scores[few], ".", color=COLORS[5], markersize=3)
    ends = [normal[0], normal[-1]] if len(normal) else []
    right.plot(ends, ends, color=COLORS[6], linewidth=0.8)
    _labels(right, "quantile of a normal number", f"quantile of residuals ({fit.normality})")
    figure.suptitle(
        f"G from {units.show(fit.cell.g_min, 'S')} to {units.show(fit.cell.g_max, 'S')}: {fit.chosen.label}",
        fontsize=11,
    )
    return figure


def _labels(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
