"""Results as a figure: the metric over the swept number with error bars, and single points beside it."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ohmformer.report.caveats import TRUSTED, caveats
from ohmformer.report.figure_files import literal, literal_lines, save_svg_and_png
from ohmformer.report.table import software_line, static_line
from ohmformer.report.view import View, axis_name, sigma, view
from ohmformer.study.results.spec import MeasuredPoint, StudyResults

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colors, told apart by most color-blind readers; markers differ as well."""

MARKERS = "osD^vPX"
MANY = 200
"""Points of a line from which on intervals are a band, not bars, which could not be told apart; likewise of bars."""

WIDE = 5.0
"""A perplexity that grows by more than this is drawn on a logarithmic axis."""

Corner = Literal["upper left", "upper right", "lower left", "lower right"]
LEGEND_ROOM = 0.4
"""Share of the height of the axes that a legend may take."""

TITLE = 300
"""Characters of a title; more would leave no room for the figure."""

STYLE: Any = {
    "font.size": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "svg.hashsalt": "ohmformer",
    "text.usetex": False,
}


def save_figure(results: StudyResults, folder: Path) -> list[Path]:
    """Write figure.svg and figure.png into a folder, each whole or not at all.

    Raises:
        BadInput: one cannot be written.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks, names too long for their place
        return save_svg_and_png(draw(results), folder, "figure")


def draw(results: StudyResults) -> Figure:
    """The figure of a results document."""
    seen = view(results)
    panels = [panel for panel, content in (("lines", seen.series), ("bars", seen.bars)) if content]
    figure = Figure(figsize=(3.0 + 4.4 * len(panels), 4.8), layout="constrained")
    ratios = [3, 2][: len(panels)]
    axes = figure.subplots(1, len(panels), width_ratios=ratios, sharey=len(panels) == 2, squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _software(ax, results)
        if panel == "lines":
            _lines(ax, seen)
        else:
            _bars(ax, seen)
    _scale(axes[0], results)
    figure.suptitle(literal_lines(shorten(results.study, TITLE, placeholder=" ..."), 100), fontsize=12)
    notes = [line for line in (software_line(results), static_line(results), *caveats(results)) if line]
    width = int(17 * figure.get_figwidth())
    figure.supxlabel("\n".join(literal_lines(line, width) for line in notes), fontsize=7)
    return figure


def _scale(ax: Axes, results: StudyResults) -> None:
    """The axis of the metric: named, and between its limits where it has some."""
    metrics = {point.accuracy.shown for point in results.points}
    ax.set_ylabel(", ".join(" / ".join(filter(None, (metric.title, metric.unit))) for metric in metrics))
    limits = {metric.limits for metric in metrics}
    if len(limits) == 1 and (only := limits.pop()):
        ax.set_ylim(*only)
    measured = [point.accuracy for point in results.points]
    worst, best = max(entry.mean for entry in measured), min(entry.software for entry in measured)
    if all(metric.better == "lower" for metric in metrics) and worst > WIDE * best:
        ax.set_yscale("log")


def _software(ax: Axes, results: StudyResults) -> None:
    levels = sorted({point.accuracy.shown.factor * point.accuracy.software for point in results.points})
    for index, level in enumerate(levels):
        ax.axhline(level, color="0.4", linestyle="--", linewidth=1, label=None if index else "software")
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)


def _lines(ax: Axes, seen: View) -> None:
    """Series with error bars, a little apart so that all bars can be seen."""
    xs = sorted({x for series in seen.series for x, _ in series.points})
    apart = 0.06 * min((b - a for a, b in pairwise(xs)), default=1.0)
    for index, series in enumerate(seen.series):
        shift = apart * (index - (len(seen.series) - 1) / 2)
        means, errors = _heights([point for _, point in series.points])
        color, name = COLORS[index % len(COLORS)], literal(series.name)
        if len(series.points) > MANY:
            _band(ax, [x for x, _ in series.points], means, errors, color=color, label=name)
            continue
        ax.errorbar(
            [x + shift for x, _ in series.points],
            means,
            yerr=errors,
            color=color,
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            capsize=3,
            linewidth=1.5,
            label=name,
        )
    ax.set_xlabel(literal(axis_name(seen.x)))
    ax.legend(frameon=False, loc=_legend_corner(seen), fontsize=10)
    _twin(ax, sigma(seen))
    _shade(ax, seen, xs[-1])


def _band(ax: Axes, xs: list[float], means: list[float], errors: Any, *, color: str, label: str) -> None:
    """Many points of a line, with their intervals as a band."""
    down, up = np.array(errors)
    ax.fill_between(xs, means - down, means + up, color=color, alpha=0.25, linewidth=0)
    ax.plot(xs, means, color=color, linewidth=1.0, label=label)


def _legend_corner(seen: View) -> Corner:
    """The corner of the legend: left, below or above the curves, or right where curves leave more room there."""
    points = [(x, point.accuracy) for series in seen.series for x, point in series.points]
    lower_is_better = all(accuracy.shown.better == "lower" for _, accuracy in points)
    bounds = [bound for _, accuracy in points for bound in accuracy.ci95]
    low, high = min(bounds), max(bounds)
    if not lower_is_better:
        low = min(low, 0.0)
    middle = (min(x for x, _ in points) + max(x for x, _ in points)) / 2
    rooms = {"left": 1.0, "right": 1.0}
    for x, accuracy in points:
        room = (high - accuracy.ci95[1] if lower_is_better else accuracy.ci95[0] - low) / ((high - low) or 1.0)
        side = "right" if x > middle else "left"
        rooms[side] = min(rooms[side], room)
    side = "right" if rooms["left"] < min(LEGEND_ROOM, rooms["right"]) else "left"
    if lower_is_better:
        return "upper right" if side == "right" else "upper left"
    return "lower right" if side == "right" else "lower left"


def _shade(ax: Axes, seen: View, last: float) -> None:
    """A shade over noise so strong that the model is an extrapolation."""
    scale = sigma(seen)
    if not scale or last * scale <= TRUSTED:
        return
    left, right = ax.get_xlim()
    ax.axvspan(max(left, TRUSTED / scale), right, color="0.94", zorder=0, linewidth=0)
    ax.annotate(
        "extrapolation", (right, 1), xytext=(-4, 2), textcoords="offset points", ha="right", fontsize=8, color="0.4"
    )
    ax.set_xlim(left, right)


def _twin(ax: Axes, scale: float | None) -> None:
    """A second axis for γσ, the product that the noise depends on."""
    if not scale:
        return
    top = ax.secondary_xaxis("top", functions=(lambda x: np.multiply(x, scale), lambda x: np.divide(x, scale)))
    top.set_xlabel("γσ: relative standard deviation of a cell at full conductance", fontsize=9)


def _bars(ax: Axes, seen: View) -> None:
    """One bar for each point that stands for itself."""
    means, errors = _heights([point for _, point in seen.bars])
    places = list(range(len(means)))
    if len(means) > MANY:
        _band(ax, list(map(float, places)), means, errors, color=COLORS[5], label="")
        ax.set_xlabel("points, in the order of results.json")
        return
    ax.bar(places, means, yerr=errors, color="#56B4E9", edgecolor="0.2", width=0.6, capsize=3)
    for place, (_, point) in zip(places, seen.bars, strict=True):
        metric = point.accuracy.shown
        value, spot = metric.factor * point.accuracy.mean, ("data", "axes fraction")
        digits = 0 if metric.unit else min(metric.digits, 2)
        ax.annotate(f"{value:.{digits}f}", (place, 0.015), xycoords=spot, ha="center", fontsize=9)
    ax.set_xticks(places, [literal_lines(name, 14) for name, _ in seen.bars], fontsize=9)


def _heights(points: list[MeasuredPoint]) -> tuple[list[float], Any]:
    """Means, and how far their intervals reach down and up, as shown."""
    values = [[p.accuracy.shown.factor * x for x in (p.accuracy.mean, *p.accuracy.ci95)] for p in points]
    down = [max(0.0, mean - low) for mean, low, _ in values]
    up = [max(0.0, high - mean) for mean, _, high in values]
    return [mean for mean, _, _ in values], [down, up]
