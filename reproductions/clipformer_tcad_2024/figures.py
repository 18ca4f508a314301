"""The figures of docs/rescue_details.md, drawn from stored results; what is not measured yet says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common.curves import Curves
from common.panels import Look, heights, legend, metric_axis, missing_panel, noise_lines
from common.small_files import Point
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from stored import METHODS, STUDIES, TRAINED, curves
from tables import ablation_rows

from ohmformer.report.figure import COLORS, MARKERS

LINES = {**METHODS, **{ending: title for ending, (_, title) in TRAINED.items()}}
"""Lines of a panel and what they are called: methods, then models that were trained under noise."""

SOFTWARE = "software"
ORDER = (SOFTWARE, *LINES.values())
LOOK = {line: (COLORS[index], MARKERS[index]) for index, line in enumerate(LINES)}
MAIN = ("vit_s", "vit_s_vat")
OTHERS = ("vit_s_per_value", "fashion_vit", "minilm_tweets", "minilm_lee50", "smollm2_news")


def _main(results: Path) -> Figure:
    return _over_noise(results, MAIN, "Photo classifier of DeiT-S's shape: accuracy against write noise of K and V")


def _others(results: Path) -> Figure:
    return _over_noise(results, OTHERS, "Other noise, other models, other data: nothing chosen anew by hand")


def _over_noise(results: Path, names: Sequence[str], title: str) -> Figure:
    """One panel for each study: methods with intervals over γ, and γσ above."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5.0 * columns, 4.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, name in zip(panels, names, strict=False):
        found = curves(name, results)
        ax.set_title(STUDIES[name], fontsize=11, pad=10 if found is None else 6)
        if found is None:
            missing_panel(ax)
        else:
            _lines(ax, found, _columns(found, results))
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    legend(figure, panels, ORDER)
    figure.suptitle(title, fontsize=12)
    return figure


def _columns(found: Curves, results: Path) -> dict[str, dict[float, Point]]:
    """Line -> gamma -> point: the methods of a study, then those of its model trained under noise."""
    columns = dict(found.found)
    for ending, (method, _) in TRAINED.items():
        trained = curves(found.name + ending, results)
        if trained is not None and method in trained.found:
            columns[ending] = trained.found[method]
    return columns


def _lines(ax: Axes, found: Curves, columns: dict[str, dict[float, Point]]) -> None:
    points = [point for column in columns.values() for point in column.values()]
    metric_axis(ax, found.metric, found.software, SOFTWARE, points)
    noise_lines(ax, columns, {method: Look(LINES[method], *LOOK[method]) for method in columns})
    ax.set_xlabel("write noise γ of K and V")
    top = ax.secondary_xaxis("top", functions=(lambda x: x * found.sigma, lambda x: x / found.sigma))
    top.set_xlabel("γσ", fontsize=9)


def _ablation(results: Path) -> Figure:
    """One bar for each point of the ablation, one panel for each noise level, and one for noise in single operands."""
    rows = ablation_rows(results)
    gammas = sorted({float(gamma) for _, gamma, point in rows if gamma is not None and not point.label})
    figure = Figure(figsize=(12.5, 6.5 if rows else 3.0), layout="constrained")
    figure.suptitle("ViT-S classifier: what each step does", fontsize=12)
    if not rows:
        missing_panel(figure.subplots())
        return figure
    steps = [name for name, _, point in rows if not point.label]
    panels = [(f"γ = {gamma:g}", [(n, p) for n, g, p in rows if g == gamma and not p.label]) for gamma in gammas]
    labeled = [(name, point) for name, _, point in rows if point.label]
    order = list(dict.fromkeys(steps))[::-1]
    axes = figure.subplots(1, len(panels) + bool(labeled), squeeze=False)[0]
    for place, (ax, (title, entries)) in enumerate(zip(axes, panels, strict=False)):
        _bars(ax, entries, order)
        ax.set_title(title, fontsize=11)
        ax.set_yticks(range(len(order)), order if place == 0 else [""] * len(order), fontsize=8)
    if labeled:
        _bars(axes[-1], labeled, [name for name, _ in labeled][::-1])
        axes[-1].set_yticks(range(len(labeled)), [name for name, _ in labeled][::-1], fontsize=8)
        axes[-1].yaxis.tick_right()
        axes[-1].set_title("no mitigation", fontsize=11)
    legend(figure, axes, ORDER)
    return figure


def _bars(ax: Axes, entries: list[tuple[str, Point]], order: list[str]) -> None:
    means, errors = heights([point for _, point in entries])
    places = [order.index(name) for name, _ in entries]
    ax.barh(places, means, xerr=errors, color=COLORS[5], edgecolor="0.2", height=0.65, capsize=3)
    ax.axvline(100 * entries[0][1].accuracy.software, color="0.4", linestyle="--", linewidth=1, label=SOFTWARE)
    ax.set_ylim(-0.7, len(order) - 0.3)
    ax.set_xlim(0, 100)
    ax.set_xlabel("accuracy / %")


def conductances(results: Path) -> dict[str, Any]:
    """What histograms.py measured: `bins` and `models`; no models where nothing is stored."""
    file = results / "conductances.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"models": {}}
    return content


def _histograms(results: Path) -> Figure:
    """Shares of conductances of K and V, on a logarithmic axis: one row for each model."""
    content = conductances(results)
    models = list(content["models"].items())
    figure = Figure(figsize=(10.5, 3.2 * max(1, len(models))), layout="constrained")
    if not models:
        missing_panel(figure.subplots())
        return figure
    rows = figure.subplots(len(models), 2, squeeze=False, sharex=True, sharey=True)
    edges = np.linspace(0.0, 1.0, content["bins"] + 1)
    for panels, (name, model) in zip(rows, models, strict=True):
        gamma = next(iter(model["noise"]))
        found = model["noise"][gamma]["histograms"]
        for ax, axis in zip(panels, "KV", strict=True):
            for method, written in found.items():
                _shares(ax, method, np.array(written[axis]), edges)
            ax.set_yscale("log")
            ax.set_title(f"{STUDIES[name].split(',')[0]}: {axis}, γ = {gamma}", fontsize=10)
            ax.set_xlabel("(G − G_min) / (G_max − G_min) of the whole value")
        panels[0].set_ylabel("share of values, per bin or code")
    legend(figure, rows.flatten(), ORDER)
    figure.suptitle("Conductances that K and V ask for", fontsize=12)
    return figure


def _shares(ax: Axes, method: str, shares: Any, edges: Any) -> None:
    """Steps, or points where only a few codes exist."""
    (color, marker), there = LOOK[method], shares > 0
    few = there[: int(there.nonzero()[0].max()) + 1].mean() < 0.5
    if few:
        centers = (edges[1:] + edges[:-1]) / 2
        ax.plot(centers[there], shares[there], color=color, marker=marker, linestyle=":", label=LINES[method])
    else:
        ax.stairs(np.where(there, shares, np.nan), edges, color=color, linewidth=1.6, label=LINES[method])


def _snr(results: Path) -> Figure:
    """Signal over noise of each layer's attention, with each method: one panel for each model and noise."""
    panels = [
        (name, gamma, found["snr"])
        for name, model in conductances(results)["models"].items()
        for gamma, found in model["noise"].items()
    ]
    figure = Figure(figsize=(3.6 * max(2, len(panels)), 3.8), layout="constrained")
    if not panels:
        missing_panel(figure.subplots())
        return figure
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (name, gamma, found) in zip(axes, panels, strict=True):
        for method, values in found.items():
            color, marker = LOOK[method]
            means, low, high = np.array(values).T
            ax.errorbar(
                range(1, len(means) + 1), means, yerr=[means - low, high - means], color=color, marker=marker,
                markersize=4, capsize=2, label=LINES[method],
            )  # fmt: skip
        ax.set_title(f"{STUDIES[name].split(',')[0]}, γ = {gamma}", fontsize=10)
        ax.set_xlabel("layer")
        ax.grid(axis="y", color="0.9")
    axes[0].set_ylabel("signal / noise of softmax(QKᵀ)V, dB")
    legend(figure, axes, ORDER)
    return figure


DRAWN: dict[str, Callable[[Path], Figure]] = {
    "main": _main,
    "others": _others,
    "ablation": _ablation,
    "histograms": _histograms,
    "snr": _snr,
}
"""Name -> what draws the figure from a folder of results."""
