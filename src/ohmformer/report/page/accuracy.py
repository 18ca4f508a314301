"""The accuracy half of a page: the metric over what was swept, and what stands beside it."""

from __future__ import annotations

from ohmformer.report.candidates.candidate_table import comparisons
from ohmformer.report.caveats import TRUSTED, caveats
from ohmformer.report.page.content import Axis, Chart, Section, Table, Trace
from ohmformer.report.table import capture_lines, digital_line, entry, software_line, static_line
from ohmformer.report.verdict import findings
from ohmformer.report.view import Series, View, axis_name, sigma, view
from ohmformer.study.results.spec import Accuracy, MeasuredPoint, StudyResults

MOST_COLUMNS = 6
"""Most series that stand beside one another in a table, and most lines of one chart."""

MOST_LINES = 7
"""Most series that one chart tells apart by color."""

WIDE = 5.0
"""A perplexity that grows by more than this factor is drawn on a logarithmic axis."""


def accuracy_section(results: StudyResults) -> Section:
    """The metric of every point, as a chart and a table."""
    seen = view(results)
    charts = [*_line_charts(results, seen), *([_bar_chart(results, seen)] if seen.bars else [])]
    tables = [*([_grid(results, seen)] if seen.series else []), *([_list(results, seen)] if seen.bars else [])]
    lines = [software_line(results), digital_line(results), static_line(results), *capture_lines(results)]
    return Section(
        "accuracy",
        metric_title(results).capitalize(),
        text=findings(results),
        charts=tuple(charts),
        tables=tuple(tables),
        notes=tuple(_sentence(line) for line in (*lines, *caveats(results)) if line),
    )


def metric_title(results: StudyResults) -> str:
    """The metric in words, such as 'accuracy'."""
    return " and ".join(dict.fromkeys(point.accuracy.shown.title for point in results.points))


def shown(accuracy: Accuracy, value: float) -> float:
    """A value of the metric as it is displayed."""
    return accuracy.shown.factor * value


def with_interval(accuracy: Accuracy) -> str:
    """'85.3 % [82.1, 88.5]'."""
    text, unit = accuracy.shown.text, f" {accuracy.shown.unit}" if accuracy.shown.unit else ""
    return f"{text(accuracy.mean)}{unit} [{text(accuracy.ci95[0])}, {text(accuracy.ci95[1])}]"


def metric_axis(results: StudyResults) -> Axis:
    """The axis of the metric."""
    metrics = dict.fromkeys(point.accuracy.shown for point in results.points)
    title = ", ".join(f"{each.title} ({each.unit})" if each.unit else each.title for each in metrics)
    limits = {each.limits for each in metrics}
    means = [shown(point.accuracy, point.accuracy.mean) for point in results.points]
    least = min(shown(point.accuracy, point.accuracy.software) for point in results.points)
    wide = all(each.better == "lower" for each in metrics) and least > 0 and max(means) > WIDE * least
    return Axis(title, log=wide, limits=None if wide or len(limits) != 1 else limits.pop())


def _sentence(line: str) -> str:
    line = line[:1].upper() + line[1:]
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _line_charts(results: StudyResults, seen: View) -> list[Chart]:
    """The series over the swept number, as many in a chart as colors tell apart."""
    parts = [seen.series[first : first + MOST_LINES] for first in range(0, len(seen.series), MOST_LINES)]
    return [_line_chart(results, seen, part, number if len(parts) > 1 else 0) for number, part in enumerate(parts, 1)]


def _line_chart(results: StudyResults, seen: View, series: tuple[Series, ...], part: int) -> Chart:
    axis = metric_axis(results)
    traces = [_software(seen, series), *(_line(each, number) for number, each in enumerate(series))]
    where = axis_name(seen.x)
    title = f"{metric_title(results).capitalize()} over {where}{f', part {part}' if part else ''}"
    return Chart(
        f"accuracy{f'-{part}' if part else ''}",
        title,
        " ".join(_course(each, where) for each in series[:4]),
        Axis(where),
        axis,
        tuple(traces),
        _long(f"{title}: mean and 95 % interval", where, series),
    )


def _course(series: Series, where: str) -> str:
    (first, begin), (last, end) = series.points[0], series.points[-1]
    show = begin.accuracy.shown.text
    return f"{series.name}: {show(begin.accuracy.mean)} at {where} = {first:g}, {show(end.accuracy.mean)} at {last:g}."


def _line(series: Series, color: int) -> Trace:
    means, lows, highs, notes = [], [], [], []
    for x, point in series.points:
        accuracy = point.accuracy
        means.append(shown(accuracy, accuracy.mean))
        lows.append(shown(accuracy, accuracy.ci95[0]))
        highs.append(shown(accuracy, accuracy.ci95[1]))
        notes.append(f"{series.name}, {x:g}: {with_interval(accuracy)}")
    xs = tuple(x for x, _ in series.points)
    return Trace(series.name, "line", xs, tuple(means), tuple(lows), tuple(highs), tuple(notes), color=color)


def _software(seen: View, series: tuple[Series, ...]) -> Trace:
    """The level of the model without crossbars, at every x."""
    levels = {x: shown(point.accuracy, point.accuracy.software) for each in series for x, point in each.points}
    xs = sorted(levels)
    notes = tuple(f"software: {levels[x]:.4g}" for x in xs)
    return Trace("software", "limit", tuple(xs), tuple(levels[x] for x in xs), notes=notes)


def _bar_chart(results: StudyResults, seen: View) -> Chart:
    """Points that stand for themselves, with their intervals."""
    bars = seen.bars
    axis = metric_axis(results)
    accuracies = [point.accuracy for _, point in bars]
    trace = Trace(
        "mean and 95 % interval",
        "points",
        tuple(shown(each, each.mean) for each in accuracies),
        tuple(name for name, _ in bars),
        tuple(shown(each, each.ci95[0]) for each in accuracies),
        tuple(shown(each, each.ci95[1]) for each in accuracies),
        tuple(f"{name}: {with_interval(point.accuracy)}" for name, point in bars),
    )
    software = Trace(
        "software",
        "limit",
        tuple(shown(each, each.software) for each in accuracies),
        trace.y,
        notes=tuple(f"software: {each.shown.text(each.software)}" for each in accuracies),
    )
    first = f"{bars[0][0]}: {with_interval(bars[0][1].accuracy)}."
    title = f"{metric_title(results).capitalize()} of {'single points' if seen.series else 'each point'}"
    return Chart("points", title, first, axis, Axis(""), (software, trace), _list(results, seen))


def _grid(results: StudyResults, seen: View) -> Table:
    """Rows: values of x. Columns: series, or a column of names where they are many."""
    where = axis_name(seen.x)
    caption = f"{metric_title(results).capitalize()} {_unit(results)}with 95 % interval over {where}"
    if len(seen.series) > MOST_COLUMNS:
        return _long(caption, where, seen.series)
    scale = sigma(seen)
    columns = [dict(series.points) for series in seen.series]
    rows = []
    for x in sorted({x for column in columns for x in column}):
        cells = [entry(column[x].accuracy) if x in column else "" for column in columns]
        rows.append((f"{x:g}", *([] if scale is None else [f"{x * scale:.3g}"]), *cells))
    titles = (where, *([] if scale is None else ["γσ"]), *(series.name for series in seen.series))
    note = (
        f"; values above γσ = {TRUSTED:g} are extrapolated" if scale and rows and float(rows[-1][1]) > TRUSTED else ""
    )
    return Table(caption + note, titles, tuple(rows))


def _long(caption: str, where: str, series: tuple[Series, ...]) -> Table:
    """One row for each point of series."""
    rows = [(each.name, f"{x:g}", entry(point.accuracy)) for each in series for x, point in each.points]
    return Table(caption, ("series", where, "mean [95 % interval]"), tuple(rows))


def _list(results: StudyResults, seen: View) -> Table:
    """Points that stand for themselves: one row for each."""
    rows = tuple(
        (name, entry(point.accuracy), point.accuracy.shown.text(point.accuracy.software)) for name, point in seen.bars
    )
    caption = f"{metric_title(results).capitalize()} {_unit(results)}with 95 % interval"
    return Table(caption, ("point", "mean [95 % interval]", "software"), rows)


def _unit(results: StudyResults) -> str:
    units = {point.accuracy.shown.unit for point in results.points}
    worse = all(point.accuracy.shown.better == "lower" for point in results.points)
    words = ("in percent " if units == {"%"} else "") + ("(lower is better) " if worse else "")
    return words


def candidate_note(results: StudyResults) -> str:
    """Where the candidates of a budget are found; empty without a budget."""
    if not comparisons(results):
        return ""
    return "Candidates for K and V were compared within a budget; their figure and table stand beside the results."


def point_words(point: MeasuredPoint) -> str:
    """The metric of a point in words, with its interval."""
    return f"{point.accuracy.shown.title} {with_interval(point.accuracy)}"
