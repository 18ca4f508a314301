"""Points that failed, as one line that ends a command after all other points, and a file with all of them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ohmformer.errors import BadInput, shown
from ohmformer.study.spec import Point, S, Study
from ohmformer.terminal.files import write_text
from ohmformer.terminal.memory import lacks_memory

ERRORS = "errors.txt"
"""Name of the file with all failures in the folder of a study."""

FULL = (
    "memory is full; lower simulation.batch or task.limit, or compute fewer points at a time (--workers), and run again"
)


class EndsAll(BadInput):
    """A failure that further points would share, such as a full disk, so that none is tried."""


def in_words(point: Point[S]) -> str:
    """The swept values of a point; 'the only point' if nothing is swept."""
    return ", ".join(f"{path} = {shown(value)}" for path, value in point.set.items()) or "the only point"


@dataclass(frozen=True)
class Failure:
    """A point that failed, in words, and the reason."""

    point: str
    error: BaseException

    def text(self) -> str:
        """The point and the reason, with the traceback unless it is a `BadInput`."""
        if isinstance(self.error, BadInput):
            return f"{self.point}: {self.error}\n"
        return f"{self.point}:\n{''.join(traceback.format_exception(self.error))}"

    def reason(self) -> str:
        """The reason as one line."""
        if lacks_memory(self.error):
            return FULL
        return str(self.error) if isinstance(self.error, BadInput) else f"{type(self.error).__name__}: {self.error}"


@contextmanager
def named_point(study: Study[S], point: Point[S]) -> Iterator[None]:
    """Add the file, and the point where there are several, to messages."""
    try:
        yield
    except BadInput as error:
        at = f" (at {in_words(point)})" if len(study.points) > 1 and point.set else ""
        raise BadInput(f"{study.where}: {error}{at}" if study.where else f"{error}{at}") from error


@contextmanager
def collected(failures: list[Failure], point: Point[S]) -> Iterator[None]:
    """Add the failure of a point to a list, so that other points go on, unless it ends all."""
    try:
        yield
    except EndsAll:
        raise
    except BadInput as error:
        failures.append(Failure(in_words(point), error))


def raise_failures(
    failures: Sequence[Failure], *, total: int, done: int, what: str, where: str, folder: Path
) -> NoReturn:
    """Raise the first failure as one line with the number of all; errors.txt has the others, and tracebacks.

    Args:
        failures: at least one.
        total: number of points of the study.
        done: number of points that did not fail.
        what: what these points are now, such as 'stored'.
        where: file of the study; empty if there is none.
        folder: of errors.txt.

    Raises:
        BadInput: in any case.
    """
    first, more = failures[0], ""
    surprising = any(not isinstance(failure.error, BadInput) for failure in failures)
    if surprising or (len(failures) > 1 and done):
        file = folder / ERRORS
        with suppress(BadInput):
            write_text(file, "\n".join(failure.text() for failure in failures))
            more = f"; details are in {file}"
    counts = f"{len(failures)} of {total} points failed ({done} of {total} points {what})"
    who = "the only point failed" if total == 1 else f"{counts}, first {first.point}"
    place = f"{where}: " if where else ""
    raise BadInput(f"{place}{who}: {first.reason()}{more}") from first.error
