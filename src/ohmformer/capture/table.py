"""What of a model runs where: every product, with its engine, or the reason why it stays digital."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

BY_RULE, BY_HARDWARE = "by rule", "by hardware"
ACROSS_SAMPLES = "compares samples with one another"
COMPUTED = "its weights are computed from other parameters"
CONSTANT = "one of its factors is a constant"
NOT_CALLED = "its forward is not called on the sample"
ELSEWHERE = "runs in another thread, where its products are not seen"
TITLES = ("module", "product", "runs on", "count")
WIDTH = 120
"""Columns of the table as text."""
ASKED_FOR = (BY_RULE, BY_HARDWARE)
"""Reasons to stay digital that somebody chose."""


@dataclass(frozen=True)
class Captured:
    """One product of a model.

    Attributes:
        module: its name.
        product: what multiplies what, such as "x W" or "Q K".
        engine: the role that holds the written operand (`projection`, `attention.key` ...), or "digital".
        reason: why it stays digital; empty on an engine.
    """

    module: str
    product: str
    engine: str
    reason: str = ""


@dataclass(frozen=True)
class CaptureTable:
    """All products of a model."""

    rows: tuple[Captured, ...]

    @property
    def digital(self) -> tuple[Captured, ...]:
        """The products that stayed digital."""
        return tuple(row for row in self.rows if row.engine == "digital")

    @property
    def left_over(self) -> tuple[Captured, ...]:
        """The products that stayed digital although neither a rule nor the hardware says so."""
        return tuple(row for row in self.digital if row.reason not in ASKED_FOR)

    def summary(self) -> dict[str, Any]:
        """Plain values: how many products of a kind are on crossbars, and which are digital, with the reason."""
        held = Counter(row.product for row in self.rows if row.engine != "digital")
        return {"crossbars": dict(held), "digital": [f"{row.module} ({row.reason})" for row in self.digital]}

    def grouped(self) -> list[tuple[Captured, int]]:
        """Rows that differ only in numbers in their names, as one row with a count."""
        counts = Counter(
            Captured(re.sub(r"\d+", "*", row.module), row.product, row.engine, row.reason) for row in self.rows
        )
        return list(counts.items())

    def to_dict(self) -> list[dict[str, str]]:
        """Every product as plain values, such as pandas.DataFrame takes: module, product, engine, reason."""
        return [asdict(row) for row in self.rows]

    def print(self) -> None:
        """Write the table to standard error."""
        from rich.console import Console

        Console(stderr=True).print(self._table())

    def __str__(self) -> str:
        """The table as text."""
        from rich.console import Console

        console = Console(width=WIDTH, color_system=None)
        with console.capture() as captured:
            console.print(self._table())
        return captured.get().rstrip("\n")

    def _repr_html_(self) -> str:
        """The table as notebooks show it."""
        from html import escape

        head = "".join(f"<th>{title}</th>" for title in TITLES)
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in self._lines()]
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def _lines(self) -> list[tuple[str, str, str, str]]:
        """Cells of the rows as people read them."""
        where = {row: f"digital: {row.reason}" if row.reason else row.engine for row, _ in self.grouped()}
        return [(row.module, row.product, where[row], str(count)) for row, count in self.grouped()]

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(*TITLES, title="What runs where")
        for line in self._lines():
            table.add_row(*map(Text, line))
        return table
