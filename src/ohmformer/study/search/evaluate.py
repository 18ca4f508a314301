"""What becomes of proposed designs: all are priced, and those whose accuracy can still matter are measured.

A design is not measured in exactly these cases:

1. it has no valid settings or no price;
2. it violates a constraint on costs;
3. even the accuracy of the software model would violate a constraint;
4. another design, whose values are known and which meets all constraints, would dominate it even if it had the accuracy
   of the software model.

No design counts as more accurate than its software model (see `goals.py`), so a design that is not measured cannot be
on the front. Mitigations that calibration chooses decide costs, so designs with such a choice are always measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.models.user_code import USERS_CODE, guarded
from ohmformer.study.executors.spec import Workers
from ohmformer.study.permission import check_python
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half
from ohmformer.study.requirements.conditions import as_run
from ohmformer.study.results.search import MeasuredDesign
from ohmformer.study.results.spec import Accuracy
from ohmformer.study.run import Evaluate, run_study
from ohmformer.study.search.costs import Costs, cost_after_choice, costs_of
from ohmformer.study.search.goals import Constraint, Goals, measured_values, shown_quantity
from ohmformer.study.search.pareto import Point as Objectives
from ohmformer.study.search.pareto import dominating
from ohmformer.study.search.spec import Design
from ohmformer.study.spec import Point, Settings, Study, Whole


@dataclass(frozen=True)
class Outcome:
    """What is known of a design.

    Attributes:
        kind: `known` if all values are; `skipped`, `infeasible` or `impossible` otherwise, in which case `values` has
            costs and, for a skipped design, the best case.
        values: name of a quantity -> its value.
        why: reason, where not all values are known.
        accuracy: what was measured.
    """

    kind: str
    values: dict[str, float] = field(default_factory=dict)
    why: str = ""
    accuracy: MeasuredDesign | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        measured = None if self.accuracy is None else self.accuracy.model_dump(by_alias=True)
        return {"kind": self.kind, "values": self.values, "why": self.why, "accuracy": measured}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Outcome:
        """From JSON values.

        Raises:
            ValueError: they are those of no outcome.
        """
        measured = plain["accuracy"]
        accuracy = None if measured is None else MeasuredDesign.model_validate(measured)
        return cls(plain["kind"], dict(plain["values"]), plain["why"], accuracy)


@dataclass
class _Candidate:
    """A design under evaluation."""

    changes: dict[str, Any]
    whole: Whole | None = None
    settings: Settings | None = None
    costs: Costs | None = None
    outcome: Outcome | None = None

    def refuse(self, error: BadInput) -> None:
        self.outcome = Outcome("impossible", why=str(error))


@dataclass
class Evaluator:
    """Evaluates designs.

    Attributes:
        name: name of the study.
        where: its file, for messages.
        settings_of: design -> (path -> value) and all settings.
        goals: objectives and constraints.
        folder: of the stored accuracies.
        workers: number of processes, or workers of `study.executors`.
        fresh: True to measure anew what is stored.
        python: modules whose functions a study may call.
        evaluate: function from settings to result.
        known: number and objectives of the designs that meet all constraints and whose values are all known.
        count: number of designs so far.
    """

    name: str
    where: str
    settings_of: Callable[[Design], tuple[dict[str, Any], Whole]]
    goals: Goals
    folder: Path
    workers: int | Workers = 1
    fresh: bool = False
    python: Collection[str] | None = None
    evaluate: Evaluate = evaluate_with_cost_half
    known: list[tuple[int, Objectives]] = field(default_factory=list)
    count: int = 0

    @property
    def measures(self) -> bool:
        """True if an objective or a constraint comes from the accuracy half."""
        return self.goals.metric is not None

    def outcomes(self, designs: Sequence[Design]) -> list[Outcome]:
        """What becomes of designs, in order.

        Raises:
            BadInput: the accuracy of a design cannot be computed.
            Stopped: Ctrl-C was pressed.
        """
        candidates = [self._candidate(design) for design in designs]
        self._price(candidates)
        if self.measures:
            for each in candidates:
                self._skip(each)
            self._measure([each for each in candidates if each.outcome is None])
        else:
            for each in candidates:
                if each.outcome is None and each.costs is not None:
                    each.outcome = self._judged(dict(each.costs))
        found = [each.outcome or Outcome("impossible") for each in candidates]
        for outcome in found:
            self.note(outcome)
        return found

    def note(self, outcome: Outcome) -> None:
        """Count a design, and remember it for comparisons if it meets all constraints."""
        self.count += 1
        if outcome.kind == "known":
            self.known.append((self.count, self.goals.point(outcome.values)))

    def _candidate(self, design: Design) -> _Candidate:
        candidate = _Candidate({})
        try:
            candidate.changes, candidate.whole = self.settings_of(design)
            if self.python is not None:
                check_python([candidate.whole], self.python, "")
            if self.measures:
                candidate.settings = as_run(candidate.whole)
        except BadInput as error:
            candidate.refuse(error)
        return candidate

    def _price(self, candidates: Sequence[_Candidate]) -> None:
        """Find the costs of all designs whose mitigation is fixed."""
        fixed = [each for each in candidates if each.outcome is None and not self._chooses(each)]
        settings = [each.whole.costs() for each in fixed if each.whole is not None]
        names = [each.name for each in self.goals.quantities]
        for each, costs in zip(fixed, costs_of(settings, names), strict=True):
            if isinstance(costs, BadInput):
                each.refuse(costs)
            else:
                each.costs = costs

    def _chooses(self, candidate: _Candidate) -> bool:
        """True if calibration chooses a mitigation, which decides the costs."""
        if not self.measures or candidate.whole is None:
            return False
        mitigation = candidate.whole.mitigation
        return mitigation.chooses_kv or mitigation.clip == "calibrated" or mitigation.weights == "auto"

    def _skip(self, candidate: _Candidate) -> None:
        """Decide whether the accuracy of a design can still matter."""
        if candidate.outcome is not None or candidate.costs is None:
            return
        costs = candidate.costs
        if violated := self.goals.violated(costs, costs_alone=True):
            candidate.outcome = Outcome("infeasible", dict(costs), self._violations(violated, costs))
            return
        assert candidate.settings is not None
        software = self._software(candidate.settings)
        best = {**costs, **measured_values(self.goals, software, software)}
        if violated := self.goals.violated(best):
            why = f"even with the accuracy of the software model: {self._violations(violated, best)}"
            candidate.outcome = Outcome("infeasible", best, why)
        elif (number := dominating(self.known, self.goals.point(best))) is not None:
            why = f"design {number} would be better even if this one had the accuracy of the software model"
            candidate.outcome = Outcome("skipped", best, why)

    def _software(self, settings: Settings) -> float:
        from ohmformer.study.loaded import one_thread, software_metric

        with guarded(USERS_CODE), one_thread():
            return software_metric(settings.model, settings.task, settings.simulation.batch)

    def _measure(self, candidates: Sequence[_Candidate]) -> None:
        """Measure designs, through the store."""
        if not candidates:
            return
        points = tuple(Point(each.changes, "", each.settings) for each in candidates if each.settings is not None)
        study = Study(self.name, points, self.where)
        options: dict[str, Any] = {"fresh": self.fresh, "progress": False, "evaluate": self.evaluate}
        results = run_study(study, self.folder, workers=self.workers, **options)
        for each, result in zip(candidates, results, strict=True):
            try:
                each.outcome = self._measured(each, result.accuracy)
            except BadInput as error:
                each.refuse(error)

    def _measured(self, candidate: _Candidate, accuracy: Accuracy) -> Outcome:
        costs = candidate.costs
        if costs is None:
            assert candidate.whole is not None
            names = [each.name for each in self.goals.quantities]
            costs = cost_after_choice(candidate.whole.costs(), accuracy.chosen, names)
        values = {**costs, **measured_values(self.goals, accuracy.software, accuracy.mean)}
        measured = MeasuredDesign(
            metric=accuracy.metric,
            level=accuracy.level,
            kernels=accuracy.kernels,
            software=accuracy.software,
            mean=accuracy.mean,
            ci95=accuracy.ci95,
            chips=len(accuracy.chips),
            samples=accuracy.samples,
        )
        return self._judged(values, measured)

    def _judged(self, values: dict[str, float], accuracy: MeasuredDesign | None = None) -> Outcome:
        violated = self.goals.violated(values)
        kind = "infeasible" if violated else "known"
        return Outcome(kind, values, self._violations(violated, values), accuracy)

    def _violations(self, violated: Sequence[Constraint], values: Costs) -> str:
        """Which bounds values violate: 'area 230 mm² (area <= 100 mm2)'."""
        return "; ".join(
            f"{each.quantity.name} {self.text(each.quantity.name, values[each.quantity.name])} ({each.text})"
            for each in violated
        )

    def text(self, name: str, value: float) -> str:
        """A value of a quantity for readers."""
        quantity = next(each for each in self.goals.quantities if each.name == name)
        return quantity_text(self.goals, quantity.name, quantity.unit, value)


def quantity_text(goals: Goals, name: str, unit: str, value: float) -> str:
    """A value of a quantity for readers; that of the metric as the metric shows it."""
    if goals.metric is not None and name in ("accuracy", goals.metric.kind):
        return f"{goals.metric.text(value)} {goals.metric.unit}".strip()
    return shown_quantity(name, unit, value)
