"""Panels of figures: a metric over the noise, panels without results, and one legend for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.pages import MISSING
from common.small_files import Point
from ohmformer.report.figure import STYLE, WIDE
from ohmformer.tasks.metric_kinds import Metric


@dataclass(frozen=True)
class Look:
    """Label, color, marker and style of a line."""

    label: str
    color: str
    marker: str
    style: str = "-"


def draw_all(drawn: dict[str, Callable[[Path], Figure]], results: Path, out: Path, prefix: str) -> list[Path]:
    """Draw all figures as SVG and PNG, and return the files.

    Args:
        drawn: name of a figure -> what draws it from a folder of results.
        results: folder of the small files.
        out: folder of the figures.
        prefix: beginning of the names of the files.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        for name, draw in drawn.items():
            figure = draw(results)
            for ending, how in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 110})):
                files.append(out / f"{prefix}_{name}.{ending}")
                figure.savefig(files[-1], **how)
    return files


def legend(figure: Figure, panels: Sequence[Axes], order: Iterable[str], columns: int = 4) -> None:
    """One legend for all panels, below them, where it hides no line."""
    drawn = {label: handle for ax in panels for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = [label for label in order if label in drawn]
    if labels:
        handles = [drawn[label] for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def missing_panel(ax: Axes) -> None:
    """Say in a panel that it has no results."""
    ax.text(0.5, 0.5, MISSING, ha="center", va="center", transform=ax.transAxes, color="0.4")
    ax.set_xticks([])
    ax.set_yticks([])


def heights(points: Sequence[Point]) -> tuple[list[float], Any]:
    """Means, and how far their intervals reach down and up, as shown."""
    found = [
        [point.accuracy.shown.factor * value for value in (point.accuracy.mean, *point.accuracy.ci95)]
        for point in points
    ]
    down = [max(0.0, mean - low) for mean, low, _ in found]
    up = [max(0.0, high - mean) for mean, _, high in found]
    return [mean for mean, _, _ in found], [down, up]


def metric_axis(ax: Axes, metric: Metric, software: float, label: str, points: Iterable[Point]) -> None:
    """Name and limit the vertical axis, and draw the line of the software model."""
    ax.axhline(metric.factor * software, color="0.4", linestyle="--", linewidth=1, label=label)
    ax.grid(axis="y", color="0.9")
    ax.set_ylabel(" / ".join(filter(None, (metric.title, metric.unit))))
    if metric.limits:
        ax.set_ylim(*metric.limits)
    if metric.better == "lower" and max(point.accuracy.mean for point in points) > WIDE * software:
        ax.set_yscale("log")


def noise_lines(
    ax: Axes, columns: Mapping[str, Mapping[float, Point]], looks: Mapping[str, Look], scale: float = 1.0
) -> None:
    """Draw methods with intervals over the noise, a little apart so that all bars can be seen.

    Args:
        ax: the panel.
        columns: method -> gamma -> point.
        looks: method -> the look of its line.
        scale: factor from gamma to the horizontal axis.
    """
    gammas = sorted({scale * gamma for column in columns.values() for gamma in column})
    apart = 0.05 * min((b - a for a, b in pairwise(gammas)), default=1.0)
    for index, (method, column) in enumerate(columns.items()):
        look, shift = looks[method], apart * (index - (len(columns) - 1) / 2)
        means, errors = heights(list(column.values()))
        ax.errorbar(
            [scale * gamma + shift for gamma in column], means, yerr=errors, color=look.color, marker=look.marker,
            markersize=5, capsize=3, linewidth=1.5, linestyle=look.style, label=look.label,
        )  # fmt: skip
