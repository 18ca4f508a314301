"""Limits of cells as a figure: the loss over each quantity with its limit, and the frontier of a pair."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ohmformer.report.figure import COLORS, STYLE, TITLE
from ohmformer.report.figure_files import literal_lines, save_svg_and_png
from ohmformer.report.requirements_table import caption, limit_text, loss_bound
from ohmformer.study.results.requirements import Frontier, Requirement, Requirements

COLUMNS = 3
"""Most panels beside one another."""


def save_requirements_figure(found: Requirements, folder: Path) -> list[Path]:
    """Write requirements.svg and requirements.png into a folder, each whole or not at all.

    Raises:
        BadInput: one cannot be written.
    """
    with mpl.rc_context(STYLE):
        return save_svg_and_png(draw(found), folder, "requirements")


def draw(found: Requirements) -> Figure:
    """The figure: a panel for each quantity, and one for the map."""
    panels = len(found.requirements) + (found.frontier is not None)
    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    figure = Figure(figsize=(1.0 + 4.2 * columns, 0.9 + 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, each in zip(axes, found.requirements, strict=False):
        _losses(ax, each, found)
    if found.frontier is not None:
        _frontier(axes[panels - 1], found.frontier)
    for ax in axes[panels:]:
        ax.remove()
    title = shorten(found.study, TITLE, placeholder=" ...")
    figure.suptitle(literal_lines(f"{title}: loss up to {loss_bound(found)}", 100), fontsize=12)
    width = int(17 * figure.get_figwidth())
    figure.supxlabel("\n".join(literal_lines(line, width) for line in caption(found).split("\n")), fontsize=7)
    return figure


def _losses(ax: Axes, each: Requirement, found: Requirements) -> None:
    """The loss over the values of a quantity; the range that holds is shaded."""
    scale = 100.0 if each.unit == "%" else 1.0
    points = sorted((p.value, p.loss) for p in each.points if p.value is not None)
    values = [scale * value for value, _ in points]
    means = [100 * loss.mean for _, loss in points]
    down = [100 * (loss.mean - loss.near) for _, loss in points]
    up = [100 * (loss.far - loss.mean) for _, loss in points]
    ax.errorbar(values, means, yerr=[down, up], color=COLORS[0], marker="o", markersize=4, capsize=3, linewidth=1.2)
    ax.axhline(100 * found.loss, color=COLORS[1], linestyle="--", linewidth=1)
    _logarithmic(ax, "x", values)
    _hold_off_spikes(ax, means, 100 * found.loss)
    if each.limit is not None:
        left, right = ax.get_xlim()
        edge = scale * each.limit
        ax.axvspan(*((left, edge) if each.wanted == "largest" else (edge, right)), color=COLORS[2], alpha=0.15, lw=0)
        ax.set_xlim(left, right)
    if each.today is not None:
        ax.axvline(scale * each.today, color=COLORS[6], linestyle=":", linewidth=1)
        ax.annotate("today", (scale * each.today, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                    textcoords="offset points", fontsize=8, va="top")  # fmt: skip
    ax.set_xlabel(f"{each.title}{f' / {each.unit}' if each.unit else ''}")
    ax.set_ylabel(f"loss / {'points' if found.loss_unit == 'points' else '%'}")
    ax.set_title(limit_text(each), fontsize=10)
    ax.grid(axis="y", color="0.9")


def _logarithmic(ax: Axes, which: Literal["x", "y"], values: list[float]) -> None:
    """A logarithmic axis with plain numbers: powers of ten, and over few decades also twice and five times these."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    few = bool(values) and max(values) < 100 * min(values)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _hold_off_spikes(ax: Axes, means: list[float], bound: float) -> None:
    """Limit the axis of losses, so that intervals of a few chips do not hide the curve."""
    low, high = min(0.0, *means), max(bound, *means)
    room = 0.35 * max(high - low, bound)
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, low - room), min(top, high + room))


def _frontier(ax: Axes, frontier: Frontier) -> None:
    """The limit of the second quantity over the first one; below the curve both hold together."""
    first, second = frontier.first, frontier.rows[0].requirement
    x_scale, y_scale = (100.0 if unit == "%" else 1.0 for unit in (first.unit, second.unit))
    rows = [(row.value, row.requirement) for row in frontier.rows]
    largest = first.wanted == "largest"
    drawn = [(value if value is not None else 0.0, each) for value, each in rows if value is not None or largest]
    xs = [x_scale * value for value, each in drawn if each.limit is not None]
    ys = [y_scale * each.limit for _, each in drawn if each.limit is not None]
    ax.plot(xs, ys, color=COLORS[0], marker="o", markersize=4, label="holds up to" if largest else "holds from")
    sure = [(x_scale * value, y_scale * each.fails_from) for value, each in drawn if each.fails_from is not None]
    if sure:
        ax.plot(*zip(*sure, strict=True), color=COLORS[1], marker="s", markersize=4, label="certainly too much")
    nothing = [x_scale * value for value, each in drawn if each.limit is None]
    if nothing:
        ax.plot(nothing, [0.0] * len(nothing), "x", color=COLORS[6], label="no value holds")
    if not largest:
        _logarithmic(ax, "x", xs)
    if second.wanted == "smallest":
        _logarithmic(ax, "y", ys)
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlabel(f"{first.title}{f' / {first.unit}' if first.unit else ''}")
    ax.set_ylabel(f"{second.title}{f' / {second.unit}' if second.unit else ''}")
    ax.set_title(f"{first.title} and {second.title} together", fontsize=10)
    ax.grid(color="0.9")
    ax.legend(frameon=False, fontsize=9)
