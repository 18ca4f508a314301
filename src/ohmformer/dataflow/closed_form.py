"""The latency of pipelined layers in closed form: max-plus algebra over stages, for one or many designs at once.

It gives the latency of the event engine, up to rounding, without building jobs. Symbols: p_i, time of a block in
stage i; f_i, time at which stage i becomes free; r, time at which the blocks may start. After m equal blocks, stage i
becomes free at the end of the longest path that ends there,

    f'_i = max( r + d(0, i),  max_{j <= i} f_j + d(j, i) ),    d(j, i) = sum_{j..i} p + (m - 1) max_{j..i} p,

since a path through stages j..i and m blocks visits every stage once, and its slowest stage m - 1 more times. A smaller
last block is one more application with m = 1. If attention waits for all blocks, the layer is two such pipelines in
series; if the mean of all tokens is removed, a third one with a single block stands between them. Layers follow one
another. Background: Baccelli, Cohen, Olsder, Quadrat, "Synchronization and Linearity", Wiley 1992.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ohmformer.cost.placement import PlacedLayer, Placement
from ohmformer.dataflow.layer_cuts import cuts_of, unit_name, writer_of
from ohmformer.dataflow.overlap_form import overlap_latency
from ohmformer.dataflow.spec import Dataflow
from ohmformer.errors import BadInput

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NEVER = -np.inf
"""The time at which a unit that has not been used became free."""


@dataclass(frozen=True)
class Designs:
    """N design points that differ in block size and in the speed of stages.

    Attributes:
        block: [N], tokens per block; a block larger than the sequence is the sequence.
        time: stage name -> [N], factors by which the times of this stage are multiplied.
    """

    block: IntArray
    time: Mapping[str, Array]


class Timed(Protocol):
    """The fields of `Stage` that decide its time: numbers, or arrays [N] with a value per design."""

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
    """The latency of a workload [s]; it equals that of the event engine up to rounding.

    Raises:
        BadInput: two stages of a layer that do not follow one another share a unit, so the layer is not a pipeline; or
            the dataflow defines its own jobs.
    """
    if dataflow.overlaps() and dataflow.has_closed_form:
        return overlap_latency(placement, dataflow)
    longest = max(layer.tokens for layer in placement.layers)
    block = dataflow.size_of_block(longest)
    return float(latencies(placement, dataflow, Designs(np.array([block]), {}))[0])


def latencies(placement: Placement, dataflow: Dataflow, designs: Designs) -> Array:
    """The latencies of N design points.

    Args:
        placement: the workload on the accelerator.
        dataflow: only its dependencies and its batching are used; block sizes are those of `designs`.
        designs: the design points.

    Returns:
        [N], latencies of all samples [s].

    Raises:
        BadInput: as `latency`.
    """
    if not dataflow.has_closed_form:
        raise BadInput(
            f"dataflow {dataflow.kind!r} defines its own jobs, so there is no closed form; use the event engine"
        )
    if dataflow.overlaps():
        return _overlapped(placement, dataflow, designs)
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


def _overlapped(placement: Placement, dataflow: Dataflow, designs: Designs) -> Array:
    """Latencies [N] of a dataflow that overlaps layers."""
    found = []
    for number, block in enumerate(designs.block):
        speed = {name: float(factors[number]) for name, factors in designs.time.items()}
        found.append(overlap_latency(placement, dataflow, speed, block=int(block)))
    return np.array(found)


def check_pipeline(layer: PlacedLayer, *, alone: bool) -> None:
    """Refuse a layer whose stages are not a pipeline. A single token that runs `alone` may pass through any layer.

    Raises:
        BadInput: as `latency`.
    """
    if alone and layer.tokens == 1:
        return
    units = [stage.unit for stage in layer.stages]
    for unit in units:
        if units.count(unit) > 1:
            raise BadInput(
                f"{layer.name}: stages that are not neighbors share the unit {unit!r}, so there is no closed form; "
                "use the event engine"
            )


def alone_latency(
    stages: Sequence[Timed], cuts: tuple[int, int], tokens: int | IntArray, designs: Designs, ready: Array
) -> Array:
    """The time at which a sample leaves the last of some stages whose units are all free.

    Args:
        stages: S stages.
        cuts: see `cuts_of`.
        tokens: tokens of the sample: one number, or [N].
        designs: N design points.
        ready: [N], times at which the sample may start [s].

    Returns:
        [N], times [s].
    """
    free = [np.full(len(ready), NEVER) for _ in stages]
    return _sample(stages, cuts, tokens, designs, free, ready)[-1]


def _sample(
    stages: Sequence[Timed],
    cuts: tuple[int, int],
    tokens: int | IntArray,
    designs: Designs,
    free: list[Array],
    ready: Array,
) -> list[Array]:
    """The times at which the S stages of a layer become free after one more sample that may start at `ready`."""
    free_after: list[Array] = []
    bounds, whole = (0, *cuts, len(stages)), Designs(np.zeros_like(designs.block) + tokens, designs.time)
    for part, (first, end) in enumerate(pairwise(bounds)):
        if first < end:
            sizes = whole if part == 1 else designs
            start = free_after[-1] if free_after else ready
            free_after += _segment(stages[first:end], tokens, sizes, free[first:end], start)
    return free_after


def _segment(
    stages: Sequence[Timed], tokens: int | IntArray, designs: Designs, free: list[Array], ready: Array
) -> list[Array]:
    """The times at which consecutive stages become free after all blocks of a sample."""
    size = np.minimum(designs.block, tokens)
    whole, rest = np.divmod(tokens, size)
    free = advance(free, ready, _times(stages, size, designs), whole)
    if not rest.any():
        return free
    ragged = advance(free, ready, _times(stages, np.maximum(rest, 1), designs), np.ones_like(whole))
    return [np.where(rest > 0, after, before) for after, before in zip(ragged, free, strict=True)]


def _times(stages: Sequence[Timed], size: IntArray, designs: Designs) -> list[Array]:
    """The times of a block of `size` tokens [N] in each stage [s]."""
    times = []
    for stage in stages:
        time = np.maximum(stage.floor, stage.fixed + stage.per_token * np.minimum(size, stage.cap))
        times.append(time * designs.time[stage.name] if stage.name in designs.time else time)
    return times


def advance(free: list[Array], ready: Array, times: list[Array], count: IntArray) -> list[Array]:
    """The times f' at which stages become free after `count` equal blocks (see the top of this file).

    Args:
        free: f, [N] for each stage [s].
        ready: r, [N] [s].
        times: p, [N] for each stage [s].
        count: m, [N].
    """
    free_after = []
    more = count - 1
    for last in range(len(times)):
        best, path, slowest = np.full_like(ready, NEVER), np.zeros_like(ready), np.zeros_like(ready)
        for first in range(last, -1, -1):
            path, slowest = path + times[first], np.maximum(slowest, times[first])
            start = np.maximum(free[first], ready) if first == 0 else free[first]
            best = np.maximum(best, start + path + more * slowest)
        free_after.append(best)
    return free_after


def _batched(placement: Placement, dataflow: Dataflow, designs: Designs) -> Array:
    """Latencies [N] of a batch whose samples follow one another layer by layer.

    A unit that layers share stays busy from one layer to the next.
    """
    batch, count = placement.workload.batch, len(designs.block)
    left = [np.zeros(count) for _ in range(batch)]  # when each sample left the previous layer
    free: dict[str, Array] = {}
    for layer in placement.layers:
        units = [unit_name(layer, stage) for stage in layer.stages]
        loaded = np.full(count, NEVER)
        if layer.setup is not None:
            unit = unit_name(layer, layer.setup)
            loaded = np.maximum(left[0], free.get(unit, left[0])) + layer.setup.time(1)
            free[unit] = loaded
        for sample in range(batch):
            ready = np.maximum(left[sample], loaded) if sample == 0 else left[sample]
            state = [free.get(unit, np.full(count, NEVER)) for unit in units]
            state = _after_readers(layer, units, free, state)
            after = _sample(layer.stages, cuts_of(layer, dataflow), layer.tokens, designs, state, ready)
            free.update(zip(units, after, strict=True))
            left[sample] = free[units[-1]]
    return np.asarray(np.maximum.reduce(left))


def _after_readers(layer: PlacedLayer, units: list[str], free: dict[str, Array], state: list[Array]) -> list[Array]:
    """Delay write stages: cells are overwritten only after the previous sample's values in them have been read."""
    delayed = list(state)
    for index, unit in enumerate(units):
        writer = writer_of(layer.stages, index)
        if writer is not None and unit in free:
            delayed[writer] = np.maximum(delayed[writer], free[unit])
    return delayed
