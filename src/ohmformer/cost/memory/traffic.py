"""What the operations of a stage move to and from memories, beside the activations that every product moves.

Weights are read once per pass, for all tokens and samples (for each sample if they run one by one). Keys and values
are read once per pass and sample, and new ones are written. A look-up reads its rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.memory.homes import KV, TABLES, WEIGHTS
from ohmformer.cost.memory.residents import is_digital, kept_whole, kv_in_memory
from ohmformer.cost.operands import LayerContext, kv_tokens_read, operand_bytes
from ohmformer.cost.stage import Stage
from ohmformer.workload.spec import DynamicMatMul, Lookup, StaticMatMul


def stored_bytes(placed: PlacedOp, context: LayerContext) -> float:
    """Bytes of the weights, or of the keys and values of all samples, that a product reads from a memory."""
    op, size = placed.op, operand_bytes(placed.engine, context.hardware)
    if isinstance(op, StaticMatMul):
        return context.weight_uses * op.inputs * op.outputs * size if is_digital(placed.engine) else 0.0
    return op.batch * op.kv_heads * kv_tokens_read(op, placed) * op.head_width * size


def bytes_off_chip(ops: Iterable[LayerOp], context: LayerContext) -> float:
    """Bytes that the operations of a stage move to and from the memory off the chip."""
    homes, total = context.homes, 0.0
    for placed in ops:
        if isinstance(placed, Lookup):
            total += placed.vectors * placed.width * context.bytes_per_value if TABLES in homes.shares else 0.0
        if not isinstance(placed, PlacedOp):
            continue
        op = placed.op
        if isinstance(op, StaticMatMul):
            total += homes.shares.get(WEIGHTS, 0.0) * stored_bytes(placed, context)
        elif KV in homes.shares and kv_in_memory(placed, op, homes.phase):
            new = op.batch * op.kv_heads * op.written * op.head_width
            moved = stored_bytes(placed, context) + new * operand_bytes(placed.engine, context.hardware)
            if not kept_whole(placed, op, homes.phase):
                moved = _digital_bytes(placed, op, context)
            total += homes.shares[KV] * moved
    return total


def _digital_bytes(placed: PlacedOp, op: DynamicMatMul, context: LayerContext) -> float:
    """Bytes of digital tokens that a product reads from and writes to a memory that holds these alone.

    With a recent window, all tokens pass through the memory: they are read once more when cells are written.
    """
    assert placed.conditioning is not None
    first = placed.conditioning.first_tokens
    if placed.conditioning.last_tokens:
        tokens = kv_tokens_read(op, placed) + op.written
    else:
        tokens = 2 * min(op.tokens, first) - min(op.tokens - op.written, first)
    return op.batch * op.kv_heads * tokens * op.head_width * operand_bytes(placed.engine, context.hardware)


def with_memory_off_chip(stage: Stage, ops: Iterable[LayerOp], context: LayerContext) -> Stage:
    """The stage with the energy and time of the memory off the chip; it works at the same time as the engine."""
    memory = context.homes.memory
    size = bytes_off_chip(ops, context) if memory is not None else 0.0
    if memory is None or not size:
        return stage
    per_token = size / memory.bandwidth / context.vectors
    return replace(
        stage.at_least(per_token),
        off_chip=per_token,
        energy=sum_by_name(stage.energy, {"dram": size * memory.energy}),
    )


def tile_memory_time(products: Iterable[PlacedOp], context: LayerContext, tiles: int) -> float:
    """Time in which the memories of tiles read the weights, keys and values of products, per vector [s].

    Args:
        products: products that an engine without cells computes.
        context: the chip.
        tiles: number of tiles through whose memories they pass; 0 if there are none.
    """
    bandwidth = context.chip.buffer_bandwidth
    if bandwidth is None or not tiles:
        return 0.0
    return sum(stored_bytes(placed, context) for placed in products) / (tiles * bandwidth) / context.vectors
