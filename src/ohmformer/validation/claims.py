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

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ohmformer import catalog, units
from ohmformer.array.spec import Crossbar
from ohmformer.dataflow.simulate import Run
from ohmformer.errors import BadInput, suggest
from ohmformer.schema import Fraction, Spec, validate
from ohmformer.study.cost import cost_settings, runs_of
from ohmformer.study.spec import CostSettings
from ohmformer.study.sweep import Document
from ohmformer.validation.measured_accuracy import Measured

Role = Literal["calibration", "validation", "shown", "not_checkable", "contradicted"]
Verdict = Literal[
    "met", "missed", "calibrated", "not met by its own calibration", "shown", "not checkable", "contradicts others",
    "not measured yet",
]  # fmt: skip

MVM = ("array", "dac", "adc", "sample", "shift_add")
"""Components of a product on arrays."""


class Claim(Spec):
    """One number of a paper.

    Attributes:
        id: short name.
        claim: in words.
        reported: the number, with its unit where it has one; None for a reading that is only shown.
        where: in the paper.
        role: see the top of this file.
        tolerance: of the ratio modelled / reported, as a fraction.
        quantity: what is computed; empty where nothing can be.
        runs: names of runs; those of `against` are what they are compared with, one by one.
        operations: stages whose share is asked for, or the engine.
        of: stages that make up the whole.
        series: measured accuracies, as `model.method`.
        gamma: their noise levels.
        why: why the model may differ, or why nothing can be checked.
    """

    id: str
    claim: str
    reported: float | str | None = None
    where: str
    role: Role
    tolerance: Fraction = 0.15
    quantity: str = ""
    runs: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    gamma: tuple[float, ...] = ()
    why: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Checked:
    """A claim and what the model says of it, both in the unit of the claim.

    Attributes:
        claim: as in the file.
        reported: in SI units or as a plain number; None where nothing is reported.
        modelled: likewise; None where nothing can be computed.
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
    content = catalog.read(file)
    try:
        measured = Measured.read(file.parent, content["measured"]) if "measured" in content else None
        evaluator = Evaluator(content.get("runs", {}), measured)
        claims = tuple(evaluator.check(_claim(table)) for table in content.get("claim", []))
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    paper = content.get("paper", {})
    return Paper(name, str(paper.get("title", name)), str(paper.get("note", "")), claims)


def _claim(table: Document) -> Claim:
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return validate(Claim, {**table, **lists}, where=str(table.get("id", "claim")), in_file=False)


class Evaluator:
    """Computes quantities of runs, each run once."""

    def __init__(self, runs: dict[str, Document], measured: Measured | None = None) -> None:
        self.documents = runs
        self.measured = measured
        self.known: dict[str, Priced] = {}

    def check(self, claim: Claim) -> Checked:
        """A claim with what the model says of it."""
        if not claim.quantity:
            return Checked(claim, _number(claim, ""), None, "")
        if claim.quantity not in QUANTITIES:
            raise BadInput(f"{claim.id}: quantity = {claim.quantity!r}: {suggest(claim.quantity, list(QUANTITIES))}")
        unit, compute = QUANTITIES[claim.quantity]
        return Checked(claim, _number(claim, unit), compute(self, claim), unit)

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
            raise BadInput(f"run {name!r}: is not in this file; {suggest(name, list(self.documents))}")
        if name not in self.known:
            settings = cost_settings(self.documents[name])
            (run,) = runs_of(settings)
            self.known[name] = Priced(settings, run)
        return self.known[name]

    def pairs(self, claim: Claim) -> list[tuple[Priced, Priced]]:
        """Runs with what they are compared with."""
        if len(claim.runs) != len(claim.against):
            raise BadInput(f"{claim.id}: runs and against have not equally many names; pair them")
        return [(self.run(one), self.run(other)) for one, other in zip(claim.runs, claim.against, strict=True)]


@dataclass(frozen=True)
class Priced:
    """A run and the settings it is of."""

    settings: CostSettings
    run: Run

    @cached_property
    def layer(self) -> int:
        """Position of the first layer with attention."""
        return next(i for i, layer in enumerate(self.run.placement.layers) if layer.scores is not None)

    def stage_energy(self, stages: tuple[str, ...]) -> float:
        """Energy of stages of one layer [J]."""
        placed = self.run.placement.layers[self.layer].stages
        return sum(part.joules for stage in placed for part in stage.parts if part.name in stages)


def _number(claim: Claim, unit: str) -> float | None:
    if isinstance(claim.reported, str):
        return units.parse(claim.reported, unit)
    return claim.reported


Compute = Callable[[Evaluator, Claim], float | None]


def _ratios(evaluator: Evaluator, claim: Claim, what: str) -> list[float]:
    """`against` over `runs`, pair by pair."""
    return [getattr(other.run, what) / getattr(one.run, what) for one, other in evaluator.pairs(claim)]


def _first(evaluator: Evaluator, claim: Claim) -> Priced:
    return evaluator.run(claim.runs[0])


def _efficiency(evaluator: Evaluator, claim: Claim) -> float:
    run = _first(evaluator, claim).run
    return run.placement.workload.operations / run.energy


def _efficiency_ratio(evaluator: Evaluator, claim: Claim) -> float:
    ((one, other),) = evaluator.pairs(claim)
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
    array: Crossbar = placed.settings.hardware.projection.array  # type: ignore[attr-defined]
    return _weight_arrays(placed, ("qkv", "output", "ffn1", "ffn2")) / array.polarities


def _attention_arrays(evaluator: Evaluator, claim: Claim) -> float:
    """Arrays of W_Q, W_K, W_V, K and V of one layer, a differential pair counted once."""
    return _self_attention(_first(evaluator, claim))


def _attention_saving(evaluator: Evaluator, claim: Claim) -> float:
    ((one, other),) = evaluator.pairs(claim)
    return 1 - _self_attention(one) / _self_attention(other)


def _energy_saving(evaluator: Evaluator, claim: Claim) -> float:
    """Of stages of one layer, from the run to what it is compared with."""
    ((one, other),) = evaluator.pairs(claim)
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
    array: Crossbar = placed.settings.hardware.projection.array  # type: ignore[attr-defined]
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


def claims_document(found: list[Paper]) -> Document:
    """Checked papers as plain JSON values."""
    return {
        "schema": 1,
        "papers": [{"paper": paper.name, "claims": [_row(entry) for entry in paper.claims]} for paper in found],
    }


def _row(entry: Checked) -> dict[str, Any]:
    return {
        "id": entry.claim.id,
        "claim": entry.claim.claim,
        "where": entry.claim.where,
        "role": entry.claim.role,
        "reported": entry.reported,
        "modelled": entry.modelled,
        "unit": entry.unit,
        "ratio": entry.ratio,
        "tolerance": entry.claim.tolerance,
        "verdict": entry.verdict,
        "why": entry.claim.why,
    }
