"""Running a study: what is stored is not computed again, and what was computed is never lost."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ohmformer.errors import BadInput
from ohmformer.study.evaluate_point import check_identity, evaluate_point, identify
from ohmformer.study.executors import completed, open_executor
from ohmformer.study.result_key import Identity, point_key
from ohmformer.study.results import make_folder
from ohmformer.study.spec import Point, Settings, Study
from ohmformer.study.store import Result, Store

Evaluate = Callable[[Settings], Result]


class Stopped(Exception):
    """Ctrl-C: the message says how many points are stored."""


def run_study(
    study: Study[Settings],
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
    jobs = [_Job(evaluate, point, identity) for point, identity in zip(study.points, _identities(study), strict=True)]
    keys = [job.key for job in jobs]
    todo = dict(zip(keys, jobs, strict=True))
    with _store(out) as store:
        if fresh:
            store.forget(keys)
        for key in store.get(todo):
            del todo[key]
        if todo:
            _Computation(study, store, len(set(keys)), todo).run(workers, progress)
        found = store.get(keys)
    return [found[key] for key in keys]


def study_keys(study: Study[Settings]) -> list[str]:
    """The key of every point, in order. Loads models and data."""
    identities = _identities(study)
    return [point_key(point.settings, found) for point, found in zip(study.points, identities, strict=True)]


def _identities(study: Study[Settings]) -> list[Identity]:
    try:
        return [identify(point.settings) for point in study.points]
    except BadInput as error:
        raise BadInput(f"{study.where}: {error}" if study.where else str(error)) from error


@contextmanager
def _store(out: Path) -> Iterator[Store]:
    """The store in a folder; what of both is new and stays empty is removed again."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    file = out / "results.sqlite"
    fresh, empty = not file.exists(), True
    try:
        with Store(file) as store:
            try:
                yield store
            finally:
                empty = len(store) == 0
    finally:
        if fresh and empty:
            with suppress(OSError):
                for name in ("", "-wal", "-shm"):
                    file.with_name(f"{file.name}{name}").unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


@dataclass(frozen=True)
class _Job:
    """What a worker needs: also what model and data are, since a function of the user may give others there."""

    evaluate: Evaluate
    point: Point[Settings]
    identity: Identity

    @property
    def key(self) -> str:
        """That of its result."""
        return point_key(self.point.settings, self.identity)


def _evaluated(job: _Job) -> Result:
    check_identity(job.point.settings, job.identity)
    return job.evaluate(job.point.settings)


class _Computation:
    """The points that are missing, on their way into the store."""

    def __init__(self, study: Study[Settings], store: Store, total: int, todo: dict[str, _Job]) -> None:
        self.where, self.store, self.total, self.todo = study.where, store, total, todo
        self.stored = total - len(todo)
        self.failed: list[tuple[_Job, BaseException]] = []

    def run(self, workers: int, progress: bool) -> None:
        """Evaluate all of them and store each as it comes; then report what failed."""
        try:
            self._run(min(workers, len(self.todo)), progress)
        except KeyboardInterrupt:
            raise Stopped(f"stopped: {self._count()}; run again to go on") from None
        except BrokenExecutor as error:
            why = f"a worker process died, perhaps for lack of memory ({self._count()})"
            raise BadInput(f"{why}; run again to go on, with fewer --workers") from error
        if self.failed:
            self._report()

    def _run(self, workers: int, progress: bool) -> None:
        window = 1 if workers == 1 else workers + 1
        with _bar(self.total, self.stored, progress) as advance, open_executor(workers) as executor:
            for key, future in completed(executor, _evaluated, self.todo, window=window):
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
        job, error = self.failed[0]
        surprises = [failure for _, failure in self.failed if not isinstance(failure, BadInput)]
        more = ""
        if surprises:
            file = self.store.file.with_name("errors.txt")
            file.write_text("\n".join("".join(traceback.format_exception(failure)) for failure in surprises))
            more = f"; details are in {file}"
        what = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        values = ", ".join(f"{path} = {value}" for path, value in job.point.set.items())
        counts = f"{len(self.failed)} of {self.total} points failed ({self._count()})"
        who = "the only point failed" if self.total == 1 else f"{counts}, first {values}" if values else counts
        place = f"{self.where}: " if self.where else ""
        raise BadInput(f"{place}{who}: {what}{more}") from error


@contextmanager
def _bar(total: int, stored: int, progress: bool) -> Iterator[Callable[[], None]]:
    """A progress bar over points on standard error; yields what to call when one more is done."""
    console = Console(stderr=True)
    columns = (TextColumn("points"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("points", total=total, completed=stored)
        yield lambda: bar.advance(task)
