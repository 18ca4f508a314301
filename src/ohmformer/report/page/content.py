"""What a page is made of: sections with sentences, tables and charts, each described once for all formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["line", "points", "limit", "bar", "span"]
"""How values are drawn: joined markers, markers, a dashed line, stacked bars, or bars that begin at `start`."""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it.

    Attributes:
        caption: what it shows.
        columns: titles.
        rows: cells as text.
        words: positions of the columns that hold words; all others are aligned as numbers. The first always does.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes:
        title: quantity with its unit.
        log: True for a logarithmic axis.
        limits: lowest and highest value; None to fit the values.
    """

    title: str
    log: bool = False
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Trace:
    """Values that share a name and a color.

    Attributes:
        name: name in the legend; empty to leave it out there.
        kind: how they are drawn.
        x: horizontal places; of bars their lengths.
        y: vertical places; of bars their names.
        low, high: ends of the error bars; empty for none.
        notes: what a pointer shows at each value; empty for the plain numbers.
        start: of spans, where they begin.
        color: position in the palette.
    """

    name: str
    kind: Kind
    x: tuple[float, ...]
    y: tuple[float | str, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    start: tuple[float, ...] = ()
    color: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart, with the same numbers as a table.

    Attributes:
        name: short name, for files and anchors.
        title: what it shows.
        summary: what one sees, in a sentence.
        x, y: the axes.
        traces: what is drawn.
        table: the same numbers.
    """

    name: str
    title: str
    summary: str
    x: Axis
    y: Axis
    traces: tuple[Trace, ...]
    table: Table

    @property
    def categories(self) -> list[str]:
        """Names on the vertical axis, from top to bottom; empty if it has numbers."""
        names = [str(value) for trace in self.traces for value in trace.y if isinstance(value, str)]
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: anchor.
        title: heading.
        text: sentences before charts and tables.
        charts: charts, each followed by its numbers.
        tables: tables in full view.
        folded: tables that open on demand.
        notes: sentences after them.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A page: question, answer, sections.

    Attributes:
        title: name of the study.
        question: what was asked, as pairs of a subject and words.
        answer: the answer in a sentence or two.
        figures: a few numbers that stand out, as pairs of what and how much.
        sections: all other parts.
        command: the command line that repeats the study; empty if it is not known.
    """

    title: str
    question: tuple[tuple[str, str], ...]
    answer: str
    figures: tuple[tuple[str, str], ...] = ()
    sections: tuple[Section, ...] = field(default_factory=tuple)
    command: str = ""

    @property
    def charts(self) -> list[Chart]:
        """All charts, in order."""
        return [chart for section in self.sections for chart in section.charts]
