"""The page as Markdown, as figures for print, and as what plotly.js draws."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from ohmformer.report.page.markdown_page import escaped, markdown_page
from ohmformer.report.page.plotly_figure import LONGEST, plotly_figure, short
from ohmformer.report.page.print_figure import save_charts
from ohmformer.report.page.study_page import study_page
from tests.cases import quick_first
from tests.report.page.documents import HOSTILE, both, cost, costs, record, wide


def test_markdown_has_every_table_and_no_markup_of_names() -> None:
    page = study_page(both(HOSTILE))
    text = markdown_page(page)
    prose = [line for line in text.splitlines() if not line.startswith(" " * 4)]  # indented lines are code
    assert "<script" not in "\n".join(prose).replace("\\<", "")
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    tables = [table for section in page.sections for table in (*section.tables, *section.folded)]
    shown = [chart.table for section in page.sections for chart in section.charts if chart.table not in section.tables]
    assert len(rows) == sum(len(table.rows) + 2 for table in [*tables, *shown])


def test_markdown_escapes_what_it_would_read() -> None:
    assert escaped("a|b*c_d\n# e") == "a\\|b\\*c\\_d \\# e"


@pytest.mark.parametrize("ending", quick_first(["svg", "pdf"], 1))
def test_every_chart_is_a_figure_for_print(ending: str, tmp_path: Path) -> None:
    page = study_page(both(HOSTILE))
    files = save_charts(page, tmp_path, ending)
    assert [file.stem for file in files] == [chart.name for chart in page.charts]
    for file in files:
        content = file.read_bytes()
        if ending == "svg":
            ElementTree.fromstring(content)
        else:
            assert content.startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.parametrize("document", [both(), costs(cost(), record=record()), wide(40)], ids=["both", "costs", "wide"])
def test_plotly_accepts_every_chart(document: object) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for chart in study_page(document).charts:  # type: ignore[arg-type]
        figure = plotly_figure(chart)
        for trace in figure["data"]:  # the page puts its own color in place of this word
            for place in (trace.get(name, {}) for name in ("line", "marker", "error_x", "error_y")):
                place.update({"color": "black"} if place.get("color") == "text" else {})
        graph_objects.Figure(figure)


def test_long_names_keep_their_beginning_and_end() -> None:
    assert short("a" * 40 + "the end").endswith("the end")
    assert len(short("a" * 400)) <= LONGEST
    assert short("short") == "short"


def test_names_that_are_alike_when_shortened_have_rows_of_their_own() -> None:
    names = [f"{'a' * 30}{number}{'b' * 30}" for number in range(3)]
    chart = study_page(costs(cost(), cost(2e-3), cost(3e-3))).charts[1]
    (trace, *_) = chart.traces
    alike = type(trace)(trace.name, "bar", (1.0, 2.0, 3.0), tuple(names))
    figure = plotly_figure(type(chart)(chart.name, "", "", chart.x, chart.y, (alike,), chart.table))
    assert len(set(figure["data"][0]["y"])) == 3
