"""`CaptureTable`: every product of a model with its engine, or with the reason why it stays digital."""

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
ELSEWHERE = "runs in another thread, where its products are not recorded"
TITLES = ("module", "product", "runs on", "count")
WIDTH = 120
"""Columns of the table as text."""
ASKED_FOR = (BY_RULE, BY_HARDWARE)
"""Reasons that a user or the hardware chose, so they need no warning."""


@dataclass(frozen=True)
class Captured:
    """One product of a model.

    Attributes:
        module: name of the module that computes it.
        product: its factors, such as "x W" or "Q K".
        engine: role of the engine that stores an operand of it (`projection`, `attention.key` ...), or "digital".
        reason: the reason why it stays digital; empty on an engine.
    """

    module: str
    product: str
    engine: str
    reason: str = ""


@dataclass(frozen=True)
class CaptureTable:
    """All products of a model; it prints as a table, also in notebooks."""

    rows: tuple[Captured, ...]

    @property
    def digital(self) -> tuple[Captured, ...]:
        """The products that stayed digital."""
        return tuple(row for row in self.rows if row.engine == "digital")

    @property
    def left_over(self) -> tuple[Captured, ...]:
        """The products that stay digital although neither a rule nor the hardware requires it."""
        return tuple(row for row in self.digital if row.reason not in ASKED_FOR)

    def summary(self) -> dict[str, Any]:
        """The number of products on crossbars by kind, and the digital ones with their reasons, as plain values."""
        on_crossbars = Counter(row.product for row in self.rows if row.engine != "digital")
        return {"crossbars": dict(on_crossbars), "digital": [f"{row.module} ({row.reason})" for row in self.digital]}

    def grouped(self) -> list[tuple[Captured, int]]:
        """(row, count): rows whose module names differ only in numbers are one row, with * for the numbers."""
        counts = Counter(
            Captured(re.sub(r"\d+", "*", row.module), row.product, row.engine, row.reason) for row in self.rows
        )
        return list(counts.items())

    def to_dict(self) -> list[dict[str, str]]:
        """One dictionary per product (module, product, engine, reason), for example for `pandas.DataFrame`."""
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
        """The table in HTML, for notebooks."""
        from html import escape

        head = "".join(f"<th>{title}</th>" for title in TITLES)
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in self._lines()]
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def _lines(self) -> list[tuple[str, str, str, str]]:
        """The cells of the printed table, one tuple per row."""
        runs_on = {row: f"digital: {row.reason}" if row.reason else row.engine for row, _ in self.grouped()}
        return [(row.module, row.product, runs_on[row], str(count)) for row, count in self.grouped()]

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(*TITLES, title="What runs where")
        for line in self._lines():
            table.add_row(*map(Text, line))
        return table
