"""The runs and measured accuracies that claims refer to, each computed once. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ohmformer.array.spec import Crossbar
from ohmformer.dataflow.simulate import Run
from ohmformer.errors import BadInput, shown, suggest
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.study.cost import cost_settings, runs_of
from ohmformer.study.spec import CostSettings
from ohmformer.study.sweep import Document
from ohmformer.validation.claim_file import Claim
from ohmformer.validation.measured_accuracy import Measured


class Evaluator:
    """Gives access to the runs and measured accuracies of a paper. Each run is computed once."""

    def __init__(self, runs: dict[str, Document], measured: Measured | None = None) -> None:
        self.documents = runs
        self.measured = measured
        self.computed: dict[str, Priced] = {}

    def accuracies(self, claim: Claim) -> Measured:
        """Return the measured accuracies of the paper.

        Raises:
            BadInput: the paper's file has no `[measured]`.
        """
        if self.measured is None:
            raise BadInput(f"{claim.id}: quantity = {shown(claim.quantity)}: needs measured accuracies; add [measured]")
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
                f"hardware.projection.kind = {shown(engine.kind)}: has no arrays to count; choose another accelerator"
            )
        return engine.array

    def stage_energy(self, stages: tuple[str, ...], components: tuple[str, ...] = ()) -> float:
        """Return the energy of some stages of one layer [J]: of all components, or of those that are named."""
        placed = self.run.placement.layers[self.layer].stages
        parts = [part for stage in placed for part in stage.parts if part.name in stages]
        if not components:
            return sum(part.joules for part in parts)
        return sum(part.energy.get(name, 0.0) for part in parts for name in components)

    def stage_time(self, stages: tuple[str, ...]) -> float:
        """Return the time for which all tokens of a sample occupy some stages of one layer, one after another [s]."""
        layer = self.run.placement.layers[self.layer]
        parts = (part for stage in layer.stages for part in stage.parts if part.name in stages)
        return sum(part.occupancy(layer.tokens) for part in parts)
