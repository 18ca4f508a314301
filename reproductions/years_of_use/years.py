"""Weights and keys and values over the years of a chip: runs both studies, and writes the page with its figures.

    python reproductions/years_of_use/years.py

Stored results are reused, so a stopped run goes on. The figures are drawn from `results/*.json` alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE / "results"
HOURS = "simulation.hours"
NAMES = {0: "new", 1: "1 hour", 24: "1 day", 168: "1 week", 720: "1 month", 8766: "1 year"}
WRITES_PER_HOUR = 100 * 3600
"""Writes of a cell of K or V per hour, at 100 images per second and one write per image."""


def compute(study: str) -> None:
    """Run a study; its results file is written to `RESULTS`."""
    command = [sys.executable, "-m", "ohmformer", "run", str(HERE / f"{study}.toml"), "--json"]
    if subprocess.run([*command, str(RESULTS / f"{study}.json")], check=False).returncode:
        sys.exit(f"{study}.toml was not finished; the page is as before")


def series(study: str, label: Callable[[dict[str, Any]], str]) -> dict[str, dict[float, tuple[float, float, float]]]:
    """Label -> hours of use -> accuracy and the ends of its 95 % interval, in percent."""
    found: dict[str, dict[float, tuple[float, float, float]]] = {}
    for point in json.loads((RESULTS / f"{study}.json").read_text(encoding="utf-8"))["points"]:
        accuracy = point["accuracy"]
        low, high = accuracy["ci95"]
        values = tuple(100 * value for value in (accuracy["mean"], low, high))
        found.setdefault(label(point["set"]), {})[point["set"][HOURS]] = values
    return found


def weights_label(settings: dict[str, Any]) -> str:
    """Name of a way to compensate drift."""
    names = {"none": "not compensated", "global": "one factor", "column": "one factor per column"}
    return names[settings["hardware.projection.array.drift_compensation"]]


def kv_label(settings: dict[str, Any]) -> str:
    """Name of a conditioning of K and V."""
    return "not conditioned" if settings["mitigation.kv"] == "none" else "mean removed, Hadamard"


def table(first: str, names: dict[float, str], found: dict[str, dict[float, tuple[float, float, float]]]) -> str:
    """Markdown table with a row for each time."""
    rows = [f"| {first} | " + " | ".join(found) + " |", "|---" * (1 + len(found)) + "|"]
    for hours, name in names.items():
        cells = [f"{m:.1f} [{low:.1f}, {high:.1f}]" for m, low, high in (each[hours] for each in found.values())]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw(name: str, axis: str, least: float, found: dict[str, dict[float, tuple[float, float, float]]]) -> None:
    """Draw accuracy over hours of use, as PNG and SVG; time 0 is drawn at `least`."""
    mpl.rcParams["svg.hashsalt"] = "years"
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    for place, (label, values) in enumerate(found.items()):
        times = [max(hours, least) * (1 + 0.03 * place) for hours in values]
        means = [mean for mean, _, _ in values.values()]
        errors = [[m - low for m, low, _ in values.values()], [high - m for m, _, high in values.values()]]
        ax.errorbar(times, means, errors, marker="o", markersize=4, capsize=2, label=label)
    ax.set(xscale="log", xlabel=axis, ylabel="top-1 accuracy (%)", ylim=(0, 100))
    ax.grid(alpha=0.3)
    ax.legend()
    for suffix in ("png", "svg"):
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(HERE / f"{name}.{suffix}", dpi=150, bbox_inches="tight", metadata=metadata)
    plt.close(figure)


def filled(page: str, name: str, content: str) -> str:
    """The page with another content between the marks of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", page, flags=re.DOTALL)


def write_page() -> None:
    """Write tables and figures from the stored results."""
    weights, kv = series("weights", weights_label), series("kv", kv_label)
    draw("weights", "hours of use (0 is drawn at 0.1)", 0.1, weights)
    draw("kv", "hours of use (0 is drawn at 0.03)", 0.03, kv)
    hours = sorted(next(iter(kv.values())))
    names = {hour: f"{hour:g} h, {hour * WRITES_PER_HOUR:.2g} writes" for hour in hours}
    file = HERE / "README.md"
    page = filled(file.read_text(encoding="utf-8"), "weights", table("weights", dict(NAMES), weights))
    file.write_text(filled(page, "kv", table("use", names, kv)), encoding="utf-8")


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    if "--page" not in sys.argv[1:]:
        for study in ("weights", "kv"):
            compute(study)
    write_page()
