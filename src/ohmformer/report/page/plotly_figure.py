"""A chart as plain values that plotly.js draws. Colors of text and grid are set by the page, for light and dark."""

from __future__ import annotations

from html import escape
from typing import Any

from ohmformer.report.figure import COLORS
from ohmformer.report.page.content import Axis, Chart, Trace
from ohmformer.terminal.plain import clean

SYMBOLS = ("circle", "square", "diamond", "triangle-down", "triangle-up", "pentagon", "x")
"""Markers in the order of `report.figure.MARKERS`, so that colors are not needed to tell traces apart."""

PATTERNS = ("", "/", "\\", "x", "-", "|", "+", ".")
"""Hatches of bars, likewise."""

DASHES = ("dash", "dot", "dashdot", "longdash")

TEXT = "text"
"""A color that the page replaces by that of its text."""

LONGEST = 34
"""Characters of a name on an axis or in a legend; a pointer shows all of them."""

ROW, AROUND, LINES = 24, 110, 380
"""Height of a row of bars, of what surrounds rows, and of charts without rows [pixels]."""


def plotly_figure(chart: Chart) -> dict[str, Any]:
    """Data and layout of a chart."""
    names = chart.categories
    labels = dict(zip(names, _distinct([short(name) for name in names]), strict=True))
    legend = sum(bool(trace.name) for trace in chart.traces)
    rows = legend if legend > 1 else 0
    height = (AROUND + ROW * len(names) if names else LINES) + 20 * ((rows + 1) // 2)
    layout: dict[str, Any] = {
        "height": height,
        "barmode": "overlay" if any(trace.kind == "span" for trace in chart.traces) else "stack",
        "xaxis": _axis(chart.x),
        "yaxis": _categories(list(labels.values())) if names else _axis(chart.y),
        "showlegend": rows > 0,
    }
    return {"data": [_trace(trace, labels) for trace in chart.traces], "layout": layout}


def short(name: str) -> str:
    """A name of at most `LONGEST` characters: of a longer one its beginning and its end."""
    name = clean(name).replace("\n", " ")
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}"


def plain(text: str) -> str:
    """Text that plotly shows as it is: it reads some markup in names."""
    return escape(clean(text), quote=False)


def _distinct(labels: list[str]) -> list[str]:
    """Labels that differ: plotly draws equal ones at the same place."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(plain(label if seen[label] == 1 else f"{label} ({seen[label]})"))
    return found


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {"title": {"text": plain(axis.title)}, "automargin": True}
    if axis.log:
        return {**found, "type": "log", "exponentformat": "power", "dtick": 1}
    if axis.limits:
        low, high = axis.limits
        found["range"] = [low, high + 0.02 * (high - low)]
    return found


def _categories(labels: list[str]) -> dict[str, Any]:
    order = {"categoryorder": "array", "categoryarray": labels, "autorange": "reversed"}
    return {"type": "category", "automargin": True, "tickvals": labels, **order}


def _trace(trace: Trace, labels: dict[str, str]) -> dict[str, Any]:
    ys = [labels[value] if isinstance(value, str) else value for value in trace.y]
    color = color_of(trace.color)
    found: dict[str, Any] = {
        "x": list(trace.x),
        "y": ys,
        "name": plain(short(trace.name)),
        "showlegend": bool(trace.name),
    }
    if trace.notes:
        found |= {"hovertext": [plain(note) for note in trace.notes], "hoverinfo": "text"}
    if trace.kind in ("bar", "span"):
        if trace.kind == "span":
            return found | {"type": "bar", "orientation": "h", "marker": {"color": color}, "base": list(trace.start)}
        pattern = {"shape": PATTERNS[trace.color % len(PATTERNS)], "fillmode": "overlay", "fgopacity": 0.4, "size": 7}
        return found | {"type": "bar", "orientation": "h", "marker": {"color": color, "pattern": pattern}}
    modes = {"line": "lines+markers", "points": "markers", "limit": "lines"}
    found |= {"type": "scatter", "mode": modes[trace.kind]}
    if trace.kind == "limit":
        return found | {"line": {"color": TEXT, "width": 1.5, "dash": DASHES[trace.color % len(DASHES)]}}
    found["marker"] = {"color": color, "symbol": SYMBOLS[trace.color % len(SYMBOLS)], "size": 8}
    if trace.kind == "line":
        found["line"] = {"color": color, "width": 2}
    if trace.low:
        found["error_x" if labels else "error_y"] = _errors(trace, color, sideways=bool(labels))
    return found


def _errors(trace: Trace, color: str, *, sideways: bool) -> dict[str, Any]:
    middles = [float(value) for value in (trace.x if sideways else trace.y)]
    up = [max(0.0, high - middle) for high, middle in zip(trace.high, middles, strict=True)]
    down = [max(0.0, middle - low) for low, middle in zip(trace.low, middles, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "color": color,
        "thickness": 1.5,
        "width": 4,
    }


def color_of(number: int) -> str:
    """A color of the palette; its black is the color of the text, which is light in the dark."""
    color = COLORS[number % len(COLORS)]
    return TEXT if color == "#000000" else color
