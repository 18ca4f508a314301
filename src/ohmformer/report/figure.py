"""Results as a figure: accuracy over the swept number with error bars, and single points beside it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ohmformer.report.caveats import TRUSTED, caveats
from ohmformer.report.table import software_line, static_line
from ohmformer.report.view import Document, Point, View, axis_name, sigma, view

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by most colour-blind readers; markers differ as well."""

MARKERS = "osD^vPX"
STYLE: Any = {"font.size": 11, "axes.spines.right": False, "axes.spines.top": False, "svg.hashsalt": "ohmformer"}


def save_figure(document: Document, folder: Path) -> list[Path]:
    """Write figure.svg and figure.png into a folder."""
    with mpl.rc_context(STYLE):
        figure = draw(document)
        files = [folder / "figure.svg", folder / "figure.png"]
        figure.savefig(files[0], metadata={"Date": None})
        figure.savefig(files[1], dpi=160)
    return files


def draw(document: Document) -> Figure:
    """The figure of a results document."""
    seen = view(document)
    panels = [panel for panel, content in (("lines", seen.series), ("bars", seen.bars)) if content]
    figure = Figure(figsize=(3.0 + 4.4 * len(panels), 4.8), layout="constrained")
    ratios = [3, 2][: len(panels)]
    axes = figure.subplots(1, len(panels), width_ratios=ratios, sharey=len(panels) == 2, squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _software(ax, document)
        if panel == "lines":
            _lines(ax, seen)
        else:
            _bars(ax, seen)
    axes[0].set_ylabel("accuracy / %")
    axes[0].set_ylim(0, 100)
    figure.suptitle(document["study"], fontsize=12)
    notes = [line for line in (software_line(document), static_line(document), *caveats(document)) if line]
    width = int(17 * figure.get_figwidth())
    figure.supxlabel("\n".join(fill(line, width) for line in notes), fontsize=7)
    return figure


def _software(ax: Axes, document: Document) -> None:
    levels = sorted({point["accuracy"]["software"] for point in document["points"]})
    for index, level in enumerate(levels):
        ax.axhline(100 * level, color="0.4", linestyle="--", linewidth=1, label=None if index else "software")
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)


def _lines(ax: Axes, seen: View) -> None:
    """Series with error bars, a little apart so that all bars can be seen."""
    xs = sorted({x for series in seen.series for x, _ in series.points})
    apart = 0.06 * min((b - a for a, b in pairwise(xs)), default=1.0)
    for index, series in enumerate(seen.series):
        shift = apart * (index - (len(seen.series) - 1) / 2)
        means, errors = _heights([point for _, point in series.points])
        ax.errorbar(
            [x + shift for x, _ in series.points],
            means,
            yerr=errors,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            capsize=3,
            linewidth=1.5,
            label=series.name,
        )
    ax.set_xlabel(axis_name(seen.x))
    ax.legend(frameon=False, loc="lower left", fontsize=10)
    _twin(ax, sigma(seen))
    _shade(ax, seen, xs[-1])


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
    ax.bar(places, means, yerr=errors, color="#56B4E9", edgecolor="0.2", width=0.6, capsize=3)
    for place, mean in zip(places, means, strict=True):
        ax.annotate(f"{mean:.0f}", (place, 1.5), ha="center", fontsize=9)
    ax.set_xticks(places, [fill(name, 14) for name, _ in seen.bars], fontsize=9)


def _heights(points: list[Point]) -> tuple[list[float], Any]:
    """Means, and how far their intervals reach down and up, in percent."""
    found = [(point["accuracy"]["mean"], *point["accuracy"]["ci95"]) for point in points]
    down = [100 * max(0.0, mean - low) for mean, low, _ in found]
    up = [100 * max(0.0, high - mean) for mean, _, high in found]
    return [100 * mean for mean, _, _ in found], [down, up]
