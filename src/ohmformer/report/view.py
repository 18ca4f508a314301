"""What to draw of a results document: lines over one swept number, and single points beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ohmformer.tasks.metric_kinds import METRICS, Metric

Point = dict[str, Any]
Document = dict[str, Any]

GAMMA = ".cell.write_noise.gamma"


@dataclass(frozen=True)
class Series:
    """Points that differ only in x."""

    name: str
    points: tuple[tuple[float, Point], ...]


@dataclass(frozen=True)
class View:
    """Points without a label as series over the path `x`; labelled ones, or all where nothing is swept, as bars."""

    x: str
    series: tuple[Series, ...]
    bars: tuple[tuple[str, Point], ...]


def metric_of(point: Point) -> Metric:
    """How the metric of a point is shown."""
    return METRICS[point["accuracy"]["metric"]]


def metric_titles(document: Document) -> list[str]:
    """What the metrics of a document are called: 'accuracy', mostly."""
    return list(dict.fromkeys(metric_of(point).title for point in document["points"]))


def view(document: Document) -> View:
    """Choose x (the swept number with the most values) and name what remains."""
    plain = [point for point in document["points"] if not point.get("label")]
    labelled = [point for point in document["points"] if point.get("label")]
    x = _longest_axis(plain)
    if not x:
        return View("", (), tuple(_named(plain)) + tuple(_named(labelled)))
    groups: dict[str, list[tuple[float, Point]]] = {}
    varied = _varied(plain) - {x}
    for point in plain:
        groups.setdefault(_name(point, varied), []).append((float(point["set"][x]), point))
    series = tuple(Series(name, tuple(sorted(points, key=lambda entry: entry[0]))) for name, points in groups.items())
    return View(x, series, tuple(_named(labelled)))


def _longest_axis(points: list[Point]) -> str:
    """The path of numbers with the most values, two at least and in every point; the first of equals."""
    paths = dict.fromkeys(path for point in points for path in point["set"])
    values = {path: [point["set"].get(path) for point in points] for path in paths}
    sizes = {path: len(set(found)) for path, found in values.items() if all(map(_is_number, found))}
    longest = max(sizes, key=lambda path: sizes[path], default="")
    return longest if sizes.get(longest, 0) > 1 else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _varied(points: list[Point]) -> set[str]:
    """Paths that are not the same in all points."""
    paths = {path for point in points for path in point["set"]}
    return {path for path in paths if len({repr(point["set"].get(path)) for point in points}) > 1}


def _named(points: list[Point]) -> Iterator[tuple[str, Point]]:
    """Each point with its label, and with what sets it apart from others of that label."""
    twins: dict[str, list[Point]] = {}
    for point in points:
        twins.setdefault(point.get("label", ""), []).append(point)
    varied = {label: _varied(own) for label, own in twins.items()}
    for point in points:
        label = point.get("label", "")
        name = _name(point, varied[label])
        yield ": ".join(part for part in (label, name if len(twins[label]) > 1 else "") if part) or name, point


def _name(point: Point, paths: set[str]) -> str:
    return (
        ", ".join(setting(path, value) for path, value in point["set"].items() if path in paths)
        or metric_of(point).title
    )


def setting(path: str, value: Any) -> str:
    """One swept value in words."""
    if path == "mitigation.clip":
        return clip_name(value)
    if path == "mitigation.kv":
        return kv_name(value)
    return f"{axis_name(path)} = {value}"


def clip_name(clip: Any) -> str:
    """'none', 'calibrated' or a table of alpha and beta, in words."""
    if isinstance(clip, dict):
        return f"ClipFormer ({clip.get('alpha', 2.0):g}, {clip.get('beta', 0.25):g})"
    return {"none": "no mitigation", "calibrated": "ClipFormer, calibrated"}.get(clip, str(clip))


def kv_name(kv: Any) -> str:
    """'none', 'auto' or a conditioning, in words."""
    if not isinstance(kv, dict):
        return {"none": "as they come", "auto": "conditioned, auto"}.get(kv, str(kv))
    words = [("mean removed" if kv.get("mean") else ""), kv.get("basis", "own")]
    words += [f"range per {kv['scale']}" if kv.get("scale") else "", f"range {kv['range']:g}" if "range" in kv else ""]
    words += [
        f"slice base {kv['slice_base']}" if kv.get("slice_base") else "",
        "unbiased" if kv.get("unbiased") else "",
        f"{kv['copies']} copies" if (kv.get("copies") or 1) > 1 else "",
    ]
    return ", ".join(word for word in words if word and word != "own") or "as they come"


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
    noises = [point["write_noise"][role] or {} for series in view.series for _, point in series.points]
    found = {noise.get("sigma") for noise in noises}
    return found.pop() if len(found) == 1 else None
