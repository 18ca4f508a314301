"""What the products of a stage move between memories, cores and tiles: inputs, results and partial sums.

A tile sends the results of its arrays or lanes, and partial sums that are added in other tiles. Its memory takes in and
gives out all that its cores read and write. The operands of a stage share the links of their tiles in proportion to
their arrays. Two kinds of keys and values do not load the memories beside the arrays: those of a cache that are written
again, since they pass while cells are written, and those without cells, which pass the memories of the layer's lanes.
"""

from __future__ import annotations

from math import ceil, inf
from typing import NamedTuple

from ohmformer.cost import kv_conditioning
from ohmformer.cost.attention.beside_products import sees
from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, PerQueryCost
from ohmformer.cost.engine_choice import PlacedOp, role_of
from ohmformer.cost.memory.limited_arrays import arrays_at_once
from ohmformer.cost.memory.traffic import stored_bytes
from ohmformer.cost.network.partial_sums import NO_SUMS, PartialSums, partial_sums_of
from ohmformer.cost.operands import LayerContext, block_sums_by_keys, kv_tokens_read, lane_macs
from ohmformer.cost.scaled_array_prices import number
from ohmformer.cost.vector.lanes import lanes_of_engine
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.spec import ArrayEngine, SimdEngine
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul


class Traffic(NamedTuple):
    """Bytes that the products of a stage move.

    Attributes:
        registers: through the registers of cores, for all samples.
        memories: through the memories of tiles and their buses, for all samples.
        network: between tiles, for all samples.
        sent: by a tile to the network, for one token by the keys that it sees; 0 if the stage has no tiles.
        passed: through the memory of a tile, likewise.
        mean_sent: mean of `sent` over all tokens.
        mean_passed: mean of `passed` over all tokens.
        seen: the keys that tokens see; None if they do not matter.
    """

    registers: float = 0.0
    memories: float = 0.0
    network: float = 0.0
    sent: PerQueryCost = PerQueryCost()
    passed: PerQueryCost = PerQueryCost()
    mean_sent: float = 0.0
    mean_passed: float = 0.0
    seen: KeysPerQuery | None = None

    def energy(self, chip: Chip) -> dict[str, float]:
        """Component -> energy [J]."""
        energy = {
            "register": self.registers * number(chip.register_energy),
            "buffer": self.memories * number(chip.buffer_energy),
            "bus": self.memories * number(chip.bus_energy),
            "network": self.network * number(chip.network_energy),
        }
        return {name: value for name, value in energy.items() if value}


def traffic_of(products: list[PlacedOp], context: LayerContext, seen: KeysPerQuery | None) -> Traffic:
    """What the products of a stage move.

    Args:
        products: products on engines of one kind.
        context: number of tokens, size of a value, and the cores and tiles of the chip.
        seen: the keys that tokens see; None if they do not matter.
    """
    registers = memories = network = elsewhere = 0.0
    sent, passed = PerQueryCost(), PerQueryCost()
    for placed in products:
        inputs, results = bytes_moved(placed, context)
        sums = partial_sums_of(placed, context.chip) if isinstance(placed.engine, ArrayEngine) else NO_SUMS
        stays = role_of(placed.op) == "attention.key" and _scores_stay(placed, context.chip)
        over = sums.over_network + (0.0 if stays else results)
        through, cached = inputs + results + sums.through_memories, _cached_bytes(placed, context)
        elsewhere += cached
        registers += inputs + results + sums.through_registers
        memories, network = memories + through, network + over
        scores = role_of(placed.op) == "attention.key" and not stays
        sent += _per_token(placed, context, seen, over, sums, sums.over_network, scores=scores)
        passed += _per_token(placed, context, seen, through - cached, sums, sums.through_memories, scores=True)
    tiles = _tiles(products, context)
    if not tiles:
        return Traffic(registers, memories, network)
    means = network / (context.vectors * tiles), (memories - elsewhere) / (context.vectors * tiles)
    return Traffic(registers, memories, network, sent.times(1 / tiles), passed.times(1 / tiles), *means, seen)


def _scores_stay(placed: PlacedOp, chip: Chip) -> bool:
    """True if scores stay in the tiles of their head: softmax is beside them, not in units that all layers share.

    Lanes that compute scores compute their softmax, too.
    """
    if chip.attention_tiles != "by_head":
        return False
    return isinstance(placed.engine, SimdEngine) or chip.vector.units is None or chip.softmax is not None


def bytes_moved(placed: PlacedOp, context: LayerContext) -> tuple[float, float]:
    """Bytes of inputs, weights, keys and values from memories to cores, and of results to memories, for all samples."""
    size = context.bytes_per_value
    values_in, values_out = values_moved(placed)
    if isinstance(placed.engine, ArrayEngine):
        return values_in * size, values_out * size
    kv = 0 if isinstance(placed.op, StaticMatMul) else _kv_read(placed.op, placed)
    return (values_in - kv) * size + stored_bytes(placed, context), values_out * size


def values_moved(placed: PlacedOp) -> tuple[float, float]:
    """Activations, keys and values read from memories, and results written to them, for all samples."""
    op = placed.op
    if isinstance(op, StaticMatMul):
        return op.vectors * op.inputs, op.vectors * op.outputs
    rows = op.batch * op.heads * op.queries
    scores = op.batch * op.heads * KeysPerQuery.of(op).blocks()
    activations, results = (rows * op.inputs, scores) if op.role == "attention.key" else (scores, rows * op.outputs)
    return activations + _kv_read(op, placed) + kv_conditioning.scales_read(placed), results


def _kv_read(op: DynamicMatMul, placed: PlacedOp) -> int:
    """Number of values of K or V that a product reads from memories, for all samples."""
    return op.batch * op.kv_heads * kv_tokens_read(op, placed) * op.head_width


def _cached_bytes(placed: PlacedOp, context: LayerContext) -> float:
    """Bytes of keys and values that arrays did not get from this pass: written again, or without cells."""
    op, engine = placed.op, placed.engine
    if not isinstance(op, DynamicMatMul) or not isinstance(engine, ArrayEngine) or engine.written == "left":
        return 0.0
    tokens = max(0, kv_tokens_read(op, placed) - op.written)
    return op.batch * op.kv_heads * tokens * op.head_width * context.bytes_per_value


def _per_token(
    placed: PlacedOp,
    context: LayerContext,
    seen: KeysPerQuery | None,
    total: float,
    sums: PartialSums,
    of_sums: float,
    *,
    scores: bool,
) -> PerQueryCost:
    """Bytes of a product for one token, by the keys that it sees.

    Args:
        placed: the product.
        context: number of tokens and size of a value.
        seen: see `traffic_of`.
        total: all bytes, for all samples.
        sums: the partial sums.
        of_sums: those of all bytes that belong to partial sums.
        scores: True if scores, or entries of P, are among the bytes.
    """
    op = placed.op
    if seen is None or not isinstance(op, DynamicMatMul) or not sees(op, seen):
        return PerQueryCost(total / context.vectors)
    varying = PerQueryCost()
    if scores:
        varying += PerQueryCost(0.0, (KeyTerm(op.heads * context.bytes_per_value, 1, inf),))
    if of_sums:
        varying += block_sums_by_keys(placed).times(op.heads * sums.width * of_sums / sums.bytes)
    rest = max(0.0, total - op.batch * varying.total(seen))
    return PerQueryCost(rest / context.vectors) + varying


def _tiles(products: list[PlacedOp], context: LayerContext) -> float:
    """Number of tiles whose links the products have, as a share of a tile if other operands lie in it; 0 without.

    Tokens without cells add the tiles of the layer's lanes, which multiply by them.
    """
    chip, first = context.chip, products[0].engine
    if isinstance(first, SimdEngine):
        count = lanes_of_engine(first, context).number
        return ceil(count / (chip.cores_per_tile * chip.vector.lanes_per_core))
    if not isinstance(first, ArrayEngine):
        return context.homes.tiles
    spills = any(lane_macs(placed) for placed in products)
    extra = context.working_lanes / (chip.cores_per_tile * chip.vector.lanes_per_core) if spills else 0.0
    arrays = arrays_at_once(products, context.filled)
    return arrays / (chip.arrays_per_core * chip.cores_per_tile) + extra
