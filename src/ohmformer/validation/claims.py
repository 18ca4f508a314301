"""Compare the numbers that papers report with those of the model. Free of torch.

A paper is a folder `papers/<name>` of the library with a claims.toml: `[paper]`, `[runs.<name>]` (settings of the cost
half), `[measured]` (see `ohmformer.validation.measured_accuracy`), and one `[[claim]]` for each number. Roles:

- `calibration`: a parameter was fitted to the number, so agreement is no evidence;
- `validation`: no parameter was fitted to the number;
- `shown`: not a number of the paper, but the result under another interpretation of it;
- `not_checkable`: no source gives the data that would be needed;
- `contradicted`: other numbers of the same paper contradict it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ohmformer import catalog
from ohmformer.array.spec import Crossbar
from ohmformer.dataflow.simulate import Run
from ohmformer.errors import BadInput, cut, shown, suggest
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.schema import validate
from ohmformer.study.cost import cost_settings, runs_of
from ohmformer.study.spec import CostSettings
from ohmformer.study.sweep import Document
from ohmformer.validation.claim_file import Claim, ClaimsFile, reported_number
from ohmformer.validation.measured_accuracy import Measured

Verdict = Literal[
    "met", "missed", "calibrated", "not met by its own calibration", "shown", "not checkable", "contradicts others",
    "not measured yet",
]  # fmt: skip

MVM = ("array", "dac", "adc", "sample", "shift_add")
"""Components of a matrix product on arrays."""


@dataclass(frozen=True)
class Checked:
    """A claim with its reported and its modelled number.

    Attributes:
        claim: the claim, as in the file.
        reported: reported number in SI units, or a plain number; None if the paper reports none.
        modelled: modelled number in the same unit; None if it cannot be computed.
        unit: SI unit of both; '' for plain numbers, '%' for fractions.
    """

    claim: Claim
    reported: float | None
    modelled: float | None
    unit: str

    @property
    def ratio(self) -> float | None:
        """Modelled over reported number; None if either is missing or the reported one is 0."""
        return None if self.modelled is None or not self.reported else self.modelled / self.reported

    @property
    def within(self) -> bool:
        """True if the ratio is within the tolerance."""
        return self.ratio is not None and abs(self.ratio - 1) <= self.claim.tolerance

    @property
    def verdict(self) -> Verdict:
        """The result of the comparison in words."""
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
        """True if the quantity needs accuracies that have not been measured."""
        return bool(self.claim.quantity) and self.modelled is None

    @property
    def checked(self) -> bool:
        """True if the modelled number is compared with the reported one."""
        return self.claim.role in ("validation", "calibration") and not self.unmeasured

    @property
    def failed(self) -> bool:
        """True if the claim was checked and is not within its tolerance."""
        return self.checked and not self.within


@dataclass(frozen=True)
class Paper:
    """A paper with its checked claims."""

    name: str
    title: str
    note: str
    claims: tuple[Checked, ...]


def papers() -> dict[str, Path]:
    """Return name -> claims file of every paper in the library; user folders take precedence."""
    files: dict[str, Path] = {}
    for root in catalog.roots():
        for file in sorted((root / "papers").glob("*/claims.toml")):
            files.setdefault(file.parent.name, file)
    return files


def check(name: str) -> Paper:
    """Compute all claims of a paper.

    Args:
        name: name of the paper, a key of `papers()`.

    Raises:
        BadInput: there is no such paper, or its file is invalid.
    """
    known = papers()
    if name not in known:
        raise BadInput(f"{name!r} is not a paper in the library; {suggest(name, list(known))}")
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
    """Validate one `[[claim]]`."""
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return validate(Claim, {**table, **lists}, where=cut(str(table.get("id", "claim"))))


class Evaluator:
    """Computes the quantities of claims. Each run is computed once."""

    def __init__(self, runs: dict[str, Document], measured: Measured | None = None) -> None:
        self.documents = runs
        self.measured = measured
        self.computed: dict[str, Priced] = {}

    def check(self, claim: Claim) -> Checked:
        """Compute the modelled number of a claim.

        Raises:
            BadInput: the quantity is unknown, or does not fit the runs of the claim.
        """
        if not claim.quantity:
            return Checked(claim, reported_number(claim, ""), None, "")
        if claim.quantity not in QUANTITIES:
            hint = suggest(claim.quantity, list(QUANTITIES))
            raise BadInput(f"{claim.id}: quantity = {shown(claim.quantity)}: {hint}")
        unit, compute = QUANTITIES[claim.quantity]
        try:
            value = compute(self, claim)
        except ZeroDivisionError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise BadInput(f"{claim.id}: quantity = {claim.quantity!r}: divides by zero for these runs; correct them")
        return Checked(claim, reported_number(claim, unit), value, unit)

    def accuracies(self, claim: Claim) -> Measured:
        """Return the measured accuracies of the paper.

        Raises:
            BadInput: the paper's file has no `[measured]`.
        """
        if self.measured is None:
            raise BadInput(f"{claim.id}: quantity = {claim.quantity!r}: needs measured accuracies; add [measured]")
        return self.measured

    def run(self, name: str) -> Priced:
        """Return a named run, computed on first use.

        Raises:
            BadInput: there is no such run, its settings are invalid, or it has more than one step.
        """
        if name not in self.documents:
            raise BadInput(f"run {shown(name)}: is not in this file; {suggest(name, list(self.documents))}")
        if name not in self.computed:
            try:
                settings = cost_settings(self.documents[name])
                runs = runs_of(settings)
            except BadInput as error:
                raise BadInput(f"runs.{name}.{error}") from error
            if len(runs) != 1:
                raise BadInput(f"runs.{name}.model.steps = {len(runs)}: must be 1 here; leave it out")
            self.computed[name] = Priced(settings, runs[0])
        return self.computed[name]

    def first(self, claim: Claim) -> Priced:
        """Return the first run of a claim.

        Raises:
            BadInput: the claim has none.
        """
        if not claim.runs:
            raise BadInput(f"{claim.id}: runs: is missing or empty; name a run")
        return self.run(claim.runs[0])

    def pairs(self, claim: Claim) -> list[tuple[Priced, Priced]]:
        """Return the runs of a claim, each with the run that it is compared with.

        Raises:
            BadInput: the numbers of names differ, or there are none.
        """
        if len(claim.runs) != len(claim.against) or not claim.runs:
            raise BadInput(f"{claim.id}: runs and against have different numbers of names; pair them")
        return [(self.run(name), self.run(other)) for name, other in zip(claim.runs, claim.against, strict=True)]

    def pair(self, claim: Claim) -> tuple[Priced, Priced]:
        """Return the single run of a claim, and the run that it is compared with.

        Raises:
            BadInput: there is not exactly one pair.
        """
        pairs = self.pairs(claim)
        if len(pairs) != 1:
            raise BadInput(f"{claim.id}: runs: has {len(pairs)} names but takes one; leave out the others")
        return pairs[0]


@dataclass(frozen=True)
class Priced:
    """A computed run with its settings."""

    settings: CostSettings
    run: Run

    @cached_property
    def layer(self) -> int:
        """Index of the first layer with attention.

        Raises:
            BadInput: no layer has attention.
        """
        for position, layer in enumerate(self.run.placement.layers):
            if layer.scores is not None:
                return position
        raise BadInput(f"{self.settings.model.where}: has no layer with attention; choose another model")

    @property
    def weight_array(self) -> Crossbar:
        """The array that holds the weights.

        Raises:
            BadInput: the engine of projections has no arrays.
        """
        engine = self.settings.hardware.projection
        if not isinstance(engine, ArrayEngine):
            raise BadInput(
                f"hardware.projection.kind = {engine.kind!r}: has no arrays to count; choose another accelerator"
            )
        return engine.array

    def stage_energy(self, stages: tuple[str, ...]) -> float:
        """Return the energy of some stages of one layer [J]."""
        placed = self.run.placement.layers[self.layer].stages
        return sum(part.joules for stage in placed for part in stage.parts if part.name in stages)


Compute = Callable[[Evaluator, Claim], float | None]
"""Computes the modelled number of a claim; None if measured accuracies are missing."""


def _ratios(evaluator: Evaluator, claim: Claim, attribute: str) -> list[float]:
    """Return the ratio of an attribute of `against` to that of `runs`, pair by pair."""
    return [getattr(other.run, attribute) / getattr(priced.run, attribute) for priced, other in evaluator.pairs(claim)]


def _first(evaluator: Evaluator, claim: Claim) -> Priced:
    return evaluator.first(claim)


def _efficiency(evaluator: Evaluator, claim: Claim) -> float:
    """Return operations per energy [op/J]."""
    run = _first(evaluator, claim).run
    return run.placement.workload.operations / run.energy


def _efficiency_ratio(evaluator: Evaluator, claim: Claim) -> float:
    """Return how many times more efficient the run is than the one that it is compared with."""
    priced, other = evaluator.pair(claim)
    return other.run.energy / priced.run.energy


def _share(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the stages `operations` in the energy of the stages `of`."""
    priced = _first(evaluator, claim)
    return priced.stage_energy(claim.operations) / priced.stage_energy(claim.of)


def _adc_share(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the ADCs in the energy of products on the arrays of an engine."""
    stages = [stage for stage in _first(evaluator, claim).run.placement.stages() if stage.engine in claim.operations]
    total = sum(stage.energy.get(name, 0.0) for stage in stages for name in MVM)
    return sum(stage.energy.get("adc", 0.0) for stage in stages) / total


def _time_share(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the stages `operations` in the critical path."""
    path = _first(evaluator, claim).run.timeline.critical_stages()
    return sum(seconds for name, seconds in path.items() if name in claim.operations) / sum(path.values())


def _falls(evaluator: Evaluator, claim: Claim) -> float:
    """Return 1 if the latency ratio falls steadily from its maximum to the last pair, else 0."""
    ratios = _ratios(evaluator, claim, "latency")
    peak = ratios.index(max(ratios))
    tail = ratios[peak:]
    return float(len(tail) > 1 and all(earlier > later for earlier, later in pairwise(tail)))


def _layer_arrays(evaluator: Evaluator, claim: Claim) -> float:
    """Return the number of arrays with weights of one layer; a differential pair counts once."""
    placed = _first(evaluator, claim)
    return _weight_arrays(placed, ("qkv", "output", "ffn1", "ffn2")) / placed.weight_array.polarities


def _attention_arrays(evaluator: Evaluator, claim: Claim) -> float:
    """Return the number of arrays with W_Q, W_K, W_V, K and V of one layer; a differential pair counts once."""
    return _self_attention(_first(evaluator, claim))


def _attention_saving(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of attention arrays that the run saves."""
    priced, other = evaluator.pair(claim)
    return 1 - _self_attention(priced) / _self_attention(other)


def _energy_saving(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the energy of some stages of one layer that the run saves."""
    priced, other = evaluator.pair(claim)
    return 1 - priced.stage_energy(claim.operations) / other.stage_energy(claim.operations)


def _self_attention(placed: Priced) -> float:
    """Return the number of arrays of self-attention of one layer; a differential pair counts once."""
    array = placed.settings.hardware.attention.array
    layers = sum(1 for layer in placed.run.placement.layers if layer.scores is not None)
    kv_arrays = sum(count for role, count in placed.run.placement.arrays.items() if role != "projection") / layers
    return (_weight_arrays(placed, ("qkv",)) + kv_arrays) / array.polarities


def _weight_arrays(placed: Priced, stages: tuple[str, ...]) -> float:
    """Return the number of arrays with weights of some stages of one layer: those read in one cycle of one token."""
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
"""Quantity -> SI unit, and the function that computes it from the runs or series of a claim."""

YES_OR_NO = ("falls", "above", "grows")
"""Quantities that are 1 (yes) or 0 (no)."""


def claims_document(checked: list[Paper]) -> Document:
    """Return checked papers as plain JSON values."""
    return {
        "schema": 1,
        "papers": [{"paper": paper.name, "claims": [_row(entry) for entry in paper.claims]} for paper in checked],
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
