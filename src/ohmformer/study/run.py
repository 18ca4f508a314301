"""Running a study: what is stored is not computed again, and what was computed is never lost."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ohmformer.errors import BadInput
from ohmformer.study.evaluate import evaluate_point, identify
from ohmformer.study.executors import completed, open_executor
from ohmformer.study.keys import point_key
from ohmformer.study.spec import Point, Settings, Study
from ohmformer.study.store import Result, Store

Evaluate = Callable[[Settings], Result]


class Stopped(Exception):
    """Ctrl-C: the message says how many points are stored."""


def run_study(
    study: Study,
    out: Path,
    *,
    workers: int = 1,
    fresh: bool = False,
    progress: bool = True,
    evaluate: Evaluate = evaluate_point,
) -> list[Result]:
    """The results of all points of a study, in their order; only what `out` does not hold yet is computed.

    Args:
        study: its points are checked already.
        out: a folder, made if missing, that keeps results.sqlite.
        workers: processes; 1 runs everything in this one. The results are the same to the last bit.
        fresh: forget what is stored of this study first.
        progress: show a bar on standard error where that is a terminal.
        evaluate: settings -> result; a function of a module if there are several workers.

    Raises:
        BadInput: model or data cannot be used (nothing is written), or a point fails (the others are stored first).
        Stopped: Ctrl-C.
    """
    if workers < 1:
        raise BadInput(f"workers = {workers}: must be 1 or more")
    keys = study_keys(study)
    todo = dict(zip(keys, study.points, strict=True))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{out}: cannot be made ({error.strerror}); choose another folder with --out") from error
    with Store(out / "results.sqlite") as store:
        if fresh:
            store.forget(keys)
        for key in store.get(todo):
            del todo[key]
        if todo:
            _Computation(store, len(set(keys)), todo).run(evaluate, workers, progress)
        found = store.get(keys)
    return [found[key] for key in keys]


def study_keys(study: Study) -> list[str]:
    """The key of every point, in order. Loads models and data."""
    return [point_key(point.settings, identify(point.settings)) for point in study.points]


class _Computation:
    """The points that are missing, on their way into the store."""

    def __init__(self, store: Store, total: int, todo: dict[str, Point]) -> None:
        self.store, self.total, self.todo = store, total, todo
        self.stored = total - len(todo)
        self.failed: list[tuple[Point, BaseException]] = []

    def run(self, evaluate: Evaluate, workers: int, progress: bool) -> None:
        """Evaluate all of them and store each as it comes; then report what failed."""
        try:
            self._run(evaluate, min(workers, len(self.todo)), progress)
        except KeyboardInterrupt:
            raise Stopped(f"stopped: {self._count()}; run again to go on") from None
        except BrokenExecutor as error:
            why = f"a worker process died, perhaps for lack of memory ({self._count()})"
            raise BadInput(f"{why}; run again to go on, with fewer --workers") from error
        if self.failed:
            self._report()

    def _run(self, evaluate: Evaluate, workers: int, progress: bool) -> None:
        jobs = {key: point.settings for key, point in self.todo.items()}
        window = 1 if workers == 1 else workers + 1
        with _bar(self.total, self.stored, progress) as advance, open_executor(workers) as executor:
            for key, future in completed(executor, evaluate, jobs, window=window):
                error = future.exception()
                if isinstance(error, BrokenExecutor):
                    raise error
                if error is None:
                    self.store.put(key, future.result())
                    self.stored += 1
                else:
                    self.failed.append((self.todo[key], error))
                advance()

    def _count(self) -> str:
        return f"{self.stored} of {self.total} points stored"

    def _report(self) -> None:
        """Raise the first failure as one line; tracebacks of what is no bad input go to a file."""
        point, error = self.failed[0]
        surprises = [failure for _, failure in self.failed if not isinstance(failure, BadInput)]
        more = ""
        if surprises:
            file = self.store.file.with_name("errors.txt")
            file.write_text("\n".join("".join(traceback.format_exception(failure)) for failure in surprises))
            more = f"; details are in {file}"
        what = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        values = ", ".join(f"{path} = {value}" for path, value in point.set.items()) or "the only point"
        counts = f"{len(self.failed)} of {self.total} points failed ({self._count()})"
        raise BadInput(f"{counts}, first {values}: {what}{more}") from error


@contextmanager
def _bar(total: int, stored: int, progress: bool) -> Iterator[Callable[[], None]]:
    """A progress bar over points on standard error; yields what to call when one more is done."""
    console = Console(stderr=True)
    columns = (TextColumn("points"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("points", total=total, completed=stored)
        yield lambda: bar.advance(task)
