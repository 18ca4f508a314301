"""`of.search`: the designs of a study that no other one beats, found with Optuna."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isinf
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput, check_type
from ohmformer.models.user_code import USERS_CODE, guarded
from ohmformer.study.executors.spec import Workers, whole_count
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half
from ohmformer.study.requirements.conditions import as_run
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.key import ANSWERING, PACKAGE, PRICING, code_digest, digest, versions
from ohmformer.study.results.search import SearchResults
from ohmformer.study.run import Evaluate, study_keys
from ohmformer.study.search.answer import answer
from ohmformer.study.search.evaluate import Evaluator, Outcome
from ohmformer.study.search.goals import Goals, goals_of, needs_accuracy
from ohmformer.study.search.proposals import Proposals, check_optuna
from ohmformer.study.search.request import Request, read_request
from ohmformer.study.search.spec import same
from ohmformer.study.spec import Point, Study
from ohmformer.tasks.metric_kinds import Metric
from ohmformer.terminal.files import make_folder
from ohmformer.terminal.progress import bar
from ohmformer.terminal.signals import Stopped

JOURNAL = "search.journal"
"""File of the trials in the results folder."""

IMPOSSIBLE = 1e9
"""Violation of a design without price or valid settings."""


def search(
    study: str | Path | Mapping[str, Any],
    *,
    trials: int | None = None,
    sets: Sequence[str] = (),
    out: str | Path | None = None,
    workers: int = 1,
    fresh: bool = False,
    progress: bool = True,
) -> SearchResults:
    """Search the Pareto front of the designs that `[search]` of a study describes.

    All designs are priced; accuracy is measured only where it can still matter. Trials and accuracies are stored, so a
    call that was stopped goes on where it was. The same study gives the same trials, whatever the number of workers.

    Args:
        study: name or file of a study with a table `[search]`, or its content as a mapping.
        trials: number of designs to try, in place of that of the study.
        sets: changes 'PATH=VALUE' of the study.
        out: folder of the results; None for `ohmformer-runs/NAME`.
        workers: number of processes that measure accuracies.
        fresh: True to forget what is stored of this search.
        progress: True to show progress on standard error.

    Returns:
        All designs that were tried; `front` are those that no other one dominates.

    Raises:
        BadInput: Optuna is missing, an argument or the study cannot be used, or the accuracy of a design cannot be
            computed.
        Stopped: Ctrl-C was pressed.
    """
    check_type("search", "study", study, (str, Path, Mapping), "the name or file of a study, or its content")
    check_type("search", "out", out, (str, Path, type(None)), "the path of a folder")
    for name, flag in (("fresh", fresh), ("progress", progress)):
        check_type("search", name, flag, bool, "True or False")
    for change in sets if isinstance(sets, (list, tuple)) else (None,):
        check_type("search", "sets", sets if change is None else change, str, "changes such as ['search.trials=30']")
    count = whole_count(workers)
    request = read_request(study if isinstance(study, Mapping) else str(study), list(sets), trials=trials)
    folder = default_folder(request.name) if out is None else Path(out)
    return searched(request, folder, workers=count, fresh=fresh, progress=progress)


def searched(
    request: Request,
    folder: Path,
    *,
    workers: int | Workers = 1,
    fresh: bool = False,
    progress: bool = True,
    python: Collection[str] | None = None,
    evaluate: Evaluate = evaluate_with_cost_half,
) -> SearchResults:
    """The answer to a request.

    Args:
        request: the request.
        folder: of the results.
        workers: number of processes, or workers of `study.executors`.
        fresh: True to forget what is stored of this search.
        progress: True to show progress on standard error.
        python: modules whose functions the study may call; None for all.
        evaluate: function from settings to result.

    Raises:
        BadInput: as `search`.
        Stopped: Ctrl-C was pressed.
    """
    check_optuna()
    goals, key = _prepared(request)
    table = request.table
    make_folder(folder)
    evaluator = Evaluator(
        *(request.name, request.where, request.settings_of, goals, folder, workers, fresh, python, evaluate)
    )
    proposals = Proposals(
        folder / JOURNAL,
        key,
        table.space,
        directions=len(goals.objectives),
        sampler=table.sampler,
        seed=request.seed,
        fresh=fresh,
    )
    try:
        found = _run(request, goals, evaluator, proposals, progress)
    finally:
        proposals.close()
    return answer(request, key, goals, found)


def _run(
    request: Request, goals: Goals, evaluator: Evaluator, proposals: Proposals, progress: bool
) -> list[tuple[Any, Outcome]]:
    """Propose and evaluate designs until there are as many as asked for, or no others."""
    table = request.table
    outcomes = {same(design): _stored(plain, proposals) for design, plain in proposals.done}
    for outcome in outcomes.values():
        evaluator.note(outcome)
    with bar("designs", table.trials, len(proposals.done), show=progress) as display:
        while len(proposals.done) < table.trials:
            asked = proposals.batch(table.batch, table.trials, table.first)
            try:
                results = evaluator.outcomes([each.design for each in asked])
            except Stopped:
                done = f"{len(proposals.done)} of {table.trials} designs"
                raise Stopped(f"stopped: {done} are evaluated; run again to go on") from None
            for each, outcome in zip(asked, results, strict=True):
                outcomes[same(each.design)] = outcome
                proposals.tell(each, _proposed_point(goals, outcome), _violations(goals, outcome), outcome.plain())
                display.advance()
            proposals.end_batch()
            if not asked and proposals.exhausted():
                break
    return [(design, outcomes[same(design)]) for design, _ in proposals.done[: table.trials]]


def _stored(plain: Any, proposals: Proposals) -> Outcome:
    try:
        return Outcome.of(plain)
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            f"{proposals.file}: holds a trial that this program did not write; move it away and search again, measured "
            "accuracies stay stored"
        ) from None


def _proposed_point(goals: Goals, outcome: Outcome) -> list[float]:
    """The objectives for Optuna, finite and lower where better: a lifetime counts as the wear per second."""
    if outcome.kind == "impossible":
        return [0.0] * len(goals.objectives)
    return [
        (0.0 if isinf(value) else 1 / value) if each.name == "lifetime" else each.sign * value
        for each in goals.objectives
        for value in [_value(each.name, outcome)]
    ]


def _value(name: str, outcome: Outcome) -> float:
    """A value; 0 for an accuracy that is not known, since a constraint on costs is violated."""
    return outcome.values.get(name, 0.0)


def _violations(goals: Goals, outcome: Outcome) -> list[float]:
    """By how much each constraint is violated; first of all whether the design is possible."""
    if outcome.kind == "impossible":
        return [IMPOSSIBLE, *(0.0 for _ in goals.constraints)]
    known = (each.quantity.name in outcome.values for each in goals.constraints)
    return [
        0.0,
        *(
            each.violation(outcome.values[each.quantity.name]) if there else 0.0
            for each, there in zip(goals.constraints, known, strict=True)
        ),
    ]


def _prepared(request: Request) -> tuple[Goals, str]:
    """The goals of a request, and the key of its search.

    Raises:
        BadInput: model or data cannot be used, or the goals do not fit the metric of the task.
    """
    table = request.table
    measures = needs_accuracy(table.objectives, table.constraints)
    metric = _metric(request) if measures else None
    try:
        goals = goals_of(table.objectives, table.constraints, metric)
    except BadInput as error:
        raise BadInput(f"{request.where}: {error}") from None
    choices = [
        [each.name, repr(each.domain), {name: list(values) for name, values in each.when.items()}]
        for each in table.space.choices
    ]
    options = [table.objectives, table.constraints, table.first, table.sampler, request.seed, table.batch]
    settings = [each.canonical() for each in request.checked]
    code = [code_digest(PACKAGE, (*ANSWERING, *PRICING, "study/search/*.py")), versions()]
    return goals, digest([_identities(request) if measures else [], choices, options, settings, code])


def _metric(request: Request) -> Metric:
    """The metric of the task.

    Raises:
        BadInput: there is no task, or model or data cannot be loaded.
    """
    from ohmformer.study.loaded import loaded, one_thread

    try:
        settings = as_run(request.checked[0])
        with guarded(USERS_CODE), one_thread():
            return loaded(settings.model, settings.task)[1].metric_kind
    except BadInput as error:
        raise BadInput(f"{request.where}: {error}") from error


def _identities(request: Request) -> list[str]:
    """Keys of one design for each model of the search, which change if a model or the data do."""
    models = {each.model: each for each in request.checked}
    points = tuple(Point({}, "", as_run(whole)) for whole in models.values())
    return study_keys(Study(request.name, points, request.where))
