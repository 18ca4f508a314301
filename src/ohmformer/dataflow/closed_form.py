"""The same pipelines without tasks: max-plus algebra over stages, for one design or for arrays of designs at once.

Symbols: p_i time of a block in stage i, f_i when stage i becomes free, r when the blocks may start. After m equal
blocks stage i becomes free at the longest path that ends there,

    f'_i = max( r + d(0, i),  max_{j <= i} f_j + d(j, i) ),    d(j, i) = sum_{j..i} p + (m - 1) max_{j..i} p,

since a path through stages j..i and m blocks visits every stage once and m - 1 further cells of its slowest stage. A
ragged last block is one more step with m = 1; where attention waits for all blocks, the layer is two such pipelines in
a row, with one of a single block between them where the mean of all tokens is removed; layers follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ohmformer.cost.placement import PlacedLayer, Placement
from ohmformer.dataflow.jobs import cuts_of, unit_name, writer_of
from ohmformer.dataflow.spec import Dataflow
from ohmformer.errors import BadInput

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

NEVER = -np.inf


@dataclass(frozen=True)
class Designs:
    """Design points: tokens of a block for each, and by which factor the times of named stages differ from the spec's.

    Attributes:
        block: [N] whole numbers; a block larger than the sequence is the sequence.
        time: stage name -> [N] factors.
    """

    block: Whole
    time: Mapping[str, Array]


class Timed(Protocol):
    """What a stage says of its time (see `Stage`): numbers, or [N] of them where every design has its own."""

    @property
    def name(self) -> str: ...

    @property
    def fixed(self) -> float | Array: ...

    @property
    def per_token(self) -> float | Array: ...

    @property
    def floor(self) -> float | Array: ...

    @property
    def cap(self) -> float | Array: ...


def latency(placement: Placement, dataflow: Dataflow) -> float:
    """The latency of a workload [s]: what the event engine gives, to rounding.

    Raises:
        BadInput: stages of a layer share a unit across other stages, so that they are no pipeline; or the
            dataflow has tasks of its own.
    """
    longest = max(layer.tokens for layer in placement.layers)
    block = dataflow.size_of_block(longest)
    return float(latencies(placement, dataflow, Designs(np.array([block]), {}))[0])


def latencies(placement: Placement, dataflow: Dataflow, designs: Designs) -> Array:
    """Latencies of design points [s]; of the dataflow only dependencies and batching are used.

    Raises:
        BadInput: as `latency`.
    """
    if not dataflow.has_closed_form:
        raise BadInput(
            f"dataflow {dataflow.kind!r} has tasks of its own, so there is no closed form; use the event engine"
        )
    batch = placement.workload.batch
    alone = batch == 1 or dataflow.batching == "serial"
    for layer, _ in placement.distinct():
        check_pipeline(layer, alone=alone)
    if not alone:
        return _batched(placement, dataflow, designs)
    total = np.zeros(len(designs.block))
    for layer, times in placement.distinct():
        ready = np.full(len(designs.block), layer.setup.time(1) if layer.setup else 0.0)
        total += times * alone_latency(layer.stages, cuts_of(layer, dataflow), layer.tokens, designs, ready)
    return total * batch


def check_pipeline(layer: PlacedLayer, *, alone: bool) -> None:
    """Refuse a layer whose stages are no pipeline; one token `alone` goes through any.

    Raises:
        BadInput: as `latency`.
    """
    if alone and layer.tokens == 1:
        return
    units = [stage.unit for stage in layer.stages]
    for unit in units:
        if units.count(unit) > 1:
            raise BadInput(
                f"{layer.name}: stages that are no neighbours share the unit {unit!r}, so there is no closed form; "
                "use the event engine"
            )


def alone_latency(
    stages: Sequence[Timed], cuts: tuple[int, int], tokens: int | Whole, designs: Designs, ready: Array
) -> Array:
    """When a sample has passed stages whose units are free [s]; tokens and times may differ between designs."""
    free = [np.full(len(ready), NEVER) for _ in stages]
    return _sample(stages, cuts, tokens, designs, free, ready)[-1]


def _sample(
    stages: Sequence[Timed],
    cuts: tuple[int, int],
    tokens: int | Whole,
    designs: Designs,
    free: list[Array],
    ready: Array,
) -> list[Array]:
    """When the stages of a layer become free after one more sample that may start at `ready`."""
    found: list[Array] = []
    bounds, whole = (0, *cuts, len(stages)), Designs(np.zeros_like(designs.block) + tokens, designs.time)
    for part, (first, end) in enumerate(pairwise(bounds)):
        if first < end:
            sizes = whole if part == 1 else designs
            found += _segment(stages[first:end], tokens, sizes, free[first:end], found[-1] if found else ready)
    return found


def _segment(
    stages: Sequence[Timed], tokens: int | Whole, designs: Designs, free: list[Array], ready: Array
) -> list[Array]:
    """All blocks of a sample through consecutive stages."""
    size = np.minimum(designs.block, tokens)
    whole, rest = np.divmod(tokens, size)
    free = advance(free, ready, _times(stages, size, designs), whole)
    if not rest.any():
        return free
    ragged = advance(free, ready, _times(stages, np.maximum(rest, 1), designs), np.ones_like(whole))
    return [np.where(rest > 0, after, before) for after, before in zip(ragged, free, strict=True)]


def _times(stages: Sequence[Timed], size: Whole, designs: Designs) -> list[Array]:
    found = []
    for stage in stages:
        time = np.maximum(stage.floor, stage.fixed + stage.per_token * np.minimum(size, stage.cap))
        found.append(time * designs.time[stage.name] if stage.name in designs.time else time)
    return found


def advance(free: list[Array], ready: Array, times: list[Array], count: Whole) -> list[Array]:
    """When stages become free after `count` equal blocks that may start at `ready` (see the top of this file)."""
    found = []
    more = count - 1
    for last in range(len(times)):
        best, path, slowest = np.full_like(ready, NEVER), np.zeros_like(ready), np.zeros_like(ready)
        for first in range(last, -1, -1):
            path, slowest = path + times[first], np.maximum(slowest, times[first])
            start = np.maximum(free[first], ready) if first == 0 else free[first]
            best = np.maximum(best, start + path + more * slowest)
        found.append(best)
    return found


def _batched(placement: Placement, dataflow: Dataflow, designs: Designs) -> Array:
    """Samples follow one another layer by layer; units that layers share keep the time at which they become free."""
    batch, count = placement.workload.batch, len(designs.block)
    done = [np.zeros(count) for _ in range(batch)]
    free: dict[str, Array] = {}
    for layer in placement.layers:
        units = [unit_name(layer, stage) for stage in layer.stages]
        loaded = np.full(count, NEVER)
        if layer.setup is not None:
            unit = unit_name(layer, layer.setup)
            loaded = np.maximum(done[0], free.get(unit, done[0])) + layer.setup.time(1)
            free[unit] = loaded
        for sample in range(batch):
            ready = np.maximum(done[sample], loaded) if sample == 0 else done[sample]
            state = [free.get(unit, np.full(count, NEVER)) for unit in units]
            state = _after_readers(layer, units, free, state)
            after = _sample(layer.stages, cuts_of(layer, dataflow), layer.tokens, designs, state, ready)
            free.update(zip(units, after, strict=True))
            done[sample] = free[units[-1]]
    return np.asarray(np.maximum.reduce(done))


def _after_readers(layer: PlacedLayer, units: list[str], free: dict[str, Array], state: list[Array]) -> list[Array]:
    """Cells are written again only after they have been read for the sample before."""
    found = list(state)
    for index, unit in enumerate(units):
        writer = writer_of(layer.stages, index)
        if writer is not None and unit in free:
            found[writer] = np.maximum(found[writer], free[unit])
    return found
