"""A stage: what one unit does for the tokens of one layer, and how long a block of them takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from ohmformer.array.event_counter import Counts
from ohmformer.cost.cost import add_energy

By = Literal["component", "operation", "engine"]
"""What energy is split by: what draws it, the stage that asks for it, or the engine."""

CONDITIONING = "conditioning"
"""The stage before K and V are written, and the component: the vector lanes, as far as they do this."""


@dataclass(frozen=True)
class Stage:
    """One stage of a layer.

    A block of n tokens takes max(floor, fixed + per_token min(n, cap)) seconds.

    Attributes:
        name: as in the workload, or `write` for writing K and V, or `load` for weights from memory off the chip.
        engine: projection or attention.
        unit: what it occupies; other stages of the same unit have to wait.
        shared: whether all layers use the same unit.
        fixed: per block [s], such as the filling of pipelines.
        per_token: [s].
        floor: least time of a block [s].
        cap: tokens beyond it take no more time, since they go to other arrays.
        energy: of all tokens of all samples, by component [J].
        counts: events on arrays, of all tokens of all samples.
        merged_from: the stages that it stands for, one after another, where neighbours occupy the same unit.
    """

    name: str
    engine: str
    unit: str
    shared: bool = False
    fixed: float = 0.0
    per_token: float = 0.0
    floor: float = 0.0
    cap: float = inf
    energy: Mapping[str, float] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    merged_from: tuple[Stage, ...] = ()

    @property
    def parts(self) -> tuple[Stage, ...]:
        """The stages that it stands for: itself, where it was not merged."""
        return self.merged_from or (self,)

    def time(self, tokens: float) -> float:
        """Seconds that a block of so many tokens occupies the unit."""
        return max(self.floor, self.fixed + self.per_token * min(tokens, self.cap)) if tokens else 0.0

    @property
    def joules(self) -> float:
        """Energy of all components [J]."""
        return sum(self.energy.values())

    def energy_by(self, kind: By) -> Mapping[str, float]:
        """Energy [J] by component, operation or engine; conditioning of K and V is an operation of its own."""
        match kind:
            case "component":
                return self.energy
            case "engine":
                return {self.engine: self.joules}
        rest = {name: value for name, value in self.energy.items() if name != CONDITIONING}
        apart = {CONDITIONING: self.energy[CONDITIONING]} if len(rest) < len(self.energy) else {}
        return add_energy({self.name: sum(rest.values())}, apart)


def total_energy(stages: Iterable[tuple[Stage, float]], kind: By = "component") -> dict[str, float]:
    """Energy [J] of stages, each with how often it is done, or with the share of it that is.

    Args:
        stages: pairs of stage and number.
        kind: what to split by. The parts of merged stages count as operations and engines of their own.
    """
    found: dict[str, float] = {}
    for stage, times in stages:
        for part in (stage,) if kind == "component" else stage.parts:
            for name, value in part.energy_by(kind).items():
                found[name] = found.get(name, 0.0) + value * times
    return found


def merged(stages: list[Stage]) -> list[Stage]:
    """Neighbours that occupy the same unit as one stage, one after the other."""
    found: list[Stage] = []
    for stage in stages:
        if found and found[-1].unit == stage.unit and found[-1].shared == stage.shared:
            found[-1] = _joined(found[-1], stage)
        else:
            found.append(stage)
    return found


def _joined(one: Stage, other: Stage) -> Stage:
    return replace(
        one,
        name=f"{one.name}+{other.name}",
        fixed=one.fixed + other.fixed,
        per_token=one.per_token + other.per_token,
        energy=add_energy(one.energy, other.energy),
        counts=one.counts + other.counts,
        merged_from=one.parts + other.parts,
    )
