"""Operands on arrays: which factor of a product cells hold, how it is read, and what writing it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, inf

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.cost import components
from ohmformer.cost.cost import add_energy
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.stage import Stage
from ohmformer.cost.technology import at_technology
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
        lanes: vector lanes in the tiles that hold the layer; 0 if no tile does.
        homes: what lives in which memory.
        weight_uses: how often weights that no cell holds are read: once for all samples, or once for each.
    """

    hardware: Accelerator
    batch: int
    tokens: int
    lanes: int
    homes: Homes = field(default_factory=Homes)
    weight_uses: int = 1

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
    def key(self) -> tuple[object, ...]:
        """All that decides the prices of a layer, apart from its operations and their engines; objects by identity."""
        hardware = self.hardware
        gpu = hardware.projection if isinstance(hardware.projection, GpuEngine) else None
        owners = (id(hardware.chip), self.bytes_per_value, id(gpu), self.gpu_attention)
        return (*owners, self.batch, self.tokens, self.lanes, self.homes.key, self.weight_uses)

    @property
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
    """

    matrices: Plan
    vectors: int
    sequential_vectors: float


def array_reads(placed: PlacedOp) -> ArrayReads:
    """The matrices and input vectors of a product; for two activations, the engine decides which one is stored."""
    op, engine = placed.op, placed.engine
    assert isinstance(engine, ArrayEngine)
    if isinstance(op, StaticMatMul):
        return ArrayReads(plan(op.outputs, op.inputs, placed.array), op.vectors, op.vectors)
    if engine.written == "left":
        matrices = plan(op.queries, op.inputs, placed.array, matrices=op.heads, max_code=placed.max_code)
        passes = ceil(op.queries / slots_of(op, engine))
        return ArrayReads(matrices, op.batch * op.outputs, op.batch * op.outputs * passes)
    tokens = op.tokens - tokens_spilled(op, engine)
    sizes = (tokens, op.head_width) if op.role == "attention.key" else (op.head_width, tokens)
    matrices = plan(*sizes, placed.array, matrices=op.kv_heads, max_code=placed.max_code)
    passes = ceil(tokens / slots_of(op, engine))
    vectors = op.batch * op.queries * op.group
    return ArrayReads(matrices, vectors, vectors * passes)


def slots_of(op: DynamicMatMul, engine: ArrayEngine) -> int:
    """Number of tokens per sample that cells can hold."""
    return engine.resident or (op.queries if engine.written == "left" else op.tokens)


def tokens_written(op: DynamicMatMul, engine: ArrayEngine, *, shared: bool) -> int:
    """Tokens per sample that a product writes: the new ones, or all if others have overwritten the cache.

    Others are layers that share the cells, and tokens of the same cache that take turns in too few cells.
    """
    if engine.written == "left":
        return op.queries
    if tokens_spilled(op, engine):
        return min(op.tokens if shared else op.written, slots_of(op, engine))
    return op.tokens if shared or op.tokens > slots_of(op, engine) else op.written


def tokens_spilled(op: DynamicMatMul, engine: Engine) -> int:
    """Tokens per sample that have no cells, so that vector lanes multiply by them; 0 unless the engine spills."""
    if not isinstance(engine, ArrayEngine) or engine.overflow != "spill":
        return 0
    return max(0, op.tokens - slots_of(op, engine))


def lane_macs(placed: PlacedOp) -> int:
    """Multiply-accumulate operations of vector lanes for the tokens of a product that have no cells."""
    op = placed.op
    if isinstance(op, StaticMatMul):
        return 0
    return op.batch * op.heads * op.queries * tokens_spilled(op, placed.engine) * op.head_width


def kv_tokens_read(op: DynamicMatMul, placed: PlacedOp) -> int:
    """Tokens per sample whose K or V is read from memory: those that are written, and those that cells do not hold."""
    engine = placed.engine
    if isinstance(engine, ArrayEngine) and engine.written == "right":
        return tokens_written(op, engine, shared=placed.shared) + tokens_spilled(op, engine)
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


def write_stages(ops: Iterable[LayerOp], context: LayerContext) -> list[Stage]:
    """The write of K (or Q) and V of the first attention among `ops`, as at most one stage.

    K and V are written in parallel into separate arrays, so the stage takes as long as the slower of the two.

    Returns:
        The stage, or [] if nothing is written.
    """
    writes = [stage for placed in first_attention(ops) if (stage := _write_stage(placed, context)) is not None]
    if not writes:
        return []
    return [
        replace(
            _slower(writes[0], writes[-1], context.tokens),
            shared=any(stage.shared for stage in writes),
            energy=add_energy(*(stage.energy for stage in writes)),
            counts=sum((stage.counts for stage in writes[1:]), writes[0].counts),
        )
    ]


def _slower(one: Stage, other: Stage, tokens: int) -> Stage:
    """The stage `other` with the times of two writes at the same time.

    If they take turns of different lengths, blocks take equal shares of the slower one.
    """
    floor, per_token = max(one.floor, other.floor), max(one.per_token, other.per_token)
    if one.turn == other.turn and (one.per_token == 0 or other.cap >= min(tokens, other.turn)):
        return replace(other, floor=floor, per_token=per_token)
    slower = max(one.time(tokens), other.time(tokens))
    return replace(other, floor=floor, per_token=slower / tokens, cap=inf, turn=inf)


def _write_stage(placed: PlacedOp, context: LayerContext) -> Stage | None:
    """The write of one operand, one row of every array at a time; None if it is not in cells or has no new tokens.

    A token of V is a row. A token of K or Q is a column, so writing it takes all rows of the head. Tokens beyond the
    rows of one array are written to other arrays at the same time, unless there are cells for fewer tokens, which then
    take turns, each as long as if it were the only one. Attention windows of a sample also take turns.
    """
    op, engine = placed.op, placed.engine
    if not isinstance(op, DynamicMatMul) or not isinstance(engine, ArrayEngine):
        return None
    count = tokens_written(op, engine, shared=placed.shared)
    cells = written_plan(op, engine, placed.array, placed.max_code, count)
    if cells is None:
        return None
    windows, number = windows_of(op, context.batch), cells_written(op, engine, cells, shared=placed.shared)
    cost = components.write_cost(cells, placed.role, cells=number)
    stage = Stage(
        "write",
        "attention",
        attention_unit(op, "write"),
        placed.shared,
        energy={name: value * op.batch for name, value in cost.energy.items()},
        counts=Counts(cell_writes=op.batch * number),
    )
    if engine.written == "left" and op.role == "attention.value":
        raise BadInput(
            "hardware.attention.value.written = 'left': P would be written for every query, which has no price; "
            "take 'right', so that V is written"
        )
    rows, slots, tokens = engine.array.rows, slots_of(op, engine), context.tokens
    all_rows = min(op.inputs, rows) * cost.interval
    if count > slots and (windows > 1 or count != tokens):  # a cache that is written again, or windows
        whole, rest = divmod(count, slots)
        rows_in_turn = whole * min(slots, rows) + min(rest, rows)
        time = all_rows * ceil(count / slots) if op.role == "attention.key" else rows_in_turn * cost.interval
        return replace(stage, floor=all_rows if op.role == "attention.key" else 0.0, per_token=time * windows / tokens)
    turn = slots if count > slots else inf
    if op.role == "attention.key":
        per_token = all_rows * windows / tokens if windows > 1 else 0.0
        return replace(stage, floor=all_rows, per_token=per_token, turn=turn)
    rows_per_token = count * windows / tokens
    cap = windows * rows / rows_per_token
    return replace(stage, per_token=cost.interval * rows_per_token, cap=cap, turn=turn)


def partial_sums(placed: PlacedOp) -> int:
    """Number of additions that sum the partial results of the row blocks of a matrix, and of lanes, for all samples."""
    op, engine = placed.op, placed.engine
    if not isinstance(engine, ArrayEngine):
        return 0
    if isinstance(op, StaticMatMul):
        return (ceil(op.inputs / engine.array.rows) - 1) * op.vectors * op.outputs
    spilled = tokens_spilled(op, engine) if op.role == "attention.value" else 0
    parts = ceil((op.inputs - spilled) / engine.array.rows) + (1 if spilled else 0)
    return (parts - 1) * op.batch * op.heads * op.queries * op.outputs


def rotations(placed: PlacedOp) -> int:
    """Number of operations that rotate the inputs of a product, for all samples; each product rotates its own."""
    op = placed.op
    return op.vectors * rotation_ops.operations(op.inputs) if placed.rotated and isinstance(op, StaticMatMul) else 0
