"""The tables and sentences of docs/rescue_details.md, computed from stored results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.curves import Curves
from common.pages import MISSING, NOTHING, shown
from common.small_files import Point, stored_points
from stored import ABLATION, CLIP, COMPARED, GAMMA, KV, METHODS

from ohmformer.report.table import entry
from ohmformer.report.view import clip_name, kv_name

NOT_ASKED = "-"


def study_block(found: Curves | None) -> str:
    """Accuracy of all methods of a study, and the paired gains between them."""
    if found is None:
        return NOTHING
    how = found.first.accuracy
    sizes = f"{len(how.chips)} chips, {how.samples} samples, level {how.level}"
    unit = f" {found.metric.unit}" if found.metric.unit else ""
    names = [METHODS[method] for method in found.found]
    lines = [
        f"Software: {found.metric.show(found.software)}{unit}. {found.metric.title.capitalize()}"
        f"{' in percent' if unit else ''} [95 % interval]; {sizes}.",
        "",
        f"| γ | γσ | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
        *(_row(found, gamma) for gamma in found.gammas),
        *_gains(found),
    ]
    if found.stored < found.asked:
        lines += ["", f"{found.stored} of {found.asked} points are measured; the others are {MISSING}."]
    return "\n".join(lines)


def _gap(found: Curves) -> str:
    """What stands where there is no point: in a study that is complete, none was asked for."""
    return MISSING if found.stored < found.asked else NOT_ASKED


def _row(found: Curves, gamma: float) -> str:
    cells = [entry(column[gamma].accuracy) if gamma in column else _gap(found) for column in found.found.values()]
    return f"| {gamma:g} | {found.strength(gamma):.2g} | {' | '.join(cells)} |"


def _gains(found: Curves) -> list[str]:
    """Between methods of which the study has points."""
    compared = [pair for pair in COMPARED if set(pair) <= set(found.found)]
    if not compared:
        return []
    lines = [
        "",
        "Paired gains (positive is better), same chips and samples:",
        "",
        f"| γ | {' | '.join(f'{METHODS[a]} → {METHODS[b]}' for a, b in compared)} |",
        f"|---|{'---|' * len(compared)}",
    ]
    for gamma in found.gammas:
        cells = [found.gain(reference, method, gamma) for reference, method in compared]
        if any(cells):
            lines.append(
                f"| {gamma:g} | {' | '.join(_gap(found) if cell is None else shown(cell) for cell in cells)} |"
            )
    return lines


def clipping_block(all_found: dict[str, Curves | None]) -> str:
    """Where the fixed clip gains, where it loses, and where that is open."""
    lines = ["| model and data | gains at γ = | no certain difference at | loses at |", "|---|---|---|---|"]
    for found in all_found.values():
        if found is None:
            continue
        gains = [gain for gamma in found.gammas if (gain := found.gain("none", "clip", gamma)) is not None]
        cells = [
            ", ".join(f"{gain.x:g}" for gain in gains if gain.verdict == verdict) or "-"
            for verdict in ("gains", "undecided", "loses")
        ]
        if gains:
            lines.append(f"| {found.title} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else NOTHING


def ablation_rows(folder: Path) -> list[tuple[str, float | None, Point]]:
    """(name, gamma or None, point) of what the ablation measured, in its order."""
    points = stored_points(ABLATION, folder) or []
    return [(ablation_name(point), point.set.get(GAMMA), point) for point in points]


def ablation_name(point: Point) -> str:
    """What a point of the ablation does, in words."""
    if point.label:
        return point.label
    kv: Any = point.set.get(KV)
    clip: Any = point.set.get(CLIP)
    if isinstance(kv, dict):
        return f"{kv_name(kv)}{f', then {clip_name(clip)}' if isinstance(clip, dict) else ''}"
    if isinstance(clip, dict) and clip["beta"] == 1.0:
        return f"stage I alone (α {clip['alpha']:g})"
    if isinstance(clip, dict) and clip["alpha"] == 0.0:
        return f"stage II alone (β {clip['beta']:g})"
    return clip_name(clip)


def ablation_block(folder: Path) -> str:
    """What each step does: one row for each, noise levels side by side."""
    rows = ablation_rows(folder)
    if not rows:
        return NOTHING
    steps = [(name, gamma, point) for name, gamma, point in rows if not point.label]
    gammas = sorted({float(gamma) for _, gamma, _ in steps if gamma is not None})
    lines = [f"| K and V | {' | '.join(f'γ = {gamma:g}' for gamma in gammas)} |", f"|---|{'---|' * len(gammas)}"]
    for name in dict.fromkeys(name for name, _, _ in steps):
        cells = {
            float(gamma): entry(point.accuracy) for other, gamma, point in steps if other == name and gamma is not None
        }
        lines.append(f"| {name} | {' | '.join(cells.get(gamma, MISSING) for gamma in gammas)} |")
    labeled = [(name, point) for name, _, point in rows if point.label]
    if labeled:
        lines += ["", "| no mitigation | accuracy |", "|---|---|"]
        lines += [f"| {name} | {entry(point.accuracy)} |" for name, point in labeled]
    return "\n".join(lines)
