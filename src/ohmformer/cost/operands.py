"""Operands on arrays: which factor of a product cells hold, how it is read, and what writing it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, inf
from typing import Literal

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.cost.attention.partial_reads import PartialReads, key_read_times, partial_reads, query_read_time
from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, KeyTimes, PerQueryCost
from ohmformer.cost.attention.token_places import (
    slots_of,
    tokens_in_cells,
    tokens_read_digitally,
    tokens_spilled,
    tokens_written,
)
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.technology import at_technology
from ohmformer.cost.vector.units import unit_owners
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.spec import Accelerator, ArrayEngine, Engine, ExactEngine, GpuEngine
from ohmformer.mapping.planning import Plan, plan
from ohmformer.mitigation import rotation_ops
from ohmformer.workload.spec import DynamicMatMul, Op, StaticMatMul


@dataclass(frozen=True)
class LayerContext:
    """The hardware and the sizes that price the operations of a layer.

    Attributes:
        hardware: the accelerator, with its prices.
        batch: number of samples.
        tokens: tokens per sample.
        lanes: vector lanes in the tiles that hold the layer, 0 if no tile does; or those of a unit, if all layers share
            vector units.
        homes: what lives in which memory.
        weight_uses: how often weights that no cell holds are read: once for all samples, or once for each.
        filled: number of arrays that hold weights of the layer, over the number of arrays in the same tiles.
        moving: True if other values are off the chip in each pass, as the cache grows. A stage is then priced without
            the memory off the chip first, and this price is kept for all passes; the memory is added in each pass.
        sharing: number of chips that share the layer, each of which does what its operations say.
        turns: what shares arrays whose number is limited, one after the other: `stages` if the weights of this layer
            alone need more arrays than there are, `layers` if those of two layers do, "" if nothing takes turns.
    """

    hardware: Accelerator
    batch: int
    tokens: int
    lanes: int
    homes: Homes = field(default_factory=Homes)
    weight_uses: int = 1
    filled: float = 1.0
    moving: bool = False
    sharing: int = 1
    turns: Literal["", "layers", "stages"] = ""

    @property
    def vectors(self) -> int:
        """Tokens of all samples."""
        return self.batch * self.tokens

    @property
    def working_lanes(self) -> int:
        """Vector lanes of the layer; those of one tile if no tile holds it."""
        return self.lanes or self.chip.cores_per_tile * self.chip.vector.lanes_per_core

    @property
    def bytes_per_value(self) -> float:
        """Bytes per value that is moved to and from memories."""
        return self.hardware.value_bytes

    @property
    def gpu_attention(self) -> bool:
        """True if Q K^T and P V both run on a GPU, so that one kernel may compute them."""
        attention = self.hardware.attention
        return isinstance(attention.key, GpuEngine) and isinstance(attention.value, GpuEngine)

    @cached_property
    def sizes(self) -> tuple[object, ...]:
        """All that decides what the products of a layer move, apart from the products and their engines."""
        chip = self.chip
        places = (chip.arrays_per_core, chip.cores_per_tile, chip.vector.lanes_per_core, self.lanes, self.filled)
        counts = (self.batch, self.tokens, self.weight_uses, self.bytes_per_value, self.homes.tiles)
        scores = chip.attention_tiles, chip.softmax is None
        return (*places, *counts, chip.partial_sum_bits, *scores, chip.vector.units)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """All that decides the prices of a layer, apart from its operations and their engines; objects by identity."""
        hardware = self.hardware
        gpu = hardware.projection if isinstance(hardware.projection, GpuEngine) else None
        owners = (id(hardware.chip), self.bytes_per_value, id(gpu), self.gpu_attention, id(hardware.system))
        units = unit_owners(hardware)
        sizes = self.batch, self.tokens, self.lanes, self.weight_uses, self.filled, self.sharing, self.turns
        return (*owners, *units, *sizes, self.homes.key)

    @cached_property
    def without_memory(self) -> LayerContext:
        """The same layer if nothing is off the chip."""
        return replace(self, homes=Homes(tiles=self.homes.tiles), moving=False)

    @cached_property
    def chip(self) -> Chip:
        """The chip around the arrays, see `chip_of`.

        Raises:
            BadInput: the accelerator describes none.
        """
        return chip_of(self.hardware)


def chip_of(hardware: Accelerator) -> Chip:
    """The chip around the arrays of an accelerator, with prices at its technology.

    Raises:
        BadInput: the accelerator describes none.
    """
    if hardware.chip is None:
        raise BadInput(
            f"hardware.chip: is missing for {hardware.title or 'this accelerator'!r}, so its time and energy are "
            "unknown; add the table, or take an accelerator that has one"
        )
    return at_technology(hardware.chip)


@dataclass(frozen=True)
class ArrayReads:
    """How a product reads arrays.

    Attributes:
        matrices: the matrices of one sample, or the weights.
        vectors: input vectors that each matrix multiplies, over all samples.
        sequential_vectors: input vectors that arrays multiply one after another, over all samples. It exceeds
            `vectors` if tokens take several passes through fewer cells.
        partial: events of all vectors, if causal vectors use parts of the matrices; None otherwise.
    """

    matrices: Plan
    vectors: int
    sequential_vectors: float
    partial: PartialReads | None = None

    @property
    def counts(self) -> Counts:
        """Events of all vectors."""
        return self.matrices.reads(self.vectors) if self.partial is None else self.partial.counts


def array_reads(placed: PlacedOp) -> ArrayReads:
    """The matrices and input vectors of a product; for two activations, the engine decides which one is stored."""
    op, engine = placed.op, placed.engine
    assert isinstance(engine, ArrayEngine)
    if isinstance(op, StaticMatMul):
        return ArrayReads(plan(op.outputs, op.inputs, placed.array), op.vectors, op.vectors)
    matrices = array_matrices(placed)
    left, digital = engine.written == "left", placed.digital
    tokens = op.queries if left else tokens_in_cells(op, engine, digital)
    seen, slots = KeysPerQuery.of(op).beyond(digital), slots_of(op, engine, digital)
    partial = partial_reads(op, matrices, seen, inf if left else tokens, left=left) if seen.step else None
    if left:
        vectors = op.batch * op.outputs
        return ArrayReads(matrices, vectors, vectors * ceil(tokens / slots), partial)
    passes = op.batch * op.group * seen.blocks(slots, tokens)
    return ArrayReads(matrices, op.batch * op.queries * op.group if tokens else 0, passes, partial)


def array_matrices(placed: PlacedOp) -> Plan:
    """The matrices of one sample that arrays multiply by, or the weights, as if all tokens had cells at once."""
    op, engine = placed.op, placed.engine
    assert isinstance(engine, ArrayEngine)
    if isinstance(op, StaticMatMul):
        return plan(op.outputs, op.inputs, placed.array)
    left = engine.written == "left"
    tokens = op.queries if left else max(1, tokens_in_cells(op, engine, placed.digital))
    key = op.role == "attention.key"
    sizes = (tokens, op.inputs) if left else (tokens, op.head_width) if key else (op.head_width, tokens)
    return plan(*sizes, placed.array, matrices=op.heads if left else op.kv_heads, max_code=placed.max_code)


def arrays_of(placed: PlacedOp) -> int:
    """Number of arrays that hold an operand of a product; 0 if no arrays compute it."""
    op, engine = placed.op, placed.engine
    if not isinstance(engine, ArrayEngine):
        return 0
    if isinstance(op, StaticMatMul):
        return array_matrices(placed).arrays
    cells = written_plan(op, engine, placed.array, placed.max_code, slots_of(op, engine, placed.digital))
    return 0 if cells is None else cells.arrays


def time_of_reads(placed: PlacedOp, reads: ArrayReads, interval: float) -> tuple[float, tuple[PerQueryCost, ...]]:
    """Time in which arrays multiply all input vectors of a product, one after another [s].

    Args:
        placed: the product.
        reads: its matrices and vectors.
        interval: time of one vector, if all columns of an array are in use [s].

    Returns:
        The time of all samples, and for a causal product on stored K or V the time of one token by the keys that it
        sees: parts, the slowest of which counts.
    """
    op, engine = placed.op, placed.engine
    if not isinstance(op, DynamicMatMul) or not isinstance(engine, ArrayEngine):
        return interval * reads.sequential_vectors, ()
    digital, key = placed.digital, op.role == "attention.key"
    array, slots = placed.array, slots_of(op, engine, digital)
    if reads.partial is not None and engine.written == "left" and key:
        return op.batch * query_read_time(array, placed.role, slots, KeysPerQuery.of(op)), ()
    if reads.partial is None or engine.written == "left":
        columns = min(reads.matrices.outputs, slots) if key else array.columns
        if op.causal and columns < min(array.adc.columns_per_adc, array.columns):
            interval = largest(*(part.of(columns) for part in key_read_times(array, placed.role, columns)))
        return interval * reads.sequential_vectors, ()
    cells = tokens_in_cells(op, engine, digital)
    if key:
        one_head = key_read_times(array, placed.role, slots, cells)
    else:
        turns = cells > slots or digital
        one_head = (PerQueryCost(0.0, (KeyTerm(interval, slots, cells),)) if turns else PerQueryCost(interval),)
    parts = tuple(part.beyond(digital).times(op.group) for part in one_head)
    return op.batch * KeyTimes(KeysPerQuery.of(op), parts).total, parts


def lane_macs(placed: PlacedOp) -> int:
    """Multiply-accumulate operations of vector lanes for tokens that are digital or have no cells."""
    op = placed.op
    if isinstance(op, StaticMatMul):
        return 0
    return int(op.batch * op.heads * lane_macs_by_keys(placed).total(KeysPerQuery.of(op)))


def kv_tokens_read(op: DynamicMatMul, placed: PlacedOp) -> int:
    """Tokens per sample whose K or V is read from memory: those that are written, and those that cells do not hold."""
    engine, digital = placed.engine, placed.digital
    if isinstance(engine, ArrayEngine) and engine.written == "right":
        written = tokens_written(op, engine, digital, shared=placed.shared)
        return written + tokens_spilled(op, engine, digital) + tokens_read_digitally(op, placed.conditioning)
    return op.tokens


def operand_bytes(engine: Engine, hardware: Accelerator) -> float:
    """Size of one weight, key or value in a memory [byte]."""
    bits = engine.checked_bits() if isinstance(engine, ExactEngine) else None
    return hardware.value_bytes if bits is None else bits / 8


def written_plan(
    op: DynamicMatMul, engine: ArrayEngine, array: Crossbar, max_code: int | None, tokens: int
) -> Plan | None:
    """The plan of the cells that tokens of one sample take.

    Args:
        op: the product.
        engine: the engine that stores one of its factors.
        array: the array of the engine as the conditioning uses it.
        max_code: the largest code that a clip leaves; None without a clip.
        tokens: number of tokens.

    Returns:
        The plan, or None for 0 tokens.
    """
    if engine.written == "left":
        return plan(tokens, op.inputs, array, matrices=op.heads, max_code=max_code)
    if not tokens:
        return None
    sizes = (tokens, op.head_width) if op.role == "attention.key" else (op.head_width, tokens)
    return plan(*sizes, array, matrices=op.kv_heads, max_code=max_code)


def cells_written(op: DynamicMatMul, engine: ArrayEngine, cells: Plan, *, shared: bool) -> int:
    """Number of cells of a plan that are written; K of a cache leaves out the reference columns, which it has."""
    appended = op.role == "attention.key" and engine.written == "right" and op.written < op.tokens and not shared
    return cells.cells - (cells.inputs * cells.reference_columns if appended else 0)


def windows_of(op: DynamicMatMul, batch: int) -> float:
    """Attention windows per sample, which use the same cells in turn; 1 without windows."""
    return max(1.0, op.batch / batch)


def first_attention(ops: Iterable[LayerOp]) -> list[PlacedOp]:
    """The products of the first attention among `ops`: Q K^T, then P V."""
    products: list[PlacedOp] = []
    for placed in ops:
        if not isinstance(placed, PlacedOp) or not isinstance(placed.op, DynamicMatMul):
            continue
        if placed.op.role == "attention.key" and products:
            break
        products.append(placed)
        if placed.op.role == "attention.value":
            break
    return products


def attention_unit(op: Op, work: str) -> str:
    """Name of the unit that does `work` ("write", "conditioning") for the operands of an attention.

    Example: the stage "cross_key" and "write" give "attention.cross_write".
    """
    return f"attention.{op.stage.removesuffix('key').removesuffix('value')}{work}"


def partial_sums(placed: PlacedOp) -> int:
    """Number of additions that sum the partial results of the row blocks of a matrix, and of lanes, for all samples."""
    op, engine = placed.op, placed.engine
    if isinstance(op, DynamicMatMul):
        return int(op.batch * op.heads * sums_by_keys(placed).total(KeysPerQuery.of(op)))
    if not isinstance(engine, ArrayEngine):
        return 0
    return (ceil(op.inputs / engine.array.rows) - 1) * op.vectors * op.outputs


def sums_by_keys(placed: PlacedOp) -> PerQueryCost:
    """The additions of `partial_sums` for one query of a head, by the keys that it sees."""
    op, engine, blocks = placed.op, placed.engine, block_sums_by_keys(placed)
    if not isinstance(op, DynamicMatMul) or op.role == "attention.key":
        return blocks
    if placed.digital:  # a query that sees keys in cells, too, adds the sum of the lanes
        return blocks + PerQueryCost(0, (KeyTerm(op.outputs, 1, 1),)).beyond(placed.digital)
    if not isinstance(engine, ArrayEngine) or not tokens_spilled(op, engine, 0):
        return blocks
    cells = tokens_in_cells(op, engine, 0)  # a query that sees more keys adds the sum of the lanes
    return blocks + PerQueryCost(0, (KeyTerm(op.outputs, 1, cells + 1), KeyTerm(-op.outputs, 1, cells)))


def block_sums_by_keys(placed: PlacedOp) -> PerQueryCost:
    """Those of the additions of `sums_by_keys` that sum row blocks."""
    op, engine = placed.op, placed.engine
    if not isinstance(op, DynamicMatMul) or not isinstance(engine, ArrayEngine):
        return PerQueryCost()
    rows, digital = engine.array.rows, placed.digital
    if op.role == "attention.key":
        return PerQueryCost(0, (KeyTerm(ceil(op.inputs / rows) - 1, 1, inf),)).beyond(digital)
    blocks = KeyTerm(op.outputs, rows, tokens_in_cells(op, engine, digital))
    if digital:  # a query that sees digital keys alone has no sum
        return PerQueryCost(0, (blocks, KeyTerm(-op.outputs, 1, 1))).beyond(digital)
    return PerQueryCost(-op.outputs, (blocks,))


def lane_macs_by_keys(placed: PlacedOp) -> PerQueryCost:
    """The operations of `lane_macs` for one query of a head, by the keys that it sees."""
    op, engine, digital = placed.op, placed.engine, placed.digital
    if isinstance(op, StaticMatMul) or not isinstance(engine, ArrayEngine):
        return PerQueryCost()
    if not digital and not tokens_spilled(op, engine, 0):
        return PerQueryCost()
    in_cells = PerQueryCost(0, (KeyTerm(-op.head_width, 1, tokens_in_cells(op, engine, digital)),)).beyond(digital)
    return PerQueryCost(0, (KeyTerm(op.head_width, 1, inf),)) + in_cells


def computed_macs(op: StaticMatMul | DynamicMatMul) -> int:
    """Multiply-accumulate operations of a product, without those for keys that a causal query does not see."""
    if isinstance(op, StaticMatMul):
        return op.macs
    return op.batch * op.heads * op.head_width * KeysPerQuery.of(op).blocks()


def rotations(placed: PlacedOp) -> int:
    """Number of operations that rotate the inputs of a product, for all samples; each product rotates its own."""
    op = placed.op
    return op.vectors * rotation_ops.operations(op.inputs) if placed.rotated and isinstance(op, StaticMatMul) else 0


def scalings(placed: PlacedOp) -> int:
    """Number of multiplications that scale the inputs of a product with weights, for all samples: one per input."""
    op = placed.op
    return op.vectors * op.inputs if placed.scaled and isinstance(op, StaticMatMul) else 0


def compensations(placed: PlacedOp) -> int:
    """Number of multiplications that compensate the drift of weights, for all samples: one per result."""
    op, engine = placed.op, placed.engine
    if not isinstance(op, StaticMatMul) or not isinstance(engine, ArrayEngine):
        return 0
    return op.vectors * op.outputs if engine.array.drift_compensation != "none" else 0
