"""The charts of a page as figures for print: SVG or PDF."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ohmformer.report.figure import COLORS, MARKERS, STYLE
from ohmformer.report.figure_files import encoded, literal
from ohmformer.report.page.content import Axis, Chart, Page, Trace
from ohmformer.report.page.plotly_figure import short
from ohmformer.terminal.files import write_bytes

WIDTH, HEIGHT = 6.0, 3.8
"""Size of a figure [inch]; one of bars is as high as its rows."""

ROW = 0.28
HATCHES = ("", "//", "\\\\", "xx", "--", "||", "++", "..")


def save_charts(page: Page, folder: Path, ending: str) -> list[Path]:
    """Write each chart of a page as NAME.ENDING into a folder, each whole or not at all.

    Raises:
        BadInput: one cannot be written.
    """
    files = []
    with mpl.rc_context({**STYLE, "font.size": 9, "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks, names too long for their place
        for chart in page.charts:
            files.append(folder / f"{chart.name}.{ending}")
            write_bytes(files[-1], encoded(draw(chart), ending))
    return files


def draw(chart: Chart) -> Figure:
    """A chart as a figure."""
    names = chart.categories
    figure = Figure(figsize=(WIDTH, 1.3 + ROW * len(names) if names else HEIGHT), layout="constrained")
    ax = figure.subplots()
    places = {name: number for number, name in enumerate(names)}
    ends = dict.fromkeys(names, 0.0)
    for trace in chart.traces:
        _draw(ax, trace, places, ends)
    _label(ax, chart, names)
    if sum(bool(trace.name) for trace in chart.traces) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _draw(ax: Axes, trace: Trace, places: dict[str, int], ends: dict[str, float]) -> None:
    """Draw one trace; bars begin where those before them end, and `ends` is moved on."""
    ys = [places[value] if isinstance(value, str) else value for value in trace.y]
    label, color = literal(short(trace.name)) or None, COLORS[trace.color % len(COLORS)]
    match trace.kind:
        case "limit":
            ax.plot(trace.x, ys, color="0.4", linestyle="--", linewidth=1, label=label)
        case "bar" | "span":
            names = [str(value) for value in trace.y]
            starts = trace.start or [ends[name] for name in names]
            hatch = HATCHES[trace.color % len(HATCHES)]
            ax.barh(
                ys,
                trace.x,
                left=starts,
                height=0.7,
                color=color,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.3,
                label=label,
            )
            ends.update({name: ends[name] + length for name, length in zip(names, trace.x, strict=True)})
        case _:
            style: dict[str, Any] = {"color": color, "marker": MARKERS[trace.color % len(MARKERS)], "label": label}
            line = "-" if trace.kind == "line" else "none"
            ax.errorbar(
                trace.x,
                ys,
                **_errors(trace, ys, sideways=bool(places)),
                linestyle=line,
                capsize=2.5,
                markersize=4.5,
                **style,
            )


def _errors(trace: Trace, ys: list[Any], *, sideways: bool) -> dict[str, Any]:
    if not trace.low:
        return {}
    middles = trace.x if sideways else ys
    down = [max(0.0, middle - low) for low, middle in zip(trace.low, middles, strict=True)]
    up = [max(0.0, high - middle) for high, middle in zip(trace.high, middles, strict=True)]
    return {"xerr" if sideways else "yerr": [down, up]}


def _label(ax: Axes, chart: Chart, names: list[str]) -> None:
    ax.set_xlabel(literal(chart.x.title))
    ax.set_ylabel(literal(chart.y.title))
    _limit(ax, chart.x, horizontal=True)
    if names:
        ax.set_yticks(range(len(names)), [literal(short(name)) for name in names])
        ax.invert_yaxis()
    else:
        _limit(ax, chart.y, horizontal=False)
    ax.grid(axis="x" if names else "y", color="0.9")
    ax.set_axisbelow(True)


def _limit(ax: Axes, axis: Axis, *, horizontal: bool) -> None:
    if axis.log:
        (ax.set_xscale if horizontal else ax.set_yscale)("log")
    elif axis.limits:
        (ax.set_xlim if horizontal else ax.set_ylim)(*axis.limits)
