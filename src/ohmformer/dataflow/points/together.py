"""Which designs pass the block recursion together: those with about as many blocks, as far as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ohmformer.cost.designs.per_design import Disagreement
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.block_recursion import recursive_latencies
from ohmformer.dataflow.blocks.block_times import IntArray
from ohmformer.dataflow.blocks.layer_plan import Plans
from ohmformer.dataflow.spec import Dataflow
from ohmformer.errors import BadInput

Array = npt.NDArray[np.float64]

FEWEST = 3
"""Minimum number of designs that are faster together than one by one."""
MOST_SAMPLES = 64
"""Maximum number of samples with which designs pass together; more of them follow a steady pattern, which is found
design by design."""
MOST_BLOCKS = 4_000_000
"""Maximum number of blocks of all designs and samples that are computed together."""
SIMILAR = 4.0
"""How many times as many blocks one design may have as another that passes with it."""


def latencies_together(
    placement: Placement,
    dataflow: Dataflow,
    sizes: Mapping[int, Sequence[int] | IntArray],
    alone: Callable[[int], float],
    *,
    places: IntArray | None = None,
    speed: Mapping[str, Array] | None = None,
) -> Array:
    """The latencies of D designs by recursion [D] [s].

    Args:
        placement: the workload on the accelerator, or on all those that were priced at once.
        dataflow: one without jobs of its own; its block size is not used.
        sizes: tokens of a layer -> tokens per block of each design [D].
        alone: position of a design -> its latency [s], for those that are too few or too large to pass together, and
            those that are refused.
        places: see `recursive_latencies`.
        speed: see `recursive_latencies`.
    """
    by_tokens = {tokens: np.asarray(each, np.int64) for tokens, each in sizes.items()}
    plans = Plans(placement, dataflow)
    blocks = np.max([-(-tokens // each) for tokens, each in by_tokens.items()], axis=0)
    found = np.full(len(blocks), np.nan)
    for group in _groups(blocks, plans.samples) if plans.samples <= MOST_SAMPLES else ():
        chosen = {tokens: each[group] for tokens, each in by_tokens.items()}
        factors = {name: each[group] for name, each in (speed or {}).items()}
        prices = None if places is None else places[group]
        with suppress(Disagreement, BadInput):
            found[group] = recursive_latencies(plans, chosen, prices, factors)
    for number in np.flatnonzero(np.isnan(found)).tolist():
        found[number] = alone(number)
    return found


def _groups(blocks: IntArray, samples: int) -> Iterator[IntArray]:
    """Positions of designs that pass together, by their numbers of blocks [D]."""
    order = np.argsort(blocks, kind="stable")
    level = np.ceil(np.log(blocks[order]) / np.log(SIMILAR))
    for group in np.split(order, np.flatnonzero(np.diff(level)) + 1):
        step = MOST_BLOCKS // (samples * int(blocks[group[-1]]))
        parts = [group[start : start + step] for start in range(0, len(group), step)] if step else []
        yield from (part for part in parts if len(part) >= FEWEST)
