"""Which points are best at once: the metric against latency, energy and lifetime, or energy against latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ohmformer import units
from ohmformer.report.cost_table import point_name
from ohmformer.report.page.accuracy import shown, with_interval
from ohmformer.report.page.content import Axis, Chart, Section, Table, Trace
from ohmformer.report.page.scales import lifetime_text, scale, scale_of_times, spread
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.spec import Accuracy, StudyCosts, StudyResults

FRONT = (
    "A point is on the front if no other point is better in one quantity and at least as good in the other. Points "
    "differ in all that the study sweeps, conditions such as noise included."
)


@dataclass(frozen=True)
class _Candidate:
    """A point with its cost, and its metric where it has one."""

    name: str
    cost: CostResult
    accuracy: Accuracy | None


@dataclass(frozen=True)
class _Measure:
    """A cost on the horizontal axis."""

    name: str
    words: str
    of: Callable[[CostResult], float | None]
    show: Callable[[float], str]
    unit: str
    less_is_better: bool = True


MEASURES = (
    _Measure("latency", "latency", lambda cost: cost.latency_s, lambda value: units.show(value, "s"), "s"),
    _Measure("energy", "energy", lambda cost: cost.energy_J, lambda value: units.show(value, "J"), "J"),
    _Measure("wear", "lifetime", lambda cost: cost.lifetime_s, lifetime_text, "years", less_is_better=False),
)


def trade_off_sections(document: StudyResults | StudyCosts) -> list[Section]:
    """Fronts of the points, where at least two differ in what they cost."""
    found = [
        _Candidate(point_name(each), each.cost, each.accuracy) for each in document.points if each.cost is not None
    ]
    if len(found) < 2:
        return []
    metrics = {each.accuracy.metric for each in found if each.accuracy}
    if len(metrics) > 1:
        return []
    charts = [_metric_chart(found, measure) for measure in MEASURES] if metrics else [_cost_chart(found)]
    drawn = tuple(chart for chart in charts if chart is not None)
    if drawn:
        return [Section("front", "Best trade-offs", text=(FRONT,), charts=drawn)]
    if not metrics:
        return []
    return [
        Section("front", "Best trade-offs", text=("All points cost the same, so there is no front to choose from.",))
    ]


def _metric_chart(found: Sequence[_Candidate], measure: _Measure) -> Chart | None:
    """The metric against a cost; None if no two points differ in it."""
    have = [
        (each, cost, each.accuracy) for each in found if (cost := measure.of(each.cost)) is not None and each.accuracy
    ]
    if len({cost for _, cost, _ in have}) < 2:
        return None
    metric = have[0][2].shown
    sign = -1.0 if metric.better == "lower" else 1.0
    best = front([((1 if measure.less_is_better else -1) * cost, -sign * acc.mean) for _, cost, acc in have])
    x, size = _axis(measure, [cost for _, cost, _ in have])
    values = [
        (each.name, cost / size, shown(acc, acc.mean), f"{metric.title} {with_interval(acc)}", measure.show(cost))
        for each, cost, acc in have
    ]
    title = f"{metric.title.capitalize()} against {measure.words}"
    y = Axis(f"{metric.title} ({metric.unit})" if metric.unit else metric.title)
    return _front_chart(f"front-{measure.name}", title, x, y, values, best, (metric.title, measure.words))


def _cost_chart(found: Sequence[_Candidate]) -> Chart | None:
    """Energy against latency; None if no two points differ in both."""
    latency, energy = MEASURES[0], MEASURES[1]
    pairs = [(each.cost.latency_s, each.cost.energy_J) for each in found]
    if any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return None
    (x, x_size), (y, y_size) = _axis(latency, [pair[0] for pair in pairs]), _axis(energy, [pair[1] for pair in pairs])
    values = [
        (each.name, s / x_size, j / y_size, f"energy {energy.show(j)}", latency.show(s))
        for each, (s, j) in zip(found, pairs, strict=True)
    ]
    return _front_chart("front", "Energy against latency", x, y, values, front(pairs), ("energy", "latency"))


def _axis(measure: _Measure, amounts: Sequence[float]) -> tuple[Axis, float]:
    size, unit = scale_of_times(amounts) if measure.unit == "years" else scale(amounts, measure.unit)
    return Axis(f"{measure.words} ({unit})", log=spread(amounts)), size


def front(costs: Sequence[tuple[float, float]]) -> set[int]:
    """Positions of the pairs that no other pair beats; of both numbers less is better."""
    best: list[int] = []
    for place in sorted(range(len(costs)), key=costs.__getitem__):
        if not best or costs[place][1] < costs[best[-1]][1] or costs[place] == costs[best[-1]]:
            best.append(place)
    return set(best)


def _front_chart(
    name: str,
    title: str,
    x: Axis,
    y: Axis,
    values: Sequence[tuple[str, float, float, str, str]],
    best: set[int],
    words: tuple[str, str],
) -> Chart:
    """Points on the front, joined, and all others.

    Args:
        values: for each point its name, x, y, and both in words.
        best: positions of those on the front.
        words: names of y and x.
    """
    on = sorted(best, key=lambda place: values[place][1])
    off = [place for place in range(len(values)) if place not in best]
    traces = []
    # what is drawn last lies on top
    for label, kind, places, color in (("other points", "points", off, 1), ("on the front", "line", on, 0)):
        if places:
            chosen = [values[place] for place in places]
            notes = tuple(f"{point}: {second}, {words[1]} {first}" for point, _, _, second, first in chosen)
            xs, ys = tuple(each[1] for each in chosen), tuple(each[2] for each in chosen)
            traces.append(Trace(label, "line" if kind == "line" else "points", xs, ys, notes=notes, color=color))
    rows = tuple(
        (
            values[place][0],
            values[place][4],
            values[place][3].removeprefix(f"{words[0]} "),
            "yes" if place in best else "no",
        )
        for place in [*on, *off]
    )
    table = Table(title, ("point", words[1], words[0], "on the front"), rows)
    names = ", ".join(f"“{values[place][0]}”" for place in on[:3]) + (f" and {len(on) - 3} more" if len(on) > 3 else "")
    summary = f"{len(on)} of {len(values)} points {'is' if len(on) == 1 else 'are'} on the front: {names}."
    return Chart(name, title, summary, x, y, tuple(traces), table)
