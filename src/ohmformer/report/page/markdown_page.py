"""A page as Markdown: the same words and tables, with charts as tables of their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ohmformer.report.page.content import Chart, Page, Section, Table
from ohmformer.terminal.files import MARKDOWN
from ohmformer.terminal.plain import clean

MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")
"""Characters that Markdown may read as more than themselves, HTML included."""


def markdown_page(page: Page) -> str:
    """A page as Markdown."""
    return MARKDOWN.decode() + "\n".join(_lines(page)).rstrip() + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return MARKUP.sub(r"\\\1", " ".join(clean(text).split()))


def _lines(page: Page) -> Iterator[str]:
    yield from (f"# {escaped(page.title)}", "")
    for subject, words in page.question:
        yield f"- {escaped(subject)}: {escaped(words)}"
    yield from ("", "## Answer", "", escaped(page.answer), "")
    for what, amount in page.figures:
        yield f"- {escaped(what)}: {escaped(amount)}"
    yield ""
    for section in page.sections:
        yield from _section(section, page.command if section.name == "repeat" else "")


def _section(section: Section, command: str) -> Iterator[str]:
    yield from (f"## {escaped(section.title)}", "")
    for sentence in section.text:
        yield from (escaped(sentence), "")
    if command:
        yield from ("The command that gives the same results:", "", f"    {' '.join(clean(command).split())}", "")
    for chart in section.charts:
        yield from _chart(chart, shown=chart.table in section.tables)
    for table in (*section.tables, *section.folded):
        yield from _table(table)
    yield from (f"- {escaped(sentence)}" for sentence in section.notes)
    if section.notes:
        yield ""


def _chart(chart: Chart, *, shown: bool) -> Iterator[str]:
    """What a chart shows in words, and its numbers, unless the section shows them anyway."""
    yield from (f"### {escaped(chart.title)}", "", escaped(chart.summary), "")
    if not shown:
        yield from _table(chart.table)


def _table(table: Table) -> Iterator[str]:
    marks = ["---" if not place or place in table.words else "---:" for place in range(len(table.columns))]
    yield from (escaped(table.caption), "")
    for cells in (table.columns, marks, *table.rows):
        yield f"| {' | '.join(cells if cells is marks else map(escaped, cells))} |"
    yield ""
