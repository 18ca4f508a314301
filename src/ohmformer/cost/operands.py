"""Which operand of a product lies in which arrays, and what writing it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.cost import components
from ohmformer.cost.cost import add_energy
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.stage import Stage
from ohmformer.cost.technology import at_technology
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import Plan, plan
from ohmformer.mitigation import rotation_ops
from ohmformer.workload.spec import DynamicMatMul, Op, StaticMatMul


@dataclass(frozen=True)
class LayerContext:
    """What surrounds the products of a layer.

    Attributes:
        hardware: the accelerator, with its prices.
        batch: samples.
        tokens: of a sample.
        lanes: of the tiles that hold the layer.
    """

    hardware: Accelerator
    batch: int
    tokens: int
    lanes: int

    @property
    def vectors(self) -> int:
        """Tokens of all samples."""
        return self.batch * self.tokens

    @property
    def lanes_at_work(self) -> int:
        """Vector lanes of the layer; those of one tile, where no tile is its own."""
        return self.lanes or self.chip.cores_per_tile * self.chip.vector.lanes_per_core

    @property
    def bytes_per_value(self) -> float:
        """Of what goes to memories and back."""
        engine = self.hardware.projection
        return engine.array.inputs.bits / 8 if isinstance(engine, ArrayEngine) else 1.0

    @property
    def chip(self) -> Chip:
        """What surrounds the arrays.

        Raises:
            BadInput: nobody has described it.
        """
        return chip_of(self.hardware)


def chip_of(hardware: Accelerator) -> Chip:
    """What surrounds the arrays of an accelerator, with prices at its technology.

    Raises:
        BadInput: nobody has described it.
    """
    if hardware.chip is None:
        raise BadInput(
            f"hardware.chip: is missing for {hardware.title or 'this accelerator'!r}, so nothing can be said of its "
            "time and energy; add the table, or take an accelerator that has one"
        )
    return at_technology(hardware.chip)


@dataclass(frozen=True)
class Reads:
    """How a product reads arrays.

    Attributes:
        matrices: that are read, of one sample (or the weights).
        vectors: input vectors that each of them takes, over all samples.
        vectors_in_turn: of these, those that have to wait for one another, over all samples.
    """

    matrices: Plan
    vectors: int
    vectors_in_turn: float


def array_reads(placed: PlacedOp) -> Reads:
    """The matrices and the vectors of a product; of two activations the engine says which one is stored."""
    op, engine = placed.op, placed.engine
    assert isinstance(engine, ArrayEngine)
    if isinstance(op, StaticMatMul):
        return Reads(plan(op.outputs, op.inputs, placed.array), op.vectors, op.vectors)
    if engine.written == "left":
        matrices = plan(op.queries, op.inputs, placed.array, matrices=op.heads, max_code=placed.max_code)
        passes = ceil(op.queries / (engine.resident or op.queries))
        return Reads(matrices, op.batch * op.outputs, op.batch * op.outputs * passes)
    matrices = plan(op.outputs, op.inputs, placed.array, matrices=op.kv_heads, max_code=placed.max_code)
    passes = ceil(op.tokens / (engine.resident or op.tokens))
    vectors = op.batch * op.queries * op.group
    return Reads(matrices, vectors, vectors * passes)


def tokens_written(op: DynamicMatMul, engine: ArrayEngine, *, shared: bool) -> int:
    """Tokens of a sample that a product has to write: all it needs where other layers have overwritten the cache."""
    if engine.written == "left":
        return op.queries
    return op.tokens if shared else op.written


def written_plan(
    op: DynamicMatMul, engine: ArrayEngine, array: Crossbar, max_code: int | None, tokens: int
) -> Plan | None:
    """The cells that so many tokens of one sample take, in codes up to `max_code`; None for no tokens.

    `array` is that of the engine as it is used.
    """
    if engine.written == "left":
        return plan(tokens, op.inputs, array, matrices=op.heads, max_code=max_code)
    if not tokens:
        return None
    sizes = (tokens, op.head_width) if op.role == "attention.key" else (op.head_width, tokens)
    return plan(*sizes, array, matrices=op.kv_heads, max_code=max_code)


def cells_written(op: DynamicMatMul, engine: ArrayEngine, cells: Plan, tokens: int) -> int:
    """Of the cells of so many tokens those that are written: K appended to a cache finds reference columns in place."""
    appended = op.role == "attention.key" and engine.written == "right" and tokens < op.tokens
    return cells.cells - (cells.inputs * cells.reference_columns if appended else 0)


def windows_of(op: DynamicMatMul, batch: int) -> float:
    """Windows of a sample, which take turns; 1 where it has none."""
    return max(1.0, op.batch / batch)


def first_attention(ops: Iterable[LayerOp]) -> list[PlacedOp]:
    """The products of the first attention among `ops`: Q K^T, then P V."""
    found: list[PlacedOp] = []
    for placed in ops:
        if not isinstance(placed, PlacedOp) or not isinstance(placed.op, DynamicMatMul):
            continue
        if placed.op.role == "attention.key" and found:
            break
        found.append(placed)
        if placed.op.role == "attention.value":
            break
    return found


def unit_of(op: Op, work: str) -> str:
    """The unit that does some work for the operands of an attention."""
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
            writes[-1],
            shared=any(stage.shared for stage in writes),
            floor=max(stage.floor for stage in writes),
            per_token=max(stage.per_token for stage in writes),
            energy=add_energy(*(stage.energy for stage in writes)),
            counts=sum((stage.counts for stage in writes[1:]), writes[0].counts),
        )
    ]


def _write_stage(placed: PlacedOp, context: LayerContext) -> Stage | None:
    """The write of one operand, a row of every array at a time; None if it is not in cells or has no new tokens.

    Tokens of V are rows; tokens of K and of Q are columns, across all their rows. Tokens beyond the rows of one array
    go to others at the same time, unless the arrays have to be used several times; windows of a sample take turns.
    """
    op, engine = placed.op, placed.engine
    if not isinstance(op, DynamicMatMul) or not isinstance(engine, ArrayEngine):
        return None
    count = tokens_written(op, engine, shared=placed.shared)
    cells = written_plan(op, engine, placed.array, placed.max_code, count)
    if cells is None:
        return None
    windows, number = windows_of(op, context.batch), cells_written(op, engine, cells, count)
    cost = components.write(cells, placed.role, cells=number)
    stage = Stage(
        "write",
        "attention",
        unit_of(op, "write"),
        placed.shared,
        energy={name: value * op.batch for name, value in cost.energy.items()},
        counts=Counts(cell_writes=op.batch * number),
    )
    rows = engine.array.rows
    if op.role == "attention.key":
        once = min(op.inputs, rows) * cost.interval
        return replace(stage, floor=once, per_token=once * windows / context.tokens if windows > 1 else 0.0)
    if engine.written == "left":
        raise BadInput(
            "hardware.attention.value.written = 'left': P would be written for every query, which has no price; "
            "take 'right', so that V is written"
        )
    share = count * windows / context.tokens
    turns = windows * ceil(count / (engine.resident or count))
    return replace(stage, per_token=cost.interval * share, cap=turns * rows / share)


def partial_sums(placed: PlacedOp) -> int:
    """Additions of what the row blocks of a matrix give, for all samples."""
    op, engine = placed.op, placed.engine
    if not isinstance(engine, ArrayEngine):
        return 0
    results = op.vectors * op.outputs if isinstance(op, StaticMatMul) else op.batch * op.heads * op.queries * op.outputs
    return (ceil(op.inputs / engine.array.rows) - 1) * results


def rotations(placed: PlacedOp) -> int:
    """Operations that rotate the inputs of a product, of all samples; every product turns its own."""
    op = placed.op
    return op.vectors * rotation_ops.operations(op.inputs) if placed.rotated and isinstance(op, StaticMatMul) else 0
