"""The figures of docs/rescue.md, drawn from stored results; a panel without results says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.curves import Curves
from common.panels import Look, legend, metric_axis, missing_panel, noise_lines
from losses import COSTS, Loss, is_bounded, loss, ratios
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from methods import AUTO, CLIP, FIRST, NOTHING, SAME, SCALING, STUDIES, TITLES, TOKENS, TWICE, curves

from ohmformer.report.figure import COLORS, MARKERS

SOFTWARE = "software"
LOOKS = {
    NOTHING: Look(TITLES[NOTHING], COLORS[6], MARKERS[0]),
    CLIP: Look(TITLES[CLIP], COLORS[1], MARKERS[1]),
    SCALING: Look(TITLES[SCALING], COLORS[4], MARKERS[5]),
    TOKENS: Look(TITLES[TOKENS], COLORS[4], MARKERS[4], "--"),
    AUTO: Look(TITLES[AUTO], COLORS[3], MARKERS[2]),
    SAME: Look(TITLES[SAME], COLORS[0], MARKERS[3]),
    SAME + FIRST: Look(TITLES[SAME + FIRST], COLORS[0], MARKERS[3], "--"),
    TWICE: Look(TITLES[TWICE], COLORS[2], MARKERS[6]),
    TWICE + FIRST: Look(TITLES[TWICE + FIRST], COLORS[2], MARKERS[6], "--"),
}
"""Methods and the looks of their lines."""

ORDER = (SOFTWARE, *(look.label for look in LOOKS.values()))
MAIN = ("vit_s_kv", "vit_s_all", "smollm2_news")
OTHERS = ("fashion_vit", "minilm_tweets", "minilm_lee50", "smollm2_second", "vit_s_per_value")
FRONTS = {"vit_s_kv": 5.0, "vit_s_all": 5.0, "smollm2_news": 2.0}
"""Study of the figure of costs -> the noise that it shows."""


def _main(results: Path) -> Figure:
    return _over_noise(results, MAIN, "Written once: what write noise leaves")


def _others(results: Path) -> Figure:
    return _over_noise(results, OTHERS, "Other models, texts and arrays")


def _over_noise(results: Path, names: tuple[str, ...], title: str) -> Figure:
    """One panel for each study: methods with intervals over γσ."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5.0 * columns, 0.9 + 4.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, name in zip(panels, names, strict=False):
        found = curves(name, results)
        ax.set_title(STUDIES[name], fontsize=11)
        if found is None:
            missing_panel(ax)
        else:
            _study(ax, found)
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    legend(figure, panels, ORDER, columns=3)
    figure.suptitle(title, fontsize=12)
    return figure


def _study(ax: Axes, found: Curves) -> None:
    columns = {method: column for method, column in found.found.items() if method in LOOKS}
    points = [point for column in columns.values() for point in column.values()]
    if not points:
        missing_panel(ax)
        return
    metric_axis(ax, found.metric, found.software, SOFTWARE, points)
    noise_lines(ax, columns, LOOKS, found.sigma)
    ax.set_xlabel("γσ, relative deviation of a cell at full conductance")


def _costs(results: Path) -> Figure:
    """Loss against each field of the cost, one row for each study."""
    figure = Figure(figsize=(4.0 * len(COSTS), 0.9 + 3.3 * len(FRONTS)), layout="constrained")
    panels = figure.subplots(len(FRONTS), len(COSTS), squeeze=False, sharey="row")
    for row, (name, gamma) in zip(panels, FRONTS.items(), strict=True):
        found = curves(name, results)
        for ax, (field, what) in zip(row, COSTS.items(), strict=True):
            if found is None or not _cost_panel(ax, found, gamma, field):
                missing_panel(ax)
            ax.set_xlabel(f"{what} over that of no mitigation")
        row[0].set_ylabel(f"loss against software / {'points' if name.startswith('vit') else '%'}")
        row[0].set_title(f"{STUDIES[name]}, γσ = {0.2 * gamma:.2g}", fontsize=11, loc="left")
    legend(figure, panels.flatten(), ORDER, columns=3)
    figure.suptitle("What each method costs, and what it leaves to software", fontsize=12)
    return figure


def _cost_panel(ax: Axes, found: Curves, gamma: float, field: str) -> bool:
    """Draw the methods of a study, and the line through those that no other one beats; False if there are none."""
    drawn: list[tuple[float, Loss]] = []
    for method, look in LOOKS.items():
        point = found.point(method, gamma)
        lost, factors = loss(found, point), ratios(found, point)
        if lost is None or factors is None or field not in factors:
            continue
        reach = [[lost.mean - lost.low], [lost.high - lost.mean]] if is_bounded(lost) else None
        fill = "none" if look.style == "--" else "full"
        ax.errorbar([factors[field]], [lost.mean], yerr=reach, color=look.color, marker=look.marker, fillstyle=fill,
                    linestyle="", capsize=3, label=look.label)  # fmt: skip
        drawn.append((factors[field], lost))
    best = front([(ratio, lost.mean) for ratio, lost in drawn])
    ax.plot(*zip(*best, strict=True), color="0.6", linewidth=1, zorder=0) if best else None
    ax.set_yscale("symlog", linthresh=1.0)
    ax.grid(color="0.9")
    return bool(drawn)


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points than which no other one loses less for no more, from the cheapest on."""
    best: list[tuple[float, float]] = []
    for ratio, lost in sorted(points):
        if not best or lost < best[-1][1]:
            best.append((ratio, lost))
    return best


DRAWN: dict[str, Callable[[Path], Figure]] = {"main": _main, "costs": _costs, "others": _others}
"""Name of a figure -> what draws it from a folder of results."""
