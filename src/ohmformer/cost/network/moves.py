"""What a product moves between memories, cores and tiles: its inputs, its results and its partial sums."""

from __future__ import annotations

from typing import NamedTuple

from ohmformer.cost import kv_conditioning
from ohmformer.cost.array_prices import number
from ohmformer.cost.attention.seen_keys import SeenKeys
from ohmformer.cost.cost import Cost, add_energy
from ohmformer.cost.engine_choice import PlacedOp, role_of
from ohmformer.cost.memory.traffic import stored_bytes
from ohmformer.cost.network.partial_sums import NO_SUMS, PartialSums, partial_sums_of
from ohmformer.cost.network.transfer import transfer_cost
from ohmformer.cost.operands import LayerContext, kv_tokens_read
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul


class Moved(NamedTuple):
    """Bytes that a product moves, for all samples.

    Attributes:
        inputs: from memories of tiles to cores: activations, and weights, keys and values that are not in cells.
        outputs: results, to the memories of tiles.
        sent: those of the results that go on to other tiles.
        sums: partial sums of row blocks.
    """

    inputs: float
    outputs: float
    sent: float
    sums: PartialSums = NO_SUMS

    def cost(self, chip: Chip) -> Cost:
        """Energy, and the latency of the network."""
        moved, sums = transfer_cost(chip, self.inputs, self.outputs, self.sent), self.sums
        if not sums.bytes:
            return moved
        energy = {
            "register": sums.through_registers * number(chip.register_energy),
            "buffer": sums.through_memories * number(chip.buffer_energy),
            "bus": sums.through_memories * number(chip.bus_energy),
            "network": sums.over_network * number(chip.network_energy),
        }
        added = {name: value for name, value in energy.items() if value}
        return Cost(add_energy(moved.energy, added), moved.latency)


def moved_by(placed: PlacedOp, context: LayerContext) -> Moved:
    """What a product moves."""
    size = context.bytes_per_value
    values_in, values_out = values_moved(placed)
    out = values_out * size
    sent = 0.0 if role_of(placed.op) == "attention.key" and context.chip.attention_tiles == "by_head" else out
    if isinstance(placed.engine, ArrayEngine):
        return Moved(values_in * size, out, sent, partial_sums_of(placed, context.chip))
    kv = 0 if isinstance(placed.op, StaticMatMul) else _kv_read(placed.op, placed)
    return Moved((values_in - kv) * size + stored_bytes(placed, context), out, sent)


def values_moved(placed: PlacedOp) -> tuple[float, float]:
    """Activations, keys and values read from memories, and results written to them, for all samples."""
    op = placed.op
    if isinstance(op, StaticMatMul):
        return op.vectors * op.inputs, op.vectors * op.outputs
    rows = op.batch * op.heads * op.queries
    scores = op.batch * op.heads * SeenKeys.of(op).blocks()
    activations, results = (rows * op.inputs, scores) if op.role == "attention.key" else (scores, rows * op.outputs)
    return activations + _kv_read(op, placed) + kv_conditioning.scales_read(placed), results


def _kv_read(op: DynamicMatMul, placed: PlacedOp) -> int:
    """Number of values of K or V that a product reads from memories, for all samples."""
    return op.batch * op.kv_heads * kv_tokens_read(op, placed) * op.head_width
