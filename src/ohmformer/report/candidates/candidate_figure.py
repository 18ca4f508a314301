"""The candidates for K and V of each point with a budget as a figure: the loss over latency and over energy."""

from __future__ import annotations

import warnings
from pathlib import Path
from textwrap import shorten

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ohmformer.report.candidates.candidate_table import comparisons, limits_text
from ohmformer.report.cost_table import point_name
from ohmformer.report.figure import COLORS, MARKERS, STYLE, TITLE
from ohmformer.report.figure_files import literal, literal_lines, save_svg_and_png
from ohmformer.study.results.candidates import CandidateResult, ComparisonResult
from ohmformer.study.results.spec import StudyResults

MOST = 8
"""Number of points that are drawn."""

QUANTITIES = ("latency", "energy")
"""A column of panels for each."""

LEAST = 1e-3
"""Smallest loss on the axis, as a share of the largest; by chance, a loss may be below that of the original."""


def save_candidate_figure(results: StudyResults, folder: Path) -> list[Path]:
    """Write candidates.svg and candidates.png into a folder, each whole or not at all; nothing if no point has a price.

    Raises:
        BadInput: one cannot be written.
    """
    if not any(comparison.candidates[0].cost for _, comparison in comparisons(results)):
        return []
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks, names too long for their place
        return save_svg_and_png(draw(results), folder, "candidates")


def draw(results: StudyResults) -> Figure:
    """The figure: a row for each point, and a panel for each quantity."""
    found = [(point, comparison) for point, comparison in comparisons(results) if comparison.candidates[0].cost][:MOST]
    figure = Figure(figsize=(4.6 * len(QUANTITIES) + 3.2, 0.8 + 3.4 * len(found)), layout="constrained")
    rows = figure.subplots(len(found), len(QUANTITIES), squeeze=False, sharey="row")
    for axes, (point, comparison) in zip(rows, found, strict=True):
        for ax, quantity in zip(axes, QUANTITIES, strict=True):
            _panel(ax, comparison, quantity)
        axes[0].set_ylabel("loss above software")
        title = shorten(f"{point_name(point)}: {limits_text(comparison)}", TITLE, placeholder=" ...")
        axes[0].set_title(literal_lines(title, 60), fontsize=9, loc="left")
        axes[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(shorten(literal(results.study), TITLE, placeholder=" ..."), fontsize=12)
    return figure


def _panel(ax: Axes, comparison: ComparisonResult, quantity: str) -> None:
    """Candidates over a quantity: filled within the budget, empty beyond it; a ring around the chosen one."""
    least = LEAST * max(comparison.excess(each) for each in comparison.candidates) or 1.0
    spots = {id(each): _spot(comparison, each, quantity, least) for each in comparison.candidates}
    for index, each in enumerate(comparison.candidates):
        color = COLORS[index % len(COLORS)]
        marker = MARKERS[(index // len(COLORS)) % len(MARKERS)]
        face = color if each.within else "none"
        ax.plot(*spots[id(each)], marker, color=color, markerfacecolor=face, label=literal(each.name), zorder=3)
        if each.chosen:
            ax.plot(*spots[id(each)], "o", color="0.2", markersize=14, markerfacecolor="none", zorder=2)
    steps = [spots[id(each)] for each in comparison.best_for(quantity)]
    ax.step([x for x, _ in steps], [y for _, y in steps], where="post", color="0.6", linewidth=1, zorder=1)
    if quantity in comparison.limits:
        ax.axvline(100 * (comparison.limits[quantity] - 1), color=COLORS[1], linestyle="--", linewidth=1)
    ax.set_yscale("log")
    ax.set_xlabel(f"{quantity}: change / %")
    ax.grid(color="0.9")
    ax.set_axisbelow(True)


def _spot(comparison: ComparisonResult, each: CandidateResult, quantity: str, least: float) -> tuple[float, float]:
    """Where a candidate stands: the change of a quantity in percent, and its loss."""
    ratio = comparison.ratio(each, quantity)
    return 100 * ((1.0 if ratio is None else ratio) - 1), max(comparison.excess(each), least)
