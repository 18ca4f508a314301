"""A stage: the work of one unit on the tokens of one layer, with its time, energy and event counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Literal, get_args

from ohmformer.array.event_counter import Counts
from ohmformer.cost.attention.seen_keys import KeyTimes, PerQueryCost
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.designs.per_design import largest
from ohmformer.errors import BadInput, shown, suggest

By = Literal["component", "operation", "engine"]
"""How energy is split: by the component that draws it, by the stage that causes it, or by engine."""


def check_split(kind: object) -> None:
    """Refuse a way to split energy that does not exist.

    Raises:
        BadInput: `kind` is not one of `By`.
    """
    if not isinstance(kind, str) or kind not in get_args(By):
        raise BadInput(f"energy_by({shown(kind)}): {suggest(shown(kind), list(get_args(By)))}")


MEMORY = "memory"
"""Name of the unit of the memory off the chip."""

CONDITIONING = "conditioning"
"""Name of the stage that conditions K and V before they are written, and of the lanes' energy for this work."""


def is_memory(unit: str) -> bool:
    """True if a further unit of a stage is a memory off the chip, of which each of several chips has one."""
    return unit == MEMORY or unit.endswith(f": {MEMORY}")


@dataclass(frozen=True)
class Stage:
    """One stage of a layer.

    A block of n tokens takes max(floor, fixed + per_token min(n, cap)) seconds. If it has more tokens than a turn,
    turns follow one another, and each takes this time.

    Attributes:
        name: name of the stage in the workload; `write` for writing K and V; `load` for loading weights from off-chip
            memory.
        engine: projection or attention.
        unit: the unit that the stage occupies; other stages on the same unit wait.
        shared: True if all layers use the same unit.
        pool: number of equal units of this name. A token takes any of them, and waits for one first come, first served;
            0 for a single unit, which takes blocks in the order of layers, samples and blocks.
        whole: True if it takes all tokens of a sample at once, whatever the blocks.
        fixed: time per block [s], such as the filling of a pipeline.
        per_token: time per token [s].
        floor: minimum time of a block [s].
        cap: number of tokens beyond which a block takes no longer, since more tokens go to other arrays.
        turn: number of tokens that have cells at the same time.
        by_keys: times of tokens that depend on the keys that they see; `per_token` is then their mean. None if all
            tokens take the same time.
        off_chip: time per token for which it occupies the memory off the chip [s], at most `per_token`.
        energy: component -> energy of all tokens of all samples [J].
        counts: events on arrays for all tokens of all samples.
        standing: standing power of the tiles that are on only while the stage works [W]; 0 if tiles are always on.
        network_load: bytes that its tiles send during its work, over those that the network allows; 0 if unknown.
        memory_load: bytes that pass the memories of its tiles, over those that their bandwidth allows; 0 if unknown.
        merged_from: if consecutive stages on the same unit were merged into this one: these stages, in order.
    """

    name: str
    engine: str
    unit: str
    shared: bool = False
    pool: int = 0
    whole: bool = False
    fixed: float = 0.0
    per_token: float = 0.0
    floor: float = 0.0
    cap: float = inf
    turn: float = inf
    by_keys: KeyTimes | None = None
    off_chip: float = 0.0
    energy: Mapping[str, float] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    standing: float = 0.0
    network_load: float = 0.0
    memory_load: float = 0.0
    merged_from: tuple[Stage, ...] = ()

    @property
    def parts(self) -> tuple[Stage, ...]:
        """The stages that this one was merged from; the stage itself if it was not merged."""
        return self.merged_from or (self,)

    def time(self, tokens: float, first: int = 0) -> float:
        """Time from the start of a block until its result has arrived [s].

        Args:
            tokens: tokens of the block.
            first: tokens of the sample before the block.
        """
        if tokens > self.turn:
            turns = ceil(tokens / self.turn) - 1
            return turns * self.occupancy(self.turn) + self.time(tokens - turns * self.turn)
        return largest(self.floor, self.fixed + self._work(tokens, first)) if tokens else 0.0

    def occupancy(self, tokens: float, first: int = 0) -> float:
        """Time after which a unit can take the next block [s]: `time` without `fixed`, which is latency."""
        if tokens > self.turn:
            turns = ceil(tokens / self.turn) - 1
            return turns * self.occupancy(self.turn) + self.occupancy(tokens - turns * self.turn)
        return largest(self.floor, self._work(tokens, first)) if tokens else 0.0

    def _work(self, tokens: float, first: int) -> float:
        """Time of the tokens of a block [s]."""
        if self.by_keys is None or tokens >= self.by_keys.seen.queries:
            return self.per_token * min(tokens, self.cap)
        return self.by_keys.time(first, round(tokens))

    def with_loads(self, network: float, memory: float) -> Stage:
        """The stage with the loads of its links, made without `replace`, which is slow for many designs."""
        copy = object.__new__(Stage)
        for name, value in {**self.__dict__, "network_load": network, "memory_load": memory}.items():
            object.__setattr__(copy, name, value)  # reading fields is slower if `__dict__` is filled at once
        return copy

    def at_least(self, per_token: float) -> Stage:
        """The stage if every token takes at least `per_token` seconds."""
        if self.by_keys is None:
            return replace(self, per_token=largest(self.per_token, per_token))
        times = self.by_keys.at_least(per_token)
        return replace(self, per_token=times.total / times.seen.queries, by_keys=times)

    @property
    def joules(self) -> float:
        """Energy of all components [J]."""
        return sum(self.energy.values())


def total_energy(stages: Iterable[tuple[Stage, float]], kind: By = "component") -> dict[str, float]:
    """Total energy of stages; all energies of workloads, placements and runs are summed here.

    Args:
        stages: pairs of a stage and the number of times that it is done, which may be a fraction.
        kind: how to split the energy. The parts of merged stages count as separate operations and engines.

    Returns:
        Component, operation or engine -> energy [J].
    """
    total: dict[str, float] = {}
    for stage, times in stages:
        for part in (stage,) if kind == "component" else stage.parts:
            if kind != "component":
                total.setdefault(_share_of(part, "", kind), 0.0)  # it has an entry even if it takes no energy
            for component, joules in part.energy.items():
                name = _share_of(part, component, kind)
                total[name] = total.get(name, 0.0) + joules * times
    return total


def _share_of(stage: Stage, component: str, kind: By) -> str:
    """The part of a split that the energy of a component of a stage belongs to; conditioning is its own operation."""
    match kind:
        case "component":
            return component
        case "engine":
            return stage.engine
    return component if component == CONDITIONING else stage.name


def merged(stages: list[Stage]) -> list[Stage]:
    """The stages with consecutive ones on the same unit merged into one."""
    result: list[Stage] = []
    for stage in stages:
        last = result[-1] if result else None
        if last and last.unit == stage.unit and last.shared == stage.shared and _may_join(last, stage):
            result[-1] = _joined(last, stage)
        else:
            result.append(stage)
    return result


def _may_join(one: Stage, other: Stage) -> bool:
    """True if a unit may do two stages without a pause; in a pool, only those of the same engine."""
    return one.whole == other.whole and (not one.pool or one.engine == other.engine)


def _joined(one: Stage, other: Stage) -> Stage:
    """Two stages on the same unit as one: times, energies and counts add."""
    return replace(
        one,
        name=f"{one.name}+{other.name}",
        fixed=one.fixed + other.fixed,
        per_token=one.per_token + other.per_token,
        by_keys=_in_turn(one, other),
        off_chip=one.off_chip + other.off_chip,
        energy=sum_by_name(one.energy, other.energy),
        counts=one.counts + other.counts,
        standing=largest(one.standing, other.standing),
        network_load=largest(one.network_load, other.network_load),
        memory_load=largest(one.memory_load, other.memory_load),
        merged_from=one.parts + other.parts,
    )


def _in_turn(one: Stage, other: Stage) -> KeyTimes | None:
    """The times by keys of two stages one after the other; None if those of neither depend on keys.

    The means are taken where the tokens of the two see different keys.
    """
    first, second = one.by_keys, other.by_keys
    if first is None or second is None:
        alone, constant = (second, one.per_token) if first is None else (first, other.per_token)
        return None if alone is None else alone.and_then((PerQueryCost(constant),))
    return first.and_then(second.parts) if first.seen == second.seen else None
