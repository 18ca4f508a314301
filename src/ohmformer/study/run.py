"""Runs a study. Stored results are reused, and each result is stored as soon as it is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.models.user_code import USERS_CODE, guarded
from ohmformer.nn.shared.compiled_loops import load_compiled_loops
from ohmformer.streams.backends import COMPILED, drawn_on
from ohmformer.study.executors.local import LocalWorkers
from ohmformer.study.executors.spec import DEATHS, ExecutorLost, Workers, completed
from ohmformer.study.executors.worker import unguarded
from ohmformer.study.failures import Failure, in_words, raise_failures
from ohmformer.study.loaded import check_identity, identify
from ohmformer.study.noise_labels import filled
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half
from ohmformer.study.pricing.kv_prices import price_of
from ohmformer.study.results.collection import no_garbage
from ohmformer.study.results.key import Identity, Keys, PlainValues, digest, point_keys, price_digest
from ohmformer.study.results.spec import PointResult
from ohmformer.study.spec import Point, Settings, Study
from ohmformer.study.store.local_disk import one_driver
from ohmformer.study.store.old_code import check_code, code_in_words, old_code
from ohmformer.study.store.store import Store, StoredPoint
from ohmformer.study.store.usable import why_empty
from ohmformer.study.timing.ages import ages_of
from ohmformer.terminal.files import make_folder
from ohmformer.terminal.progress import Bar, bar
from ohmformer.terminal.signals import Stopped

Evaluate = Callable[[Settings], PointResult]

DIED = "its process died, perhaps for lack of memory; lower simulation.batch or task.limit, and run again"


def run_study(
    study: Study[Settings],
    out: Path,
    *,
    workers: int | Workers = 1,
    fresh: bool = False,
    keep_old: bool = False,
    further: bool = False,
    progress: bool = True,
    evaluate: Evaluate = evaluate_with_cost_half,
) -> list[PointResult]:
    """Compute all points of a study whose results are not stored yet.

    A point whose process dies is tried again alone, after all others. The next run tries it last, too.

    Args:
        study: the study; its points have been checked.
        out: folder of results.sqlite, made if missing. A folder that is not writable can be read if no result is
            missing.
        workers: number of processes of this machine, where 1 computes everything in this process; or workers of
            `study.executors`, which the caller closes. The results are the same to the last bit.
        fresh: True to delete stored results of this study first.
        keep_old: True to keep stored results that other code computed; each then has `old_code`.
        further: True if the store lists these points beside those that it lists for the study already.
        progress: True to show a progress bar on standard error if it is a terminal, and to report dead processes,
            results of other code and damaged rows there.
        evaluate: function from settings to result. With several workers it must be a module's function.

    Returns:
        The result of each point, in order.

    Raises:
        BadInput: model or data cannot be used (nothing is written), a point fails (the others are stored first), the
            store cannot be written or was moved, or another run computes into the folder.
        Stopped: Ctrl-C was pressed, or a signal ended the process.
    """
    options: dict[str, Any] = {"workers": workers, "fresh": fresh, "keep_old": keep_old, "further": further}
    return run_with_keys(study, out, **options, progress=progress, evaluate=evaluate)[1]


def run_with_keys(
    study: Study[Settings],
    out: Path,
    *,
    workers: int | Workers,
    fresh: bool,
    keep_old: bool = False,
    further: bool = False,
    progress: bool = True,
    evaluate: Evaluate = evaluate_with_cost_half,
) -> tuple[list[str], list[PointResult]]:
    """The key and the result of each point of a study; see `run_study`."""
    pool = LocalWorkers(workers) if isinstance(workers, int) else workers
    identities = _identities(study)
    each = _keys(study, identities)
    keys = [one.key for one in each]
    jobs = (_Job(evaluate, *parts) for parts in zip(study.points, identities, each, strict=True))
    todo = dict(zip(keys, jobs, strict=True))
    empty = why_empty(out / "results.sqlite")
    with _store(out) as store, ExitStack() as locks:
        if empty:
            _tell(empty, progress)
        if fresh:
            locks.enter_context(one_driver(out))
            store.forget(keys)
        results = _stored(store, todo)
        if todo and not store.readonly and not fresh:
            locks.enter_context(one_driver(out))
            results |= _stored(store, todo)  # what another run has stored meanwhile
        kept = _from_other_code(store, todo, keep=keep_old, show=progress)
        results |= {key: result for key, (_, result) in kept.items()}
        if todo and store.readonly:
            missing = f"{len(todo)} of {len(set(keys))} results are not there"
            raise BadInput(f"{out}: {store.readonly}, and {missing}; choose another folder with --out")
        store.note_points(
            study.name, _listed(study, [kept[key][0] if key in kept else key for key in keys]), further=further
        )
        if todo:
            _tell_damage(store, progress)
            _Computation(study, store, len(set(keys)), todo, pool).run(progress)
            results |= _stored(store, todo)
            store.check_in_place()
    if not set(keys) <= set(results):
        raise BadInput(
            f"{store.file}: a result that was just stored is gone, so another program changed the file; run again to "
            "compute it anew"
        )
    return keys, [results[key] for key in keys]


def study_keys(study: Study[Settings]) -> list[str]:
    """The key of every point, in order. This loads models and data."""
    return [each.key for each in _keys(study, _identities(study))]


def _keys(study: Study[Settings], identities: Sequence[Identity]) -> list[Keys]:
    plain, pairs = PlainValues(), zip(study.points, identities, strict=True)
    with no_garbage():
        return [point_keys(point.settings, identity, plain) for point, identity in pairs]


def _listed(study: Study[Settings], keys: Sequence[str]) -> list[StoredPoint]:
    pairs = zip(study.points, keys, strict=True)
    return [
        StoredPoint(study.name, point.set, filled(point.label, point.settings.hardware), key) for point, key in pairs
    ]


def _stored(store: Store, todo: dict[str, _Job]) -> dict[str, PointResult]:
    """Key -> stored result; the jobs of these keys are removed from `todo`."""
    with no_garbage():
        results = store.get(todo)
    for key in results:
        del todo[key]
    return results


def _from_other_code(
    store: Store, todo: dict[str, _Job], *, keep: bool, show: bool
) -> dict[str, tuple[str, PointResult]]:
    """Say which of the missing results other code has computed.

    Returns:
        Key -> key under which a result is stored, and the result, if they are kept; their jobs leave `todo`.
    """
    older = store.older({key: job.keys for key, job in todo.items()}) if todo else {}
    if not older:
        return {}
    present = code_in_words(next(iter(todo.values())).keys.version)
    others = ", ".join(dict.fromkeys(code_in_words(store.version(stored)) for stored in older.values()))
    count = f"{len(older)} stored {'result is' if len(older) == 1 else 'results are'} of other code ({others})"
    found: dict[str, tuple[str, PointResult]] = {}
    if keep:
        answers = store.get(older.values())
        for key, stored in older.items():
            if stored in answers:
                version = {"old_code": old_code(store.version(stored))}
                found[key] = (stored, answers[stored].model_copy(update=version))
                del todo[key]
    remedy = "and kept" if keep else "and computed again; --keep-old keeps them"
    _tell(f"{count} than the present one ({present}), {remedy}", show)
    return found


def _tell_damage(store: Store, show: bool) -> None:
    """Say how many rows are damaged; they are computed again if a study asks for them."""
    if count := len(store.damaged):
        rows = "a row is" if count == 1 else f"{count} rows are"
        _tell(f"{store.file}: {rows} damaged; points without an intact result are computed again", show)


def _tell(text: str, show: bool) -> None:
    with bar("points", 1, show=show) as display:
        display.say(text)


def _identities(study: Study[Settings]) -> list[Identity]:
    try:
        with guarded(USERS_CODE):
            return [_identity(point.settings) for point in study.points]
    except BadInput as error:
        raise BadInput(f"{study.where}: {error}" if study.where else str(error)) from error


def _identity(settings: Settings) -> Identity:
    identity, ages = identify(settings), ages_of(settings)
    price_of(settings)  # a limit without prices is refused before the first point runs
    identity = identity if ages is None else replace(identity, ages=digest(ages.plain()))
    return identity if settings.pricing is None else replace(identity, prices=price_digest(settings.pricing))


@contextmanager
def _store(out: Path) -> Iterator[Store]:
    """Open the store in a folder. If both are new and the store stays empty, they are removed at the end."""
    made = [folder for folder in (out, *out.parents) if not os.path.exists(folder)]
    make_folder(out)
    file = out / "results.sqlite"
    fresh, unused = not os.path.exists(file), True
    try:
        with Store(file) as store:
            try:
                yield store
            finally:
                unused = store.is_in_place() and len(store) == 0 and not store.unfinished_attempts()
    finally:
        if fresh and unused:
            with suppress(OSError):
                for name in ("", "-wal", "-shm"):
                    file.with_name(f"{file.name}{name}").unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


@dataclass(frozen=True)
class _Job:
    """The work of one point. It has the identity, since a user's function may return something else in the worker."""

    evaluate: Evaluate
    point: Point[Settings]
    identity: Identity
    keys: Keys

    def __str__(self) -> str:
        return in_words(self.point)


def _evaluated(job: _Job) -> PointResult:
    check_code(job.point.settings, job.keys.version)
    with guarded(USERS_CODE):
        check_identity(job.point.settings, job.identity)
        return job.evaluate(job.point.settings)


class _Computation:
    """Computes points and stores their results."""

    def __init__(
        self, study: Study[Settings], store: Store, total: int, todo: dict[str, _Job], workers: Workers
    ) -> None:
        self.where, self.store, self.total, self.todo, self.workers = study.where, store, total, todo, workers
        self.stored = total - len(todo)
        self.failed: list[tuple[_Job, BaseException]] = []
        self.under_way: set[str] = set()

    def run(self, progress: bool) -> None:
        """Evaluate all points and store each when it is done; then raise what failed."""
        suspects = self.store.unfinished_attempts()
        first = {key: job for key, job in self.todo.items() if key not in suspects}
        last = {key: job for key, job in self.todo.items() if key in suspects}
        if isinstance(self.workers, LocalWorkers):
            devices = {job.identity.device for job in self.todo.values()}
            for kernels in COMPILED:
                if drawn_on("cpu", kernels) in devices:
                    load_compiled_loops(kernels)  # once, here: its processes then read them
        try:
            with bar("points", self.total, self.stored, show=progress) as display:
                while first:
                    last |= self._together(first, display)
                while last:
                    self._alone(last, display)
        except BaseException as error:
            with suppress(BadInput):  # no process died, so no point is suspect
                self.store.end_attempts(self.under_way)
            if isinstance(error, KeyboardInterrupt):
                raise Stopped(f"stopped: {self._count()}; run again to go on") from None
            if isinstance(error, ExecutorLost):
                raise BadInput(f"{error} ({self._count()})") from error
            raise
        if self.failed:
            failures = [Failure(str(job), error) for job, error in self.failed]
            folder = self.store.file.parent
            raise_failures(failures, total=self.total, done=self.stored, what="stored", where=self.where, folder=folder)

    def _together(self, jobs: dict[str, _Job], display: Bar) -> dict[str, _Job]:
        """Run jobs until all are done or the executor breaks; remove them from `jobs`, and return those whose process
        died."""
        broken = dict[str, _Job]()
        with self.workers.executor(len(jobs)) as executor:
            for key, future in completed(executor, _evaluated, dict(jobs), begin=self._begin):
                job = jobs.pop(key)
                if isinstance(future.exception(), DEATHS):
                    broken[key] = job
                    self.under_way.discard(key)
                else:
                    self._keep(key, job, future, display)
        if broken:
            points = "; ".join(map(str, broken.values()))
            display.say(
                f"a worker process died; under way were: {points}; each is tried again by itself, after all others"
            )
        return broken

    def _alone(self, jobs: dict[str, _Job], display: Bar) -> None:
        """Run jobs one after the other in a separate process, until all are done or the process dies."""
        with self.workers.executor(len(jobs), alone=True) as executor:
            for key, future in completed(executor, _evaluated, dict(jobs), begin=self._begin):
                self._keep(key, jobs.pop(key), future, display)

    def _begin(self, key: str) -> None:
        self.under_way.add(key)
        self.store.begin_attempt(key)

    def _keep(self, key: str, job: _Job, future: Future[PointResult], display: Bar) -> None:
        """Store a result, or record a failure. The store keeps the keys of points whose processes died."""
        error = future.exception()
        if error is None:
            self.store.put(key, future.result(), job.keys)
            self.stored += 1
        elif isinstance(error, DEATHS):
            self.failed.append((job, BadInput(unguarded() or DIED)))
        else:
            self.failed.append((job, error))
            self.store.end_attempts([key])
        self.under_way.discard(key)
        display.advance()

    def _count(self) -> str:
        return f"{self.stored} of {self.total} points stored"
