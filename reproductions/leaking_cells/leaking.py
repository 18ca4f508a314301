"""Attention in gain cells against the time constant of their charge: runs both studies, and writes page and figure.

    python reproductions/leaking_cells/leaking.py [--page] [vit] [smollm2]

Stored results are reused, so a stopped run goes on. `--page` computes nothing: tables and figure come from
`results/*.json` alone. `smollm2` needs `real_models_data` of ../real_models; without it, its stored results stay.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from ohmformer import units

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SHAPES = HERE.parent / "clipformer_tcad_2024" / "shapes" / "smollm2.toml"
DATA = Path("real_models_data/smollm2")
FETCH = "python reproductions/real_models/fetch.py --only smollm2 news.txt"
TAU, REFRESH = "hardware.attention.array.cell.drift.tau", "hardware.attention.refresh"
SILICON = 5e-3
"""Time constant of the gain cell in silicon [s]."""


@dataclass(frozen=True)
class Model:
    """How the results of a study are shown."""

    title: str
    metric: str
    axis: str
    percent: bool
    unit: str


MODELS = {
    "vit": Model("bundled ViT, one image", "accuracy", "top-1 accuracy (%)", True, "pass"),
    "smollm2": Model("SmolLM2, one request", "perplexity", "perplexity", False, "request"),
}


@dataclass(frozen=True)
class Point:
    """One time constant, with or without a refresh.

    Attributes:
        tau: time constant [s].
        refresh: interval of the refresh [s]; None without one.
        mean, low, high: the metric, and its 95 % interval.
        longest: longest age of a key or value when it is read [s].
        latency: time of a pass or request [s].
        energy: its energy [J].
        writes: writes of the most written cell in it.
    """

    tau: float
    refresh: float | None
    mean: float
    low: float
    high: float
    longest: float
    latency: float
    energy: float
    writes: float


def compute(study: str) -> None:
    """Run a study; its results, and the times and prices of its points, are written to `RESULTS`."""
    file = HERE / f"{study}.toml"
    command = [sys.executable, "-m", "ohmformer", "run", str(file), "--json", str(RESULTS / f"{study}.json")]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"{file.name} was not finished; the page is as before")
    text = json.dumps(timed(file), indent=1)
    (RESULTS / f"{study}_times.json").write_text(text + "\n", encoding="utf-8")


def timed(file: Path) -> list[dict[str, Any]]:
    """Longest age, time, energy and writes at each point of a study; the time constant changes none of them."""
    from ohmformer.study.read_study import read_study

    found: dict[str, dict[str, Any]] = {}
    rows = []
    for point in read_study(str(file)).points:
        interval = point.set.get(REFRESH, "none")
        if interval not in found:
            found[interval] = prices(point.settings)
        rows.append({"set": point.set, **found[interval]})
    return rows


def prices(settings: Any) -> dict[str, float]:
    """Longest age, time, energy and writes of one pass, or of one request.

    A request of SmolLM2 is priced from its table of dimensions, which gives what its traced model gives.
    """
    from ohmformer.study.cost import runs_of
    from ohmformer.study.serving import served_of

    timing = settings.timing
    if timing.model.generate is None:
        run = runs_of(timing)[0]
        ages, latency, energy = run.timeline.ages(), run.latency, run.energy
    else:
        model = timing.model.model_copy(update={"source": f"shapes:{SHAPES}"})
        served = served_of(timing.model_copy(update={"model": model}))
        ages, latency, energy = served.ages(), served.latency, served.energy
    writes = max(entry.most for entry in ages.writes)
    return {"longest_age_s": ages.longest, "latency_s": latency, "energy_J": energy, "writes": writes}


def points(study: str) -> list[Point]:
    """The stored points of a study, the slowest decay first."""
    results = json.loads((RESULTS / f"{study}.json").read_text(encoding="utf-8"))["points"]
    times = json.loads((RESULTS / f"{study}_times.json").read_text(encoding="utf-8"))
    found = []
    for entry, row in zip(results, times, strict=True):
        values, accuracy = entry["set"], entry["accuracy"]
        assert values == row["set"], f"{study}: results and times have other points; run this script without --page"
        scale = 100 if MODELS[study].percent else 1
        interval = units.parse(values[REFRESH], "s") if REFRESH in values else None
        found.append(
            Point(
                units.parse(values[TAU], "s"), interval, *(scale * v for v in (accuracy["mean"], *accuracy["ci95"])),
                row["longest_age_s"], row["latency_s"], row["energy_J"], row["writes"],
            )
        )  # fmt: skip
    return sorted(found, key=lambda point: -point.tau)


def software(study: str) -> float:
    """The metric of the model without crossbars."""
    results = json.loads((RESULTS / f"{study}.json").read_text(encoding="utf-8"))["points"]
    value: float = results[0]["accuracy"]["software"]
    return 100 * value if MODELS[study].percent else value


def shown(point: Point) -> str:
    """The metric with its interval."""
    return f"{point.mean:.1f} [{point.low:.1f}, {point.high:.1f}]"


def more(value: float, before: float) -> str:
    """By how much a value has grown, in percent."""
    growth = 100 * (value / before - 1)
    return f"+{growth:.0f} %" if growth >= 10 else f"+{growth:.2g} %"


def table(study: str) -> str:
    """Markdown table with a row for each time constant."""
    model, found = MODELS[study], points(study)
    plain = {point.tau: point for point in found if point.refresh is None}
    again = {point.tau: point for point in found if point.refresh is not None}
    first = next(iter(plain.values()))
    rows = [
        f"| tau | longest age / tau | {model.metric} | refresh every | {model.metric}, refreshed | time | energy "
        f"| writes of a cell per {model.unit} |",
        "|---" * 8 + "|",
    ]
    for tau in sorted({*plain, *again}, reverse=True):
        cells = [units.show(tau, "s"), f"{first.longest / tau:.2g}", shown(plain[tau]) if tau in plain else "-"]
        if point := again.get(tau):
            assert point.refresh is not None
            cells += [
                units.show(point.refresh, "s"), shown(point), more(point.latency, first.latency),
                more(point.energy, first.energy), f"{point.writes:,.0f}",
            ]  # fmt: skip
        else:
            cells += ["-"] * 5
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw(studies: list[str]) -> None:
    """Draw the metric against the time constant, one panel per model, as PNG and SVG."""
    mpl.rcParams["svg.hashsalt"] = "leaking"
    figure, axes = plt.subplots(1, len(studies), figsize=(5.2 * len(studies), 3.9), squeeze=False)
    for study, ax in zip(studies, axes[0], strict=True):
        panel(study, ax)
    figure.tight_layout()
    for suffix in ("png", "svg"):
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(HERE / f"leaking.{suffix}", dpi=150, metadata=metadata)
    plt.close(figure)


def panel(study: str, ax: Axes) -> None:
    """One model: two curves, the software model, the longest age and the time constant of silicon.

    Perplexities have no error bars: the same two windows are read at every point, and differ more than the points do.
    """
    model, found = MODELS[study], points(study)
    for label, refreshed in (("never refreshed", False), ("refreshed after tau / 4", True)):
        part = [point for point in found if (point.refresh is not None) == refreshed]
        ends = [[p.mean - p.low for p in part], [p.high - p.mean for p in part]]
        ax.errorbar([p.tau for p in part], [p.mean for p in part], ends if model.percent else None, marker="o",
                    markersize=4, capsize=2, label=label)  # fmt: skip
    ax.axhline(software(study), color="gray", linestyle="--", linewidth=1, label="software")
    longest = next(point.longest for point in found if point.refresh is None)
    ax.axvline(longest, color="black", linestyle=":", linewidth=1.2, label=f"longest age, {units.show(longest, 's')}")
    ax.axvline(SILICON, color="tab:green", linestyle="-.", linewidth=1, label="silicon, 5 ms")
    ax.set(xscale="log", xlabel="time constant tau of the charge (s)", ylabel=model.axis, title=model.title)
    if model.percent:
        ax.set(ylim=(0, 100))
    else:
        ax.set(yscale="log", ylim=(0.7 * software(study), None))
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)


def filled(page: str, name: str, content: str) -> str:
    """The page with another content between the marks of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", page, flags=re.DOTALL)


def write_page() -> None:
    """Write tables and figure from the stored results."""
    stored = [study for study in MODELS if (RESULTS / f"{study}.json").is_file()]
    draw(stored)
    file = HERE / "README.md"
    page = file.read_text(encoding="utf-8")
    for study in stored:
        page = filled(page, study, table(study))
    file.write_text(page, encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Run the studies that are named, or all, and write the page."""
    RESULTS.mkdir(exist_ok=True)
    named = [study for study in MODELS if study in arguments]
    if unknown := [name for name in arguments if name not in {"--page", *MODELS}]:
        sys.exit(f"{unknown[0]}: is not a study; take --page, {', '.join(MODELS)}")
    for study in [] if "--page" in arguments else named or list(MODELS):
        if study == "smollm2" and not DATA.is_dir():
            print(f"{DATA} is missing, so SmolLM2 is left out; run: {FETCH}", file=sys.stderr)
        else:
            compute(study)
    write_page()


if __name__ == "__main__":
    main(sys.argv[1:])
