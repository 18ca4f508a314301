"""Results as tables for a terminal, in the units of their metrics, with 95 % intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from ohmformer.report.view import MOST_ROWS, View, axis_name, metric_titles, more_rows, sigma, view
from ohmformer.study.results.part import level_words
from ohmformer.study.results.spec import Accuracy, Capture, MeasuredPoint, StudyResults
from ohmformer.study.results.trials import ChipYield
from ohmformer.tasks.metric_kinds import METRICS

ROW = 4
"""Most points that stand beside one another; more stand below one another."""


def study_tables(results: StudyResults) -> Group:
    """All points of a study: a table over the swept number, and one for points beside it."""
    seen = view(results)
    parts: list[Table | str] = []
    if seen.series:
        xs = sorted({x for series in seen.series for x, _ in series.points})
        parts += [_grid(results, seen, xs[:MOST_ROWS]), *more_rows(len(xs))]
    if seen.bars:
        parts += [_bars(results, seen), *more_rows(len(seen.bars))]
    return Group(*parts)


def _grid(results: StudyResults, seen: View, xs: Sequence[float]) -> Table:
    """Rows: values of x. Columns: series."""
    table = Table(title=results.study, caption=_caption(results), title_justify="left", caption_justify="left")
    scale = sigma(seen)
    table.add_column(axis_name(seen.x), justify="right")
    if scale is not None:
        table.add_column("γσ", justify="right")
    for series in seen.series:
        table.add_column(series.name, justify="right")
    columns = [dict(series.points) for series in seen.series]
    for x in xs:
        cells = [_entry_of(column[x]) if x in column else "" for column in columns]
        table.add_row(f"{x:g}", *([] if scale is None else [f"{x * scale:.3g}"]), *cells)
    return table


def _bars(results: StudyResults, seen: View) -> Table:
    """Points that stand for themselves: one row, or one column where they are many."""
    table = Table(title_justify="left", caption_justify="left")
    if not seen.series:
        table.title, table.caption = results.study, _caption(results)
    first = seen.bars[:MOST_ROWS]
    names, entries = [name for name, _ in first], [_entry_of(point) for _, point in first]
    if len(names) <= ROW:
        for name in names:
            table.add_column(name, justify="right", overflow="fold")
        table.add_row(*entries)
        return table
    table.add_column("")
    table.add_column(", ".join(metric_titles(results)), justify="right")
    for name, text in zip(names, entries, strict=True):
        table.add_row(name, text)
    return table


def _caption(results: StudyResults) -> str:
    return "\n".join(
        filter(None, (*trials_lines(results), software_line(results), digital_line(results), static_line(results)))
    )


def _entry_of(point: MeasuredPoint) -> str:
    """The entry of a point, with the digest of the code that computed it where that is not the present one."""
    kept = f" (code {point.old_code.code})" if point.old_code else ""
    return f"{entry(point.accuracy)}{kept}"


def entry(accuracy: Accuracy) -> str:
    """'85.3 [82.1, 88.5]' in the unit of the metric, and the recipe where one was chosen."""
    low, high = accuracy.ci95
    recipe = f" ({accuracy.chosen.words})" if accuracy.chosen else ""
    show = accuracy.shown.text
    return f"{show(accuracy.mean)} [{show(low)}, {show(high)}]{_share(accuracy.chip_yield)}{recipe}"


def _share(good: ChipYield | None) -> str:
    """', yield 90 [55, 100] %'; empty without a bound."""
    if good is None:
        return ""
    low, high = good.ci95
    return f", yield {100 * good.share:.0f} [{100 * low:.0f}, {100 * high:.0f}] %"


def trials_lines(results: StudyResults) -> list[str]:
    """What a good chip is, and whether intervals are as narrow as asked."""
    measured, lines = [point.accuracy for point in results.points], []
    for accuracy in measured:
        show, unit = accuracy.shown.text, accuracy.shown.unit
        if good := accuracy.chip_yield:
            bound = " ".join(filter(None, (show(good.bound), unit)))
            lines.append(f"yield: share of chips {good.side} {bound} [exact 95 % interval over chips]")
        if wanted := accuracy.narrowed:
            same = [each for each in measured if each.narrowed and each.narrowed.asked == wanted.asked]
            missed = sum(not each.narrowed.reached for each in same if each.narrowed)
            asked = " ".join(filter(None, (f"{accuracy.shown.factor * wanted.asked:g}", unit)))
            most = f"{wanted.most_chips} chips and {wanted.most_samples} samples"
            end = f"{missed} of {len(same)} points ended wider, at the most ({most})" if missed else "reached"
            lines.append(f"chips and samples were added until intervals are within ±{asked}: {end}")
    return list(dict.fromkeys(lines))


def software_line(results: StudyResults) -> str:
    """The metric of the model without crossbars, and how the rest was measured."""
    measured = [point.accuracy for point in results.points]
    software = sorted({_software_with_unit(accuracy) for accuracy in measured})
    chips = _span([len(accuracy.chips) for accuracy in measured])
    samples = _span([accuracy.samples for accuracy in measured])
    levels = ", ".join(sorted({level_words(accuracy.level, accuracy.kernels) for accuracy in measured}))
    how = f"{chips} {'chip' if chips == '1' else 'chips'}, {samples} samples, {levels}"
    if any(len(accuracy.chips) == 1 for accuracy in measured):
        how += "; one chip: intervals cover samples only"
    return f"software: {', '.join(software)}. Entries: {_metrics(measured)} [95 % interval]; {how}"


def _software_with_unit(accuracy: Accuracy) -> str:
    return " ".join(filter(None, (accuracy.shown.text(accuracy.software), accuracy.shown.unit)))


def _metrics(measured: Sequence[Accuracy]) -> str:
    """'top1 in percent', or 'perplexity, where lower is better'."""
    names = sorted({accuracy.metric for accuracy in measured})
    units = {METRICS[name].unit for name in names}
    worse = [name for name in names if METRICS[name].better == "lower"]
    return ", ".join(names) + (" in percent" if units == {"%"} else "") + (", where lower is better" if worse else "")


def digital_line(results: StudyResults) -> str:
    """The share of tokens of K and V that no cell held; empty where cells held all."""
    shares = sorted(
        {p.accuracy.digital_token_share for p in results.points if p.accuracy.digital_token_share is not None}
    )
    if not shares:
        return ""
    words = f"{shares[0]:.2%}" if len(shares) == 1 else f"{shares[0]:.2%} to {shares[-1]:.2%}"
    return f"digital tokens of K and V: {words.replace('%', ' %')}"


def static_line(results: StudyResults) -> str:
    """Write noise of static weights in the points of a sweep; empty where none is on crossbars."""
    weights = [point.write_noise.projection for point in results.points if not point.label]
    products = {noise.gamma_sigma for noise in weights if noise}
    sorted_products = sorted(product for product in products if product is not None)
    words = ", ".join(f"{product:.3g}" for product in sorted_products)
    return "; ".join([*([f"static weights: γσ {words}"] if words else []), *results.notes])


def capture_lines(results: StudyResults) -> list[str]:
    """Products on crossbars and digital products: one line for all points with the same products."""
    return list(dict.fromkeys(_capture_line(point.capture) for point in results.points))


def _capture_line(capture: Capture) -> str:
    on_crossbars = ", ".join(f"{count} {product}" for product, count in capture.crossbars.items()) or "nothing"
    counts = Counter(capture.digital).items()
    digital = ", ".join(f"{count} products of {name}" if count > 1 else name for name, count in counts) or "nothing"
    return f"Products on crossbars: {on_crossbars}. Digital: {digital}, beside softmax, normalization and activations."


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)}-{max(values)}"
