"""The numbers of papers: what they report, what the model gives, and whether the two agree. Free of torch.

A paper is a folder `papers/<name>` of the library with a claims.toml: `[paper]`, `[runs.<name>]` (settings of the cost
half), `[measured]` (see `ohmformer.validation.measured_accuracy`), and one `[[claim]]` for each number. Roles:

- `calibration`: the number fixed a parameter, so that meeting it proves nothing;
- `validation`: nothing was fixed with it;
- `shown`: no number of the paper, but what another reading of it gives;
- `not_checkable`: no source gives what would be needed;
- `contradicted`: other numbers of the same paper exclude it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ohmformer import catalog
from ohmformer.array.spec import Crossbar
from ohmformer.dataflow.simulate import Run
from ohmformer.errors import BadInput, cut, shown, suggest
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.schema import validate
from ohmformer.study.cost import cost_settings, runs_of
from ohmformer.study.results.spec import ClaimResult, ClaimResults, PaperResult
from ohmformer.study.spec import CostSettings
from ohmformer.study.sweep import Document
from ohmformer.validation.claim_file import Claim, ClaimsFile, reported_number
from ohmformer.validation.measured_accuracy import Measured

Verdict = Literal[
    "met", "missed", "calibrated", "not met by its own calibration", "shown", "not checkable", "contradicts others",
    "not measured yet",
]  # fmt: skip

MVM = ("array", "dac", "adc", "sample", "shift_add")
"""Components of a product on arrays."""


@dataclass(frozen=True)
class Checked:
    """A claim and what the model says of it, both in the unit of the claim.

    Attributes:
        claim: as in the file.
        reported: in SI units or as a plain number; None where nothing is reported.
        modelled: what the model gives, in the same unit; None where nothing can be computed.
        unit: SI unit of both; '' for plain numbers, '%' for fractions.
    """

    claim: Claim
    reported: float | None
    modelled: float | None
    unit: str

    @property
    def ratio(self) -> float | None:
        """Modelled over reported."""
        return None if self.modelled is None or not self.reported else self.modelled / self.reported

    @property
    def within(self) -> bool:
        """Whether the ratio is within the tolerance."""
        return self.ratio is not None and abs(self.ratio - 1) <= self.claim.tolerance

    @property
    def verdict(self) -> Verdict:
        """In words."""
        if self.unmeasured:
            return "not measured yet"
        match self.claim.role:
            case "validation":
                return "met" if self.within else "missed"
            case "calibration":
                return "calibrated" if self.within else "not met by its own calibration"
            case "shown":
                return "shown"
            case "contradicted":
                return "contradicts others"
        return "not checkable"

    @property
    def unmeasured(self) -> bool:
        """Whether accuracies that it needs were not measured."""
        return bool(self.claim.quantity) and self.modelled is None

    @property
    def checked(self) -> bool:
        """Whether model and paper are held against each other."""
        return self.claim.role in ("validation", "calibration") and not self.unmeasured

    @property
    def failed(self) -> bool:
        """Whether it was checked and is not within its tolerance."""
        return self.checked and not self.within


@dataclass(frozen=True)
class Paper:
    """A checked paper."""

    name: str
    title: str
    note: str
    claims: tuple[Checked, ...]


def papers() -> dict[str, Path]:
    """Name -> claims file of every paper of the library."""
    found: dict[str, Path] = {}
    for root in catalog.roots():
        for file in sorted((root / "papers").glob("*/claims.toml")):
            found.setdefault(file.parent.name, file)
    return found


def check(name: str) -> Paper:
    """Compute all claims of a paper.

    Raises:
        BadInput: there is no such paper, or its file is wrong.
    """
    known = papers()
    if name not in known:
        raise BadInput(f"{name!r} is no paper of the library; {suggest(name, list(known))}")
    file = known[name]
    content = validate(ClaimsFile, catalog.read(file), where=str(file))
    try:
        measured = None if content.measured is None else Measured.read(file.parent, content.measured)
        evaluator = Evaluator(content.runs, measured)
        claims = tuple(evaluator.check(_claim(table)) for table in content.claim)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    return Paper(name, content.paper.title or name, content.paper.note, claims)


def _claim(table: Document) -> Claim:
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return validate(Claim, {**table, **lists}, where=cut(str(table.get("id", "claim"))))


class Evaluator:
    """Computes quantities of runs, each run once."""

    def __init__(self, runs: dict[str, Document], measured: Measured | None = None) -> None:
        self.documents = runs
        self.measured = measured
        self.known: dict[str, Priced] = {}

    def check(self, claim: Claim) -> Checked:
        """A claim with what the model says of it."""
        if not claim.quantity:
            return Checked(claim, reported_number(claim, ""), None, "")
        if claim.quantity not in QUANTITIES:
            said = suggest(claim.quantity, list(QUANTITIES))
            raise BadInput(f"{claim.id}: quantity = {shown(claim.quantity)}: {said}")
        unit, compute = QUANTITIES[claim.quantity]
        try:
            value = compute(self, claim)
        except ZeroDivisionError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise BadInput(f"{claim.id}: quantity = {claim.quantity!r}: is a share of nothing here; correct its runs")
        return Checked(claim, reported_number(claim, unit), value, unit)

    def accuracies(self, claim: Claim) -> Measured:
        """What was measured.

        Raises:
            BadInput: the paper has nothing of the kind.
        """
        if self.measured is None:
            raise BadInput(f"{claim.id}: quantity = {claim.quantity!r}: is of measured accuracies; add [measured]")
        return self.measured

    def run(self, name: str) -> Priced:
        """A named run."""
        if name not in self.documents:
            raise BadInput(f"run {shown(name)}: is not in this file; {suggest(name, list(self.documents))}")
        if name not in self.known:
            try:
                settings = cost_settings(self.documents[name])
                runs = runs_of(settings)
            except BadInput as error:
                raise BadInput(f"runs.{name}.{error}") from error
            if len(runs) != 1:
                raise BadInput(f"runs.{name}.model.steps = {len(runs)}: must be 1 here; leave it out")
            self.known[name] = Priced(settings, runs[0])
        return self.known[name]

    def first(self, claim: Claim) -> Priced:
        """The run of a claim of one run."""
        if not claim.runs:
            raise BadInput(f"{claim.id}: runs: is missing or empty; name a run")
        return self.run(claim.runs[0])

    def pairs(self, claim: Claim) -> list[tuple[Priced, Priced]]:
        """Runs with what they are compared with."""
        if len(claim.runs) != len(claim.against) or not claim.runs:
            raise BadInput(f"{claim.id}: runs and against have not equally many names; pair them")
        return [(self.run(one), self.run(other)) for one, other in zip(claim.runs, claim.against, strict=True)]

    def pair(self, claim: Claim) -> tuple[Priced, Priced]:
        """The one run of a claim, and what it is compared with."""
        found = self.pairs(claim)
        if len(found) != 1:
            raise BadInput(f"{claim.id}: runs: has {len(found)} names and takes one; leave out the others")
        return found[0]


@dataclass(frozen=True)
class Priced:
    """A run and the settings it is of."""

    settings: CostSettings
    run: Run

    @cached_property
    def layer(self) -> int:
        """Position of the first layer with attention.

        Raises:
            BadInput: there is none.
        """
        for position, layer in enumerate(self.run.placement.layers):
            if layer.scores is not None:
                return position
        raise BadInput(f"{self.settings.model.where}: has no layer with attention; take another model")

    @property
    def weight_array(self) -> Crossbar:
        """The array that holds weights.

        Raises:
            BadInput: the accelerator has none.
        """
        engine = self.settings.hardware.projection
        if not isinstance(engine, ArrayEngine):
            raise BadInput(f"hardware.projection.kind = {engine.kind!r}: has no arrays to count; take another machine")
        return engine.array

    def stage_energy(self, stages: tuple[str, ...]) -> float:
        """Energy of stages of one layer [J]."""
        placed = self.run.placement.layers[self.layer].stages
        return sum(part.joules for stage in placed for part in stage.parts if part.name in stages)


Compute = Callable[[Evaluator, Claim], float | None]


def _ratios(evaluator: Evaluator, claim: Claim, what: str) -> list[float]:
    """`against` over `runs`, pair by pair."""
    return [getattr(other.run, what) / getattr(one.run, what) for one, other in evaluator.pairs(claim)]


def _first(evaluator: Evaluator, claim: Claim) -> Priced:
    return evaluator.first(claim)


def _efficiency(evaluator: Evaluator, claim: Claim) -> float:
    run = _first(evaluator, claim).run
    return run.placement.workload.operations / run.energy


def _efficiency_ratio(evaluator: Evaluator, claim: Claim) -> float:
    one, other = evaluator.pair(claim)
    return other.run.energy / one.run.energy


def _share(evaluator: Evaluator, claim: Claim) -> float:
    run = _first(evaluator, claim)
    return run.stage_energy(claim.operations) / run.stage_energy(claim.of)


def _adc_share(evaluator: Evaluator, claim: Claim) -> float:
    """Of the energy of products on the arrays of an engine."""
    stages = [stage for stage in _first(evaluator, claim).run.placement.stages() if stage.engine in claim.operations]
    total = sum(stage.energy.get(name, 0.0) for stage in stages for name in MVM)
    return sum(stage.energy.get("adc", 0.0) for stage in stages) / total


def _time_share(evaluator: Evaluator, claim: Claim) -> float:
    """Of the critical path."""
    path = _first(evaluator, claim).run.timeline.critical_stages()
    return sum(seconds for name, seconds in path.items() if name in claim.operations) / sum(path.values())


def _falls(evaluator: Evaluator, claim: Claim) -> float:
    """1 where the ratio of the last pair is the smallest since the largest one, so that it falls towards the end."""
    ratios = _ratios(evaluator, claim, "latency")
    peak = ratios.index(max(ratios))
    tail = ratios[peak:]
    return float(len(tail) > 1 and all(one > two for one, two in pairwise(tail)))


def _layer_arrays(evaluator: Evaluator, claim: Claim) -> float:
    """Arrays of the weights of one layer, a differential pair counted once."""
    placed = _first(evaluator, claim)
    return _weight_arrays(placed, ("qkv", "output", "ffn1", "ffn2")) / placed.weight_array.polarities


def _attention_arrays(evaluator: Evaluator, claim: Claim) -> float:
    """Arrays of W_Q, W_K, W_V, K and V of one layer, a differential pair counted once."""
    return _self_attention(_first(evaluator, claim))


def _attention_saving(evaluator: Evaluator, claim: Claim) -> float:
    one, other = evaluator.pair(claim)
    return 1 - _self_attention(one) / _self_attention(other)


def _energy_saving(evaluator: Evaluator, claim: Claim) -> float:
    """Of stages of one layer, from the run to what it is compared with."""
    one, other = evaluator.pair(claim)
    return 1 - one.stage_energy(claim.operations) / other.stage_energy(claim.operations)


def _self_attention(placed: Priced) -> float:
    array = placed.settings.hardware.attention.array
    layers = sum(1 for layer in placed.run.placement.layers if layer.scores is not None)
    held = sum(count for role, count in placed.run.placement.arrays.items() if role != "projection") / layers
    return (_weight_arrays(placed, ("qkv",)) + held) / array.polarities


def _weight_arrays(placed: Priced, stages: tuple[str, ...]) -> float:
    """Arrays of weights of some stages of one layer: what they read in one cycle of one token."""
    work = placed.run.placement.workload
    layer = placed.run.placement.layers[placed.layer]
    array = placed.weight_array
    read = sum(stage.counts.activations for stage in layer.stages if stage.name in stages)
    return read / (array.cycles() * layer.tokens * work.batch)


QUANTITIES: dict[str, tuple[str, Compute]] = {
    "latency": ("s", lambda evaluator, claim: _first(evaluator, claim).run.latency),
    "energy": ("J", lambda evaluator, claim: _first(evaluator, claim).run.energy),
    "layer_energy": ("J", lambda evaluator, claim: _first(evaluator, claim).stage_energy(claim.of)),
    "speedup": ("", lambda evaluator, claim: max(_ratios(evaluator, claim, "latency"))),
    "mean_speedup": ("", lambda evaluator, claim: sum(_ratios(evaluator, claim, "latency")) / len(claim.runs)),
    "energy_ratio": ("", lambda evaluator, claim: max(_ratios(evaluator, claim, "energy"))),
    "power_ratio": ("", lambda evaluator, claim: max(_ratios(evaluator, claim, "power"))),
    "least_power_ratio": ("", lambda evaluator, claim: min(_ratios(evaluator, claim, "power"))),
    "efficiency": ("op/J", _efficiency),
    "efficiency_ratio": ("", _efficiency_ratio),
    "energy_share": ("%", _share),
    "adc_share": ("%", _adc_share),
    "time_share": ("%", _time_share),
    "falls": ("", _falls),
    "layer_arrays": ("", _layer_arrays),
    "attention_arrays": ("", _attention_arrays),
    "attention_saving": ("%", _attention_saving),
    "energy_saving": ("%", _energy_saving),
    "accuracy": ("%", lambda evaluator, claim: evaluator.accuracies(claim).accuracy(claim.series, claim.gamma)),
    "returned": ("%", lambda evaluator, claim: evaluator.accuracies(claim).returned(claim.series, claim.gamma)),
    "above": ("", lambda evaluator, claim: evaluator.accuracies(claim).above(claim.series, claim.gamma)),
    "grows": ("", lambda evaluator, claim: evaluator.accuracies(claim).grows(claim.series, claim.gamma)),
    "sigma": ("", lambda evaluator, claim: evaluator.accuracies(claim).sigma),
    "misfit": ("%", lambda evaluator, claim: evaluator.accuracies(claim).misfit),
}
"""Quantity -> SI unit, and how it is computed from the runs, or the series, of a claim."""

YES_OR_NO = ("falls", "above", "grows")
"""Quantities that are 1 or 0."""


def claims_document(papers: Sequence[Paper]) -> ClaimResults:
    """Checked papers as a document."""
    return ClaimResults(
        schema=1,
        papers=tuple(PaperResult(paper=paper.name, claims=tuple(map(_result, paper.claims))) for paper in papers),
    )


def _result(checked: Checked) -> ClaimResult:
    return ClaimResult(
        id=checked.claim.id,
        claim=checked.claim.claim,
        where=checked.claim.where,
        role=checked.claim.role,
        reported=checked.reported,
        modelled=checked.modelled,
        unit=checked.unit,
        ratio=checked.ratio,
        tolerance=checked.claim.tolerance,
        verdict=checked.verdict,
        why=checked.claim.why,
    )
