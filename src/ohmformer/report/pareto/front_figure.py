"""The Pareto front of a search as a figure: each further objective over the first one, front and other designs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ohmformer.report.figure import COLORS, MARKERS, STYLE, TITLE
from ohmformer.report.figure_files import literal, literal_lines, save_svg_and_png
from ohmformer.report.pareto.front_table import caption
from ohmformer.study.results.search import SearchedDesign, SearchedQuantity, SearchResults

COLUMNS = 3
"""Most panels beside one another."""

MOST_KINDS = len(COLORS) - 1
"""Number of values of the first choice that have colors of their own."""

MOST_NUMBERS = 25
"""Number of designs of a front up to which each is numbered."""

WIDE = 30.0
"""Ratio of the largest to the smallest value from which on an axis is logarithmic."""

UNITS = {"latency": (1e6, "µs"), "energy": (1e6, "µJ"), "power": (1.0, "W"), "area": (1e6, "mm²"),
         "lifetime": (1 / 31_557_600.0, "years"), "throughput": (1.0, "1/s"), "loss": (100.0, "%")}  # fmt: skip
"""Quantity -> factor from its SI value to that on an axis, and the unit there."""


OTHERS = (
    (("dominated", "skipped"), "beaten by others", "0.75", "o"),
    (("infeasible",), "outside the constraints", "0.5", "x"),
)
"""States of designs that are not on the front, and their label, color and marker."""


def save_front_figure(found: SearchResults, folder: Path) -> list[Path]:
    """Write front.svg and front.png into a folder, each whole or not at all.

    Raises:
        BadInput: one cannot be written.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks
        return save_svg_and_png(draw(found), folder, "front")


def draw(found: SearchResults) -> Figure:
    """The figure: a panel for each objective but the first."""
    first, *others = found.objectives
    pairs = [(first, other) for other in others] or [(first, first)]
    columns = min(len(pairs), COLUMNS)
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(3.2 + 4.4 * columns, 1.2 + 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, (x, y) in zip(axes, pairs, strict=False):
        _panel(ax, found, x, y)
    for ax in axes[len(pairs) :]:
        ax.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    title = shorten(found.study, TITLE, placeholder=" ...")
    figure.suptitle(literal_lines(title, 30 + 40 * columns), fontsize=12)
    width = int(17 * figure.get_figwidth())
    figure.supxlabel("\n".join(literal_lines(line, width) for line in caption(found).split("\n")), fontsize=7)
    return figure


def _panel(ax: Axes, found: SearchResults, x: SearchedQuantity, y: SearchedQuantity) -> None:
    """One objective over another one: designs of the front are large and numbered, measured others small."""
    kinds = _kinds(found)
    others = [each for each in found.designs if each.state in ("dominated", "infeasible", "skipped")]
    for states, label, color, marker in OTHERS:
        across, up = _places([each for each in others if each.state in states], x, y)
        if across:
            ax.scatter(across, up, s=14, marker=marker, color=color, linewidth=0.8, label=label, zorder=1)
    best = found.front
    for number, kind in enumerate(kinds):
        across, up = _places([each for each in best if _kind(each, kinds) == kind], x, y)
        if across:
            look: Any = {"color": COLORS[number], "marker": MARKERS[number % len(MARKERS)], "edgecolor": "black"}
            name = literal(f"front: {kind}" if kind else "front")
            ax.scatter(across, up, s=55, linewidth=0.6, label=name, zorder=3, **look)
    if len(best) <= MOST_NUMBERS:
        for design in best:
            for place in zip(*_places([design], x, y), strict=True):
                ax.annotate(str(design.number), place, xytext=(5, 4), textcoords="offset points", fontsize=8, zorder=4)
    for axis, quantity in ((ax.xaxis, x), (ax.yaxis, y)):
        shown = [value for each in [*best, *others] if (value := _value(each, quantity)) is not None]
        if min(shown, default=0.0) > 0 and max(shown) > WIDE * min(shown):
            (ax.set_xscale if axis is ax.xaxis else ax.set_yscale)("log")
    ax.set_xlabel(_label(x))
    ax.set_ylabel(_label(y))
    ax.grid(color="0.92")
    ax.set_axisbelow(True)


def _kinds(found: SearchResults) -> list[str]:
    """The values of the first choice on the front; a single empty one if there are too many of them."""
    names = list(found.designs[0].choices)
    kinds = list(dict.fromkeys(str(each.choices.get(names[0], "")) for each in found.front))
    return kinds if 1 < len(kinds) <= MOST_KINDS else [""]


def _kind(design: SearchedDesign, kinds: Sequence[str]) -> str:
    return str(next(iter(design.choices.values()), "")) if kinds != [""] else ""


def _places(
    designs: Sequence[SearchedDesign], x: SearchedQuantity, y: SearchedQuantity
) -> tuple[list[float], list[float]]:
    """Where designs are drawn; those with an unlimited value are left out."""
    pairs = [(_value(each, x), _value(each, y)) for each in designs]
    there = [(across, up) for across, up in pairs if across is not None and up is not None]
    return [across for across, _ in there], [up for _, up in there]


def _value(design: SearchedDesign, quantity: SearchedQuantity) -> float | None:
    value = design.values.get(quantity.name)
    return None if value is None else value * _scale(quantity)[0]


def _scale(quantity: SearchedQuantity) -> tuple[float, str]:
    return UNITS.get(quantity.name, (100.0, "%") if quantity.unit == "%" else (1.0, quantity.unit))


def _label(quantity: SearchedQuantity) -> str:
    unit = _scale(quantity)[1]
    return literal(f"{quantity.title}{f' / {unit}' if unit else ''}")
