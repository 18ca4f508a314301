"""`JobList`: builds the jobs of a dataflow one by one, with units, times and shares of energy filled in."""

from __future__ import annotations

from typing import NamedTuple

from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import MEMORY, Stage
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.layer_cuts import further_units, unit_name
from ohmformer.errors import BadInput


class _Place(NamedTuple):
    """What all jobs of a stage of a layer have in common.

    Attributes:
        layer: position of the layer.
        place: position of the stage.
        stage: the stage.
        total: tokens of all samples.
        unit: name of its unit.
        also: names of its further units.
        memory: name of the memory off the chip.
        pool: number of units that share a block; 1 if one unit takes all its tokens.
        parts: tokens of a part, and tokens of the sample before it -> what its job takes.
    """

    layer: int
    place: int
    stage: Stage
    total: int
    unit: str
    also: tuple[str, ...]
    memory: str
    pool: int
    parts: dict[tuple[int, int], _Part]


class _Part(NamedTuple):
    """What the job of some tokens takes: see the fields of `Job` with these names."""

    duration: float
    share: float
    lag: float
    memory: float


class JobList:
    """The jobs of a dataflow in program order.

    Attributes:
        placement: the workload on the accelerator.
        jobs: the jobs so far; each unit takes its jobs in this order.
    """

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.jobs: list[Job] = []
        self._tokens: dict[tuple[int, int, int], int] = {}
        self._times: dict[tuple[int, int, int], tuple[float, float]] = {}
        self._parts: dict[int, tuple[int, ...]] = {}
        self._places: dict[tuple[int, int, int], _Place] = {}

    def add(
        self, layer: int, stage: int, tokens: int, after: tuple[int, ...] = (), *, sample: int = 0, block: int = 0
    ) -> int:
        """Append the job of `tokens` tokens in a stage.

        Tokens of a sample pass a stage in order, so that the first job of a sample there has its first tokens.
        Its units are busy for `Stage.occupancy(tokens)`; its result arrives `Stage.time(tokens)` after its start.
        Where several equal units do the stage (`Stage.pool`), they share its tokens: one job for each part.

        Args:
            layer: position of the layer in `Placement.layers`.
            stage: position of the stage in `PlacedLayer.stages`.
            tokens: number of tokens of the block.
            after: positions of the jobs whose results it needs.
            sample: number of the sample.
            block: number of the block.

        Returns:
            The position of the job, which stands for all its parts in `after` of later ones.

        Raises:
            BadInput: there is no such layer or stage.
        """
        key = id(self.placement), layer, stage
        place = self._places.get(key) or self._places.setdefault(key, self._place(layer, stage))
        if self._parts:
            after = self._all_parts(after)
        _, _, entry, _, unit, also, memory_unit, pool, parts = place
        sizes = (tokens,) if pool < 2 or tokens == 1 else _even_parts(tokens, pool)
        first = 0
        for size in sizes:
            if entry.by_keys is not None:  # later tokens of a sample see more keys
                first = self._tokens.get((layer, stage, sample), 0)
                self._tokens[layer, stage, sample] = first + size
            busy, share, lag, memory = parts.get((size, first)) or self._part(place, size, first)
            self.jobs.append(
                Job(
                    layer,
                    entry,
                    sample,
                    block,
                    unit,
                    busy,
                    after,
                    share,
                    lag,
                    also,
                    memory,
                    first,
                    memory_unit,
                    entry.pool,
                )
            )
        last = len(self.jobs) - 1
        if len(sizes) > 1:
            self._parts[last] = tuple(range(last + 1 - len(sizes), last + 1))
        return last

    def _place(self, layer: int, stage: int) -> _Place:
        """What all jobs of a stage have in common.

        Raises:
            BadInput: there is no such layer or stage.
        """
        count = len(self.placement.layers)
        if not 0 <= layer < count or not 0 <= stage < len(self.placement.layers[layer].stages):
            raise BadInput(
                f"JobList.add(layer={layer}, stage={stage}): is not a position in Placement.layers ({count}) and "
                "PlacedLayer.stages; count from 0"
            )
        placed = self.placement.layers[layer]
        entry = placed.stages[stage]
        units = unit_name(placed, entry), further_units(self.placement, placed, stage), placed.on_chip(MEMORY)
        total = placed.tokens * self.placement.workload.batch
        return _Place(layer, stage, entry, total, *units, 1 if entry.whole else max(1, entry.pool), {})

    def _all_parts(self, after: tuple[int, ...]) -> tuple[int, ...]:
        """The positions of jobs, with all parts of those that are divided."""
        return tuple(part for each in after for part in self._parts.get(each, (each,)))

    def _part(self, place: _Place, tokens: int, first: int) -> _Part:
        """What the job of `tokens` tokens takes, behind `first` tokens of its sample."""
        stage = place.stage
        key = id(stage), tokens, first
        if key not in self._times:
            self._times[key] = stage.occupancy(tokens, first), stage.time(tokens, first)
        busy, time = self._times[key]
        memory = min(busy, stage.off_chip * tokens) if stage.off_chip else 0.0
        part = place.parts[tokens, first] = _Part(busy, tokens / place.total, time - busy, memory)
        return part

    def set_up(
        self, layer: int, after: tuple[int, ...] = (), *, sample: int = 0, share: float = 1.0
    ) -> tuple[int, ...]:
        """Append the setup of a layer, such as loading its weights.

        Returns:
            Its position; `after` if the layer has no setup.
        """
        placed = self.placement.layers[layer]
        if placed.setup is None:
            return after
        unit = unit_name(placed, placed.setup)
        own, after = placed.on_chip(MEMORY), self._all_parts(after)
        self.jobs.append(Job(layer, placed.setup, sample, 0, unit, placed.setup.time(1), after, share, memory_unit=own))
        return (len(self.jobs) - 1,)


def _even_parts(tokens: int, pool: int) -> tuple[int, ...]:
    """Tokens of a block for each of `pool` equal units, as even as possible; none gets 0."""
    count = min(pool, tokens)
    return tuple(tokens // count + (part < tokens % count) for part in range(count))
