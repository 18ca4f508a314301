"""The latency of dataflows in blocks in closed form: max-plus algebra, for one or many designs at once.

It gives the latency of the event engine, up to rounding, without building jobs. Samples that run one by one through
layers that do not overlap take the closed form below, if the stages of each layer have a unit each, and equal blocks
take equal times. All others take the recursion of `block_recursion.py`.

Symbols: p_i, time for which a block occupies stage i; t_i >= p_i, time until its result arrives; f_i, time at which
stage i becomes free; r, time at which the blocks may start. After m equal blocks, the last result of stage i arrives at
the end of the longest path that ends there,

    a_i = max( r + d(0, i),  max_{j <= i} f_j + d(j, i) ),    d(j, i) = sum_{j..i} t + (m - 1) max_{j..i} p,

since a path through stages j..i and m blocks visits every stage once, and its slowest stage m - 1 more times. Stage i
becomes free at a_i - (t_i - p_i). A smaller last block is one more application with m = 1. If a stage waits for all
blocks, the layer is two such pipelines in series; if the mean of all tokens is removed, a third one with a single block
stands between them. Layers follow one another. Background: Baccelli, Cohen, Olsder, Quadrat, "Synchronization and
Linearity", Wiley 1992.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.block_recursion import recursive_latency
from ohmformer.dataflow.blocks.block_times import Timed, times_of_block
from ohmformer.dataflow.jobs import check_size, waits_in_pools
from ohmformer.dataflow.layer_cuts import Segment, further_units, segments
from ohmformer.dataflow.points.together import latencies_together
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline
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


def latency(placement: Placement, dataflow: Dataflow) -> float:
    """The latency of a workload [s]; it equals that of the event engine up to rounding.

    The event engine itself gives it where tokens wait for equal units first come, first served.

    Raises:
        BadInput: the dataflow defines its own jobs, or there are too many blocks to compute.
    """
    if waits_in_pools(placement, dataflow):
        check_size(placement, dataflow)
        return build_timeline(placement, dataflow).latency
    longest = max(layer.tokens for layer in placement.layers)
    designs = Designs(np.array([dataflow.size_of_block(longest)]), {})
    if dataflow.has_closed_form and not _has_formula(placement, dataflow, dataflow.size_of_block(longest)):
        return float(with_refresh(placement, np.array(recursive_latency(placement, dataflow))))
    return float(latencies(placement, dataflow, designs)[0])


def latencies(placement: Placement, dataflow: Dataflow, designs: Designs) -> Array:
    """The latencies of N design points.

    Args:
        placement: the workload on the accelerator.
        dataflow: its block size is not used; block sizes are those of `designs`.
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
    if waits_in_pools(placement, dataflow):
        raise BadInput(
            "hardware: units that layers share (chip.vector.units, or units of an engine) take tokens first come, "
            "first served, so there is no closed form; take of.simulate or of.explore"
        )
    if not _has_formula(placement, dataflow, int(designs.block.min())):
        return with_refresh(placement, _by_recursion(placement, dataflow, designs))
    total = np.zeros(len(designs.block))
    for layer, times in placement.distinct():
        ready = np.full(len(designs.block), layer.setup.time(1) if layer.setup else 0.0)
        total += times * alone_latency(layer.stages, segments(layer, dataflow), layer.tokens, designs, ready)
    return with_refresh(placement, total * placement.workload.batch)


def with_refresh(placement: Placement, work: Array) -> Array:
    """Latencies with the refreshes of K and V, from the times of computing [s]."""
    if placement.refresh is None:
        return work
    found: Array = np.vectorize(placement.refresh.latency, otypes=[float])(work)
    return found


def runs_one_by_one(placement: Placement, dataflow: Dataflow) -> bool:
    """True if a sample starts a layer when no other sample runs and all blocks have left the layer before."""
    return not dataflow.decides("overlaps") and (placement.workload.batch == 1 or dataflow.batching == "serial")


def is_pipeline(placement: Placement, layer: PlacedLayer) -> bool:
    """True if each stage of a layer has units that no other stage of the layer uses, or one token passes alone."""
    if layer.tokens == 1:
        return True
    units = [stage.unit for stage in layer.stages]
    further = [unit for place in range(len(units)) for unit in further_units(placement, layer, place)]
    return len(set(units)) == len(units) and len(set(further)) == len(further)


def has_equal_blocks(layer: PlacedLayer, block: int) -> bool:
    """True if equal blocks of a layer take equal times, or one block holds all its tokens."""
    return block >= layer.tokens or all(stage.by_keys is None for stage in layer.stages)


def _has_formula(placement: Placement, dataflow: Dataflow, block: int) -> bool:
    """True if the formula at the top of this file gives the latency for blocks of `block` tokens and more."""
    return runs_one_by_one(placement, dataflow) and all(
        is_pipeline(placement, layer) and has_equal_blocks(layer, block) for layer, _ in placement.distinct()
    )


def _by_recursion(placement: Placement, dataflow: Dataflow, designs: Designs) -> Array:
    """Latencies [N] from the recursion."""

    def alone(number: int) -> float:
        speed = {name: float(factors[number]) for name, factors in designs.time.items()}
        return recursive_latency(placement, dataflow, speed, {each: int(sizes[each][number]) for each in sizes})

    sizes = {layer.tokens: np.minimum(designs.block, layer.tokens) for layer in placement.layers}
    return latencies_together(placement, dataflow, sizes, alone, speed=designs.time)


def alone_latency(
    stages: Sequence[Timed],
    parts: tuple[Segment, ...],
    tokens: int | IntArray,
    designs: Designs,
    ready: Array,
) -> Array:
    """The time at which the last result of a layer arrives whose units are all free.

    Args:
        stages: S stages.
        parts: see `segments`.
        tokens: tokens of the sample: one number, or [N].
        designs: N design points.
        ready: [N], times at which the sample may start [s].

    Returns:
        [N], times [s].
    """
    whole = Designs(np.zeros_like(designs.block) + tokens, designs.time)
    for first, end, at_once in parts:
        ready = _segment(stages[first:end], tokens, whole if at_once else designs, ready)
    return ready


def _segment(stages: Sequence[Timed], tokens: int | IntArray, designs: Designs, ready: Array) -> Array:
    """The times [N] at which the last results of consecutive stages arrive."""
    size = np.minimum(designs.block, tokens)
    whole, rest = np.divmod(tokens, size)
    never = [np.full(len(ready), NEVER) for _ in stages]
    free, arrived = advance(never, ready, _times(stages, size, designs), whole)
    if not rest.any():
        return arrived
    _, ragged = advance(free, ready, _times(stages, np.maximum(rest, 1), designs), np.ones_like(whole))
    return np.asarray(np.where(rest > 0, ragged, arrived))


def _times(stages: Sequence[Timed], size: IntArray, designs: Designs) -> list[tuple[Array, Array]]:
    """For each stage, the times for which a block of `size` tokens [N] occupies it and until it has arrived [s]."""
    times = []
    for stage in stages:
        busy, time = times_of_block(stage, size)
        factor = designs.time.get(stage.name, 1.0)
        times.append((busy * factor, time * factor))
    return times


def advance(
    free: list[Array], ready: Array, times: list[tuple[Array, Array]], count: IntArray
) -> tuple[list[Array], Array]:
    """The state of consecutive stages after `count` equal blocks (see the top of this file).

    Args:
        free: f, [N] for each stage [s].
        ready: r, [N] [s].
        times: p and t, [N] for each stage [s].
        count: m, [N].

    Returns:
        f after the blocks, [N] for each stage, and the arrival of the last result [N] [s].
    """
    free_after: list[Array] = []
    more, arrived = count - 1, ready
    for last, (last_busy, last_time) in enumerate(times):
        arrived, path, slowest = np.full_like(ready, NEVER), np.zeros_like(ready), np.zeros_like(ready)
        for first in range(last, -1, -1):
            busy, time = times[first]
            path, slowest = path + time, np.maximum(slowest, busy)
            start = np.maximum(free[first], ready) if first == 0 else free[first]
            arrived = np.maximum(arrived, start + path + more * slowest)
        free_after.append(arrived - (last_time - last_busy))
    return free_after, arrived
