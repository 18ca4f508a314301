"""A progress bar, or a line about work that takes long, on standard error, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ohmformer.terminal.plain import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


WHOLE_RUN = 1e9
"""Seconds of the past that the time left is estimated from: all. Points may take longer than rich's default of 30 s."""


@dataclass(frozen=True)
class Bar:
    """Progress of a computation. `progress` and `task` are objects of rich; None if no bar is drawn."""

    show: bool
    progress: Progress | None = None
    task: TaskID | None = None

    def advance(self) -> None:
        """Count one more step as done."""
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task)

    def say(self, text: str) -> None:
        """Write a line on standard error, above the bar."""
        if self.show and self.progress is not None:
            self.progress.console.print(one_line(text), markup=False, highlight=False, emoji=False, soft_wrap=True)
        elif self.show:
            print(one_line(text), file=sys.stderr)


@contextmanager
def bar(what: str, total: int, done: int = 0, *, show: bool = True) -> Iterator[Bar]:
    """A bar on standard error that counts steps."""
    if not (show and _on_terminal()):
        yield Bar(show)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, speed_estimate_period=WHOLE_RUN) as progress:
        yield Bar(show, progress, progress.add_task(what, total=total, completed=done))


def note(text: str) -> None:
    """Write a line on standard error."""
    if _on_terminal():
        print(one_line(text), file=sys.stderr, flush=True)


def _on_terminal() -> bool:
    """True if standard error is a terminal."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
