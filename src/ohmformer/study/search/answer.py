"""The document of a search, from what became of its designs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from ohmformer.errors import BadInput
from ohmformer.study.cost import price_notes
from ohmformer.study.results.key import versions
from ohmformer.study.results.search import SearchedDesign, SearchedQuantity, SearchResults, State
from ohmformer.study.search.evaluate import Outcome
from ohmformer.study.search.goals import Goals, Quantity, kept_by_mean_alone
from ohmformer.study.search.pareto import dominating, front
from ohmformer.study.search.request import Request
from ohmformer.study.search.spec import Design

MOST_COUNTED = 1_000_000
"""Number of designs up to which the size of a space is told."""


def answer(request: Request, key: str, goals: Goals, found: Sequence[tuple[Design, Outcome]]) -> SearchResults:
    """The document of a search.

    Args:
        request: the request.
        key: of the search.
        goals: objectives and constraints.
        found: all designs with what became of them, in order.

    Raises:
        BadInput: no design is possible.
    """
    if all(outcome.kind == "impossible" for _, outcome in found):
        raise BadInput(f"{request.where}: none of {len(found)} designs is possible, the first since {found[0][1].why}")
    designs = _designs(request, goals, found)
    size = request.table.space.size(MOST_COUNTED)
    table = request.table
    return SearchResults(
        schema=1,
        study=request.name,
        key=key,
        versions={**versions(), "optuna": _optuna_version()},
        objectives=tuple(map(_searched, goals.objectives)),
        constraints=table.constraints,
        quantities=tuple(map(_searched, goals.quantities)),
        sampler=table.sampler,
        seed=request.seed,
        batch=table.batch,
        size=int(size) if size <= MOST_COUNTED else None,
        measured=sum(outcome.accuracy is not None for _, outcome in found),
        designs=designs,
        notes=tuple(_notes(request, goals, found, designs)),
    )


def _optuna_version() -> str:
    import optuna

    return str(optuna.__version__)


def _searched(quantity: Quantity) -> SearchedQuantity:
    unit = "%" if quantity.unit == "%" else quantity.unit
    return SearchedQuantity(name=quantity.name, title=quantity.title, unit=unit, better=quantity.better)


def _designs(request: Request, goals: Goals, found: Sequence[tuple[Design, Outcome]]) -> tuple[SearchedDesign, ...]:
    known = [(number, goals.point(each.values)) for number, (_, each) in enumerate(found, 1) if each.kind == "known"]
    best = {number for (number, _), is_best in zip(known, front([point for _, point in known]), strict=True) if is_best}
    first = [(number, point) for number, point in known if number in best]
    points = dict(known)
    made = []
    for number, (design, outcome) in enumerate(found, 1):
        state: State = outcome.kind if outcome.kind != "known" else "front" if number in best else "dominated"  # type: ignore[assignment]
        why = f"design {dominating(first, points[number])} is better" if state == "dominated" else outcome.why
        made.append(
            SearchedDesign(
                number=number,
                choices=dict(design),
                set=request.table.space.changes(design),
                state=state,
                values={name: value if isfinite(value) else None for name, value in outcome.values.items()},
                accuracy=outcome.accuracy,
                why=why,
            )
        )
    return tuple(made)


def _notes(
    request: Request, goals: Goals, found: Sequence[tuple[Design, Outcome]], designs: Sequence[SearchedDesign]
) -> list[str]:
    """What a reader must know."""
    notes = []
    metric = goals.metric
    if metric is not None:
        measured = [outcome.accuracy for _, outcome in found if outcome.accuracy is not None]
        better = [
            each
            for each in measured
            if (each.mean > each.software) == (metric.better == "higher") and each.mean != each.software
        ]
        if better:
            notes.append(
                f"{len(better)} of {len(measured)} measured designs came out above the software model, by chance; they "
                "count as equal to it"
            )
    best = [each for each in designs if each.state == "front"]
    if not best:
        notes.append(_nearest(goals, found))
    notes += _unsure(goals, best)
    settings = [request.settings_of(found[each.number - 1][0])[1].costs() for each in best]
    return [*notes, *price_notes(settings)]


def _unsure(goals: Goals, best: Sequence[SearchedDesign]) -> list[str]:
    """A sentence on each constraint that designs of the front keep by their mean, but not by their interval."""
    unsure = Counter(
        each.text
        for design in best
        if design.accuracy is not None
        for each in kept_by_mean_alone(goals, design.accuracy.software, design.accuracy.ci95)
    )
    return [
        f"{text}: {count} of {len(best)} designs of the front keep it by their mean, while their 95 % intervals reach "
        "beyond it; more chips (trials.chips) and samples (task.limit) narrow these"
        for text, count in unsure.items()
    ]


def _nearest(goals: Goals, found: Sequence[tuple[Design, Outcome]]) -> str:
    """A sentence on the design that violates the constraints least."""

    def excess(outcome: Outcome) -> float:
        values = outcome.values
        return sum(
            max(0.0, c.violation(values[c.quantity.name])) for c in goals.constraints if c.quantity.name in values
        )

    there = [
        (excess(outcome), number, outcome)
        for number, (_, outcome) in enumerate(found, 1)
        if outcome.why and outcome.kind == "infeasible"
    ]
    _, number, outcome = min(there, key=lambda each: each[:2])
    return f"no design meets all constraints; design {number} comes nearest: {outcome.why}"
