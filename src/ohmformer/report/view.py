"""Chooses what to draw of a study: lines over one swept number, and single points beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ohmformer.study.results.spec import MeasuredPoint, StudyResults

GAMMA = ".cell.write_noise.gamma"

MOST_ROWS = 200
"""Rows of points that a table on a terminal has."""


@dataclass(frozen=True)
class Series:
    """Points that differ only in x."""

    name: str
    points: tuple[tuple[float, MeasuredPoint], ...]


@dataclass(frozen=True)
class View:
    """Points without a label as series over the path `x`; labeled ones, or all where nothing is swept, as bars."""

    x: str
    series: tuple[Series, ...]
    bars: tuple[tuple[str, MeasuredPoint], ...]


def more_rows(count: int, *, stored: bool = True) -> list[str]:
    """A line on the rows that a table on a terminal leaves out; nothing where it has all.

    Args:
        count: the number of rows that there are.
        stored: True if the folder of the study has all points; False if only the option `--json` writes them.
    """
    more = count - MOST_ROWS
    if more <= 0:
        return []
    rows = "1 more row is" if more == 1 else f"{more:,} more rows are"
    if not stored:
        return [f"{rows} not shown; --json FILE writes all points"]
    return [f"{rows} in results.json; ohmformer export FOLDER -o FILE.csv writes all points as one table"]


def metric_titles(results: StudyResults) -> list[str]:
    """Titles of the metrics of all points: mostly one, such as 'accuracy'."""
    return list(dict.fromkeys(point.accuracy.shown.title for point in results.points))


def view(results: StudyResults) -> View:
    """Choose x, the swept number with the most values, and name what remains."""
    plain = [point for point in results.points if not point.label]
    labeled = [point for point in results.points if point.label]
    x = _longest_axis(plain)
    if not x:
        return View("", (), (*_named(plain), *_named(labeled)))
    groups: dict[str, list[tuple[float, MeasuredPoint]]] = {}
    varied = _varied(plain) - {x}
    for point in plain:
        groups.setdefault(_name(point, varied), []).append((float(point.set[x]), point))
    series = tuple(Series(name, tuple(sorted(points, key=lambda entry: entry[0]))) for name, points in groups.items())
    return View(x, series, tuple(_named(labeled)))


def _longest_axis(points: list[MeasuredPoint]) -> str:
    """The path of numbers with the most values, two at least and in every point; the first of equals."""
    paths = dict.fromkeys(path for point in points for path in point.set)
    values = {path: [point.set.get(path) for point in points] for path in paths}
    sizes = {path: len(set(column)) for path, column in values.items() if all(map(_is_number, column))}
    longest = max(sizes, key=lambda path: sizes[path], default="")
    return longest if sizes.get(longest, 0) > 1 else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _varied(points: list[MeasuredPoint]) -> set[str]:
    """Paths that are not the same in all points."""
    paths = {path for point in points for path in point.set}
    return {path for path in paths if len({repr(point.set.get(path)) for point in points}) > 1}


def _named(points: list[MeasuredPoint]) -> Iterator[tuple[str, MeasuredPoint]]:
    """Each point with its label, and with what sets it apart from others of that label."""
    twins: dict[str, list[MeasuredPoint]] = {}
    for point in points:
        twins.setdefault(point.label, []).append(point)
    varied = {label: _varied(same) for label, same in twins.items()}
    for point in points:
        name = _name(point, varied[point.label])
        parts = (point.label, name if len(twins[point.label]) > 1 else "")
        yield ": ".join(filter(None, parts)) or name, point


def _name(point: MeasuredPoint, paths: set[str]) -> str:
    return (
        ", ".join(setting(path, value) for path, value in point.set.items() if path in paths)
        or point.accuracy.shown.title
    )


def setting(path: str, value: Any) -> str:
    """One swept value in words."""
    if path == "mitigation.clip":
        return clip_name(value)
    if path == "mitigation.kv":
        return kv_name(value)
    if path == "mitigation.weights":
        return weights_name(value)
    return f"{axis_name(path)} = {table_words(value) if isinstance(value, dict) else value}"


def table_words(table: dict[str, Any]) -> str:
    """A swept table in words: its kind, if it has one, and what else it says; 'none' for an empty one."""
    kind = [str(table["kind"]).replace("_", " ")] if "kind" in table else []
    return ", ".join([*kind, *(f"{name} {value}" for name, value in table.items() if name != "kind")]) or "none"


def clip_name(clip: Any) -> str:
    """'none', 'calibrated' or a table of alpha and beta, in words."""
    if isinstance(clip, dict):
        return f"ClipFormer ({clip.get('alpha', 2.0):g}, {clip.get('beta', 0.25):g})"
    return {"none": "no mitigation", "calibrated": "ClipFormer, calibrated"}.get(clip, str(clip))


def _digital(tokens: int, which: str) -> str:
    """Example: "first 4 tokens digital"."""
    return f"{which} {tokens} tokens digital" if tokens > 1 else f"{which} token digital"


def _limit(name: str, value: Any) -> str:
    """What a budget allows, in words."""
    if name in ("first_tokens", "last_tokens") and value:
        return _digital(value, name.removesuffix("_tokens"))
    return f"{name} {value}"


def kv_name(kv: Any) -> str:
    """'none', 'auto', a budget or a conditioning, in words."""
    if not isinstance(kv, dict):
        return {"none": "not conditioned", "auto": "conditioned, auto"}.get(kv, str(kv))
    if "auto" in kv:
        limits = [_limit(name, value) for name, value in kv.items() if name not in ("auto", "residual")]
        return ", ".join(["conditioned, auto", *limits])
    words = [("mean removed" if kv.get("mean") else ""), kv.get("basis", "own")]
    words += [f"range per {kv['scale']}" if kv.get("scale") else "", f"range {kv['range']:g}" if "range" in kv else ""]
    words += [
        f"radix {kv['radix']}" if kv.get("radix") else "",
        "unbiased" if kv.get("unbiased") else "",
        f"{kv['redundancy']} copies" if (kv.get("redundancy") or 1) > 1 else "",
        "residual writing" if kv.get("residual") is not None else "",
        *(_digital(kv[f"{which}_tokens"], which) for which in ("first", "last") if kv.get(f"{which}_tokens")),
    ]
    return ", ".join(word for word in words if word and word != "own") or "not conditioned"


def weights_name(weights: Any) -> str:
    """'none', 'auto' or a mitigation of static weights, in words."""
    if not isinstance(weights, dict):
        return {"none": "weights as they are", "auto": "weights, auto"}.get(weights, str(weights))
    switches = {"rotate": "rotated", "unbiased": "unbiased", "residual": "residual"}
    words = [word for name, word in switches.items() if weights.get(name) not in (None, False)]
    words += ["with feedback"] if (weights.get("residual") or {}).get("feedback") else []
    numbers = {"scaling": "scaling", "range": "range", "percentile": "percentile", "radix": "radix"}
    words += [f"{word} {weights[name]:g}" for name, word in numbers.items() if weights.get(name) is not None]
    words += [f"range per {weights['scale']}"] if weights.get("scale") else []
    words += [f"{weights['redundancy']} copies"] if (weights.get("redundancy") or 1) > 1 else []
    return f"weights {', '.join(words)}" if words else "weights as they are"


def axis_name(path: str) -> str:
    """A path in words, where there are shorter ones."""
    role = path.removeprefix("hardware.").removesuffix(GAMMA).removesuffix(".array")
    if path.endswith(GAMMA):
        return "write noise γ" if role == "attention" else f"write noise γ of {role}"
    return path.removeprefix("hardware.")


def sigma(view: View) -> float | None:
    """The sigma that turns x into γσ, where x is the gamma of cells that all have the same one."""
    if not view.x.endswith(GAMMA):
        return None
    role = "projection" if ".projection." in view.x else "value" if ".value." in view.x else "key"
    cells = [point.write_noise.by_role[role] for series in view.series for _, point in series.points]
    sigmas = {noise.sigma if noise else None for noise in cells}
    return sigmas.pop() if len(sigmas) == 1 else None
