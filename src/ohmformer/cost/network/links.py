"""How long the links of a stage's tiles take for its bytes: their ports to the network, and their memories.

A tile sends the results of its arrays or lanes, and partial sums that are added in other tiles. Its memory takes in and
gives out all that its cores read and write. The operands of a stage share the links of their tiles in proportion to
their arrays. A stage whose bytes take longer than its work is overloaded (`Chip.overload`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import NamedTuple

from ohmformer.cost.attention.beside_products import sees, timed_by_keys
from ohmformer.cost.attention.seen_keys import KeySum, SeenKeys
from ohmformer.cost.engine_choice import PlacedOp, role_of
from ohmformer.cost.network.moves import Moved
from ohmformer.cost.operands import LayerContext, arrays_of, block_sums_by_keys
from ohmformer.cost.stage import Stage
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.spec import SramEngine
from ohmformer.workload.spec import DynamicMatMul

SAME = 1e-9
"""Difference up to which a load counts as allowed, relative to the limit."""


class Links(NamedTuple):
    """Times for which a token occupies the links of a stage's tiles [s], by the keys that it sees.

    Attributes:
        network: of the ports to the network; 0 if their bandwidth is unknown.
        memory: of the memories of tiles; 0 if their bandwidth is unknown.
        seen: the keys that tokens see; None if they do not matter.
    """

    network: KeySum
    memory: KeySum
    seen: SeenKeys | None = None


NO_LINKS = Links(KeySum(), KeySum())


def links_of(
    products: list[PlacedOp], moved: Iterable[Moved], context: LayerContext, tiles: float, seen: SeenKeys | None = None
) -> Links:
    """The times of the links of a stage.

    Args:
        products: the products of the stage.
        moved: what each of them moves.
        context: the chip.
        tiles: number of tiles among whose links the bytes are spread; 0 if there are none.
        seen: the keys that tokens see; None if they do not matter.
    """
    chip = context.chip
    port, memory = chip.network_bandwidth, chip.buffer_bandwidth
    if not tiles or (port is None and memory is None):
        return NO_LINKS
    sent, passed = KeySum(), KeySum()
    for placed, each in zip(products, moved, strict=True):
        sums = each.sums
        scores = role_of(placed.op) == "attention.key" and each.sent > 0
        sent += _per_token(placed, context, seen, each.sent + sums.over_network, sums.over_network, scores=scores)
        total = each.inputs + each.outputs + sums.through_memories
        passed += _per_token(placed, context, seen, total, sums.through_memories, scores=True)
    return Links(
        sent.times(1 / (tiles * port)) if port else KeySum(),
        passed.times(1 / (tiles * memory)) if memory else KeySum(),
        seen,
    )


def _per_token(
    placed: PlacedOp, context: LayerContext, seen: SeenKeys | None, total: float, sums: float, *, scores: bool
) -> KeySum:
    """Bytes of a product for one token, by the keys that it sees.

    Args:
        placed: the product.
        context: number of tokens and size of a value.
        seen: see `links_of`.
        total: all bytes, for all samples.
        sums: those of them that belong to partial sums.
        scores: True if scores, or entries of P, are among them.
    """
    op = placed.op
    if seen is None or not isinstance(op, DynamicMatMul) or not sees(op, seen):
        return KeySum(total / context.vectors)
    varying = KeySum()
    if scores:
        varying += KeySum(0.0, ((op.heads * context.bytes_per_value, 1, inf),))
    blocks = block_sums_by_keys(placed)
    if sums:
        varying += blocks.times(sums / (op.batch * blocks.total(seen)))
    rest = total - op.batch * varying.total(seen)
    return KeySum(max(0.0, rest) / context.vectors) + varying


def tiles_with_arrays(products: list[PlacedOp], context: LayerContext) -> float:
    """Number of tiles whose links the arrays of products have; a share of a tile if others lie in it, too."""
    chip, arrays = context.chip, 0.0
    for placed in products:
        engine, count = placed.engine, arrays_of(placed)
        if isinstance(placed.op, DynamicMatMul):
            arrays += count
        else:
            most = engine.arrays if isinstance(engine, SramEngine) else None
            arrays += (count if most is None else min(count, most)) / context.filled
    return arrays / (chip.arrays_per_core * chip.cores_per_tile)


def carried(stage: Stage, links: Links, chip: Chip) -> Stage:
    """The stage as its links carry its bytes: slower if they are overloaded, unless the chip only notes it.

    Args:
        stage: the stage with the time of its work.
        links: the times of its links.
        chip: what happens to a stage with overloaded links.

    Raises:
        BadInput: a link is overloaded, and the chip refuses that.
    """
    if links is NO_LINKS or not stage.per_token:
        return stage
    network, memory = (_mean(each, links.seen) / stage.per_token for each in (links.network, links.memory))
    stage = replace(stage, network_load=network, memory_load=memory)
    if chip.overload == "refuse":
        _refuse(stage, chip)
    if chip.overload != "slow":
        return stage
    for link in (links.network, links.memory):
        stage = _at_least(stage, link, links.seen)
    return stage


def _mean(link: KeySum, seen: SeenKeys | None) -> float:
    """The mean time of a token [s]."""
    return link.constant if seen is None or not link.terms else link.total(seen) / seen.queries


def _at_least(stage: Stage, link: KeySum, seen: SeenKeys | None) -> Stage:
    """The stage if every token takes at least the time of a link."""
    if not link.terms:
        return stage.at_least(link.constant)
    parts = stage.by_keys.parts if stage.by_keys is not None else (KeySum(stage.per_token),)
    return timed_by_keys(stage, seen, (*parts, link))


def _refuse(stage: Stage, chip: Chip) -> None:
    """Refuse a stage with an overloaded link.

    Raises:
        BadInput: one line with the load and the limit.
    """
    if stage.network_load > 1 + SAME:
        limit = chip.network_max_load or 0.0
        raise BadInput(
            f"hardware.chip.network_max_load = {limit:g}: a tile sends {stage.network_load * limit:.3g} packets per "
            f"cycle in stage {stage.name}, {stage.network_load:.3g} times as many; take overload = 'slow' or a wider "
            "network"
        )
    if stage.memory_load > 1 + SAME:
        rate = chip.buffer_bandwidth or 0.0
        raise BadInput(
            f"hardware.chip.buffer_bandwidth = {rate / 1e9:.4g} GB/s: stage {stage.name} moves "
            f"{stage.memory_load * rate / 1e9:.4g} GB/s through the memory of a tile; take overload = 'slow' or a "
            "faster memory"
        )
