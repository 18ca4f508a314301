"""Which operand of a product lies in which arrays, and what writing it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import ceil

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.cost import components
from ohmformer.cost.cost import add_energy
from ohmformer.cost.engine_choice import Where, where
from ohmformer.cost.stage import Stage
from ohmformer.cost.technology import at_technology
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.rules import OrderedRules
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import Plan, plan
from ohmformer.mitigation import rotation_ops
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import DynamicMatMul, Op, StaticMatMul


@dataclass(frozen=True)
class Pricing:
    """What the stages of a layer need to know.

    Attributes:
        hardware: what runs where, and its prices.
        batch: samples.
        tokens: of a sample.
        lanes: of the tiles that hold the layer.
        clip: of K and V.
        rules: what is different for some products.
        weights: how static weights are conditioned.
        kv: how K and V are.
    """

    hardware: Accelerator
    batch: int
    tokens: int
    lanes: int
    clip: KVClip | None = None
    rules: OrderedRules = ()
    weights: WeightMitigation = field(default_factory=WeightMitigation)
    kv: KVConditioning | None = None

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

    def where(self, op: StaticMatMul | DynamicMatMul) -> Where:
        """Where a product is computed."""
        return where(op, self.hardware, self.clip, self.rules, self.weights, self.kv)


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
class Use:
    """How a product uses arrays.

    Attributes:
        reads: the matrices that are read, of one sample (or the weights).
        vectors: input vectors that each of them takes, over all samples.
        vectors_in_turn: of these, those that have to wait for one another, over all samples.
    """

    reads: Plan
    vectors: int
    vectors_in_turn: float


def used_arrays(op: StaticMatMul | DynamicMatMul, place: Where) -> Use:
    """The matrices and the vectors of a product; of two activations the engine says which one is stored."""
    engine = place.engine
    assert isinstance(engine, ArrayEngine)
    if isinstance(op, StaticMatMul):
        return Use(plan(op.outputs, op.inputs, place.array), op.vectors, op.vectors)
    if engine.written == "left":
        matrices = plan(op.queries, op.inputs, place.array, matrices=op.heads, max_code=place.max_code)
        passes = ceil(op.queries / (engine.resident or op.queries))
        return Use(matrices, op.batch * op.outputs, op.batch * op.outputs * passes)
    matrices = plan(op.outputs, op.inputs, place.array, matrices=op.kv_heads, max_code=place.max_code)
    passes = ceil(op.tokens / (engine.resident or op.tokens))
    vectors = op.batch * op.queries * op.group
    return Use(matrices, vectors, vectors * passes)


def tokens_written(op: DynamicMatMul, engine: ArrayEngine, *, shared: bool) -> int:
    """Tokens of a sample that a product has to write: all it needs where other layers have overwritten the cache."""
    if engine.written == "left":
        return op.queries
    return op.tokens if shared else op.written


def written_plan(
    op: DynamicMatMul, engine: ArrayEngine, array: Crossbar, max_code: int | None, tokens: int
) -> Plan | None:
    """The cells that so many tokens of one sample take, in codes up to `max_code`; None where that is nothing.

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


def first_attention(ops: Iterable[Op]) -> list[DynamicMatMul]:
    """The products of the first attention among `ops`: Q K^T, then P V."""
    found: list[DynamicMatMul] = []
    for op in ops:
        if not isinstance(op, DynamicMatMul):
            continue
        if op.role == "attention.key" and found:
            break
        found.append(op)
        if op.role == "attention.value":
            break
    return found


def unit_of(op: DynamicMatMul, work: str) -> str:
    """The unit that does some work for the operands of an attention."""
    return f"attention.{op.stage.removesuffix('key').removesuffix('value')}{work}"


def write_stages(ops: list[Op], pricing: Pricing) -> list[Stage]:
    """Writing K (or Q) and V of the first attention among `ops`: at once, each into arrays of its own; or nothing."""
    found: list[Stage] = []
    for op in first_attention(ops):
        place = pricing.where(op)
        if isinstance(place.engine, ArrayEngine):
            count = tokens_written(op, place.engine, shared=place.shared)
            cells = written_plan(op, place.engine, place.array, place.max_code, count)
            if cells is not None:
                found.append(_write_stage(op, place, cells, count, pricing))
    return [_at_once(found)] if found else []


def _write_stage(op: DynamicMatMul, place: Where, cells: Plan, count: int, pricing: Pricing) -> Stage:
    """A row of every array at a time: tokens of V are rows; tokens of K and of Q are columns, across all their rows.

    Tokens beyond the rows of one array go to others at the same time, unless the arrays have to be used several times;
    windows of a sample take turns.
    """
    engine = place.engine
    assert isinstance(engine, ArrayEngine)
    windows = windows_of(op, pricing.batch)
    number = cells_written(op, engine, cells, count)
    cost = components.write(cells, place.role, cells=number)
    stage = Stage(
        "write",
        "attention",
        unit_of(op, "write"),
        place.shared,
        energy={name: value * op.batch for name, value in cost.energy.items()},
        counts=Counts(cell_writes=op.batch * number),
    )
    rows = engine.array.rows
    if op.role == "attention.key":
        once = min(op.inputs, rows) * cost.interval
        return replace(stage, floor=once, per_token=once * windows / pricing.tokens if windows > 1 else 0.0)
    if engine.written == "left":
        raise BadInput(
            "hardware.attention.value.written = 'left': P would be written for every query, which has no price; "
            "take 'right', so that V is written"
        )
    share = count * windows / pricing.tokens
    turns = windows * ceil(count / (engine.resident or count))
    return replace(stage, per_token=cost.interval * share, cap=turns * rows / share)


def _at_once(stages: list[Stage]) -> Stage:
    return replace(
        stages[-1],
        shared=any(stage.shared for stage in stages),
        floor=max(stage.floor for stage in stages),
        per_token=max(stage.per_token for stage in stages),
        energy=add_energy(*(stage.energy for stage in stages)),
        counts=sum((stage.counts for stage in stages[1:]), stages[0].counts),
    )


def partial_sums(op: StaticMatMul | DynamicMatMul, pricing: Pricing) -> int:
    """Additions of what the row blocks of a matrix give, for all samples."""
    engine = pricing.where(op).engine
    if not isinstance(engine, ArrayEngine):
        return 0
    results = op.vectors * op.outputs if isinstance(op, StaticMatMul) else op.batch * op.heads * op.queries * op.outputs
    return (ceil(op.inputs / engine.array.rows) - 1) * results


def rotations(op: StaticMatMul | DynamicMatMul, pricing: Pricing) -> int:
    """Operations that rotate the inputs of a product, of all samples; every product turns its own."""
    if not isinstance(op, StaticMatMul) or not pricing.where(op).rotated:
        return 0
    return op.vectors * rotation_ops.operations(op.inputs)
