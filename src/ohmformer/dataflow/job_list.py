"""`JobList`: builds the jobs of a dataflow one by one, with units, times and shares of energy filled in."""

from __future__ import annotations

from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import MEMORY
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.layer_cuts import further_units, unit_name
from ohmformer.errors import BadInput


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
        count = len(self.placement.layers)
        if not 0 <= layer < count or not 0 <= stage < len(self.placement.layers[layer].stages):
            raise BadInput(
                f"JobList.add(layer={layer}, stage={stage}): is not a position in Placement.layers ({count}) and "
                "PlacedLayer.stages; count from 0"
            )
        pool = self.placement.layers[layer].stages[stage].pool
        after = self._all_parts(after)
        if pool < 2 or tokens == 1:
            return self._append(layer, stage, tokens, after, sample, block)
        count = min(pool, tokens)
        sizes = (tokens // count + (part < tokens % count) for part in range(count))
        parts = tuple(self._append(layer, stage, size, after, sample, block) for size in sizes)
        self._parts[parts[-1]] = parts
        return parts[-1]

    def _all_parts(self, after: tuple[int, ...]) -> tuple[int, ...]:
        """The positions of jobs, with all parts of those that are divided."""
        if self._parts.keys().isdisjoint(after):
            return after
        return tuple(part for each in after for part in self._parts.get(each, (each,)))

    def _append(self, layer: int, stage: int, tokens: int, after: tuple[int, ...], sample: int, block: int) -> int:
        """Append one job; see `add`."""
        placed = self.placement.layers[layer]
        entry = placed.stages[stage]
        first = 0
        if entry.by_keys is not None:  # later tokens of a sample see more keys
            first = self._tokens.get((layer, stage, sample), 0)
            self._tokens[layer, stage, sample] = first + tokens
        key = id(entry), tokens, first
        if key not in self._times:
            self._times[key] = entry.occupancy(tokens, first), entry.time(tokens, first)
        busy, time = self._times[key]
        share = tokens / (placed.tokens * self.placement.workload.batch)
        memory = min(busy, entry.off_chip * tokens) if entry.off_chip else 0.0
        also = further_units(self.placement, placed, stage)
        unit = unit_name(placed, entry)
        own = placed.on_chip(MEMORY)
        self.jobs.append(
            Job(
                layer, entry, sample, block, unit, busy, after, share, time - busy, also, memory, first, own, entry.pool
            )
        )
        return len(self.jobs) - 1

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
