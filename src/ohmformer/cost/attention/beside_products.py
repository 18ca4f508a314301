"""The digital work beside the products of a stage: softmax, normalizations, activations and additions.

In causal attention the work of a token depends on the keys that it sees; then its time is given by keys, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import Literal, NamedTuple

from ohmformer.cost import kv_conditioning
from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, KeyTimes, PerQueryCost
from ohmformer.cost.cost import Cost
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.network.transfer import transfer_cost
from ohmformer.cost.operands import (
    LayerContext,
    compensations,
    lane_macs,
    lane_macs_by_keys,
    partial_sums,
    rotations,
    scalings,
    sums_by_keys,
)
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.cost.vector import lane_costs
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax


class Beside(NamedTuple):
    """Digital work beside products.

    Attributes:
        cost: the energy of all samples; as interval the mean time of a token.
        seen: see `stage_keys`.
        parts: times of a token that count at the same time, by the keys that it sees [s]; empty if `seen` is None.
    """

    cost: Cost
    seen: KeysPerQuery | None
    parts: tuple[PerQueryCost, ...]


def stage_keys(ops: Iterable[LayerOp], context: LayerContext) -> KeysPerQuery | None:
    """The keys that the tokens of a stage see, one query for each token; None if all tokens see the same keys.

    It is also None where queries do not follow the tokens of the layer, such as in windows. Then the work of causal
    products is spread evenly over the tokens.
    """
    found = {
        KeysPerQuery.of(placed.op)
        for placed in ops
        if isinstance(placed, PlacedOp) and isinstance(placed.op, DynamicMatMul) and _by_token(placed.op, context)
    }
    return found.pop() if len(found) == 1 else None


def _by_token(op: DynamicMatMul, context: LayerContext) -> bool:
    """True if a product is causal and has one query for each token of the layer, in the order of tokens."""
    return KeysPerQuery.of(op).step > 0 and (op.queries, op.batch) == (context.tokens, context.batch) and not op.turned


def sees(op: Op, seen: KeysPerQuery | None) -> bool:
    """True if the work of a product depends on the keys of its stage."""
    return seen is not None and isinstance(op, DynamicMatMul) and KeysPerQuery.of(op) == seen


def timed_by_keys(stage: Stage, seen: KeysPerQuery | None, parts: tuple[PerQueryCost, ...]) -> Stage:
    """The stage with times of tokens by the keys that they see, where they depend on them.

    Args:
        stage: the stage with the mean time of a token.
        seen: the keys; None if they do not matter.
        parts: times of a token that count at the same time [s].
    """
    if seen is None or not any(part.terms for part in parts):
        return stage
    constant = [part.constant for part in parts if not part.terms]
    slowest = (PerQueryCost(largest(*constant)),) if constant else ()
    times = KeyTimes(seen, (*(part for part in parts if part.terms), *slowest))
    return replace(stage, by_keys=times, per_token=times.total / seen.queries)


def beside_products(
    ops: list[LayerOp], context: LayerContext, where: Literal["all", "lanes", "outside"] = "all"
) -> Beside:
    """The digital work of a stage, in vector lanes and softmax units.

    Args:
        ops: the operations of the stage.
        context: chip, and the lanes of the layer.
        where: which part of the work: that of vector `lanes`, that `outside` of them, or all of it.
    """
    chip, total, seen = context.chip, Cost(), stage_keys(ops, context)
    operations = conditioned = steady = 0.0
    by_keys = PerQueryCost()
    units: list[PerQueryCost] = []
    for op in ops:
        match op:
            case Softmax():
                product = _product_of(op, ops)
                values = _values(op, product)
                follows = product is not None and sees(product, seen)
                if chip.softmax is None:
                    count = values * chip.vector.softmax
                    operations += count
                    steady += 0.0 if follows else count
                    if follows:
                        by_keys += PerQueryCost(0.0, (KeyTerm(op.heads * chip.vector.softmax, 1, inf),))
                    continue
                work = lane_costs.softmax_cost(chip, chip.softmax, op.rows, values / op.rows)
                rows_per_token = op.rows / (op.heads * context.vectors)
                total = total.beside(Cost(work.energy, 0.0, work.interval * rows_per_token))
                value_time = 1 / (chip.softmax.lanes_per_head * chip.clock)
                growing, mean = PerQueryCost(0.0, (KeyTerm(value_time, 1, inf),)), work.interval * rows_per_token
                units.append(growing if follows else PerQueryCost(mean))
            case PlacedOp():
                inputs = rotations(op) + scalings(op)
                adds = (partial_sums(op) + inputs + compensations(op) + 2 * lane_macs(op)) * chip.vector.add
                around = kv_conditioning.operations_beside(op) * chip.vector.add
                operations, conditioned = operations + adds, conditioned + around
                if sees(op.op, seen):
                    by_keys += _operations_by_keys(op).times(chip.vector.add)
                else:
                    steady += adds + around
            case Lookup():
                transfer = transfer_cost(chip, 0.0, op.vectors * op.width * context.bytes_per_value)
                total = total.beside(Cost(transfer.energy))
            case _:
                count = _plain_operations(op, context)
                operations, steady = operations + count, steady + count
    if where == "outside":
        return Beside(total, seen, tuple(units) if seen else ())
    in_lanes = _in_lanes(operations, conditioned, context)
    cost, units = (in_lanes, []) if where == "lanes" else (total.beside(in_lanes), units)
    if seen is None:
        return Beside(cost, None, ())
    lanes = (PerQueryCost(steady / context.vectors) + by_keys).times(1 / (context.working_lanes * chip.clock))
    return Beside(cost, seen, (lanes, *units))


def _in_lanes(operations: float, conditioned: float, context: LayerContext) -> Cost:
    """Cost of operations of vector lanes: of all, and of conditioning K and V."""
    total = Cost()
    for name, count in (("vector", operations), (CONDITIONING, conditioned)):
        if count:
            work = lane_costs.lanes_cost(context.chip, count, context.working_lanes, context.vectors, name=name)
            total = total.in_turn(work)
    return total


def _plain_operations(op: LayerOp, context: LayerContext) -> float:
    """Operations of vector lanes for a normalization, an activation or an addition, for all samples."""
    vector = context.chip.vector
    match op:
        case Norm():
            return op.vectors * op.width * vector.norm
        case Elementwise(kind="add"):
            return op.elements * vector.add
        case Elementwise():
            return op.elements * vector.activation
    return 0.0


def _product_of(softmax: Softmax, ops: list[LayerOp]) -> DynamicMatMul | None:
    """The causal product Q K^T of a stage whose scores a softmax takes; None if there is none."""
    products = (placed.op for placed in ops if isinstance(placed, PlacedOp))
    keys = [op for op in products if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
    scores = softmax.rows * softmax.length
    return next((op for op in keys if KeysPerQuery.of(op).step and _scores(op) == scores), None)


def _scores(op: DynamicMatMul) -> int:
    """Scores of a product Q K^T, with those that a mask hides."""
    return op.batch * op.heads * op.queries * op.outputs


def _values(softmax: Softmax, product: DynamicMatMul | None) -> int:
    """Scores that a softmax takes, without those that a causal mask hides."""
    if product is None:
        return softmax.rows * softmax.length
    return product.batch * product.heads * KeysPerQuery.of(product).blocks()


def _operations_by_keys(placed: PlacedOp) -> PerQueryCost:
    """Additions, multiplications and look-ups of lanes beside a product for one token, by the keys that it sees."""
    assert isinstance(placed.op, DynamicMatMul)
    macs = lane_macs_by_keys(placed).times(2)
    return (sums_by_keys(placed) + macs + kv_conditioning.operations_beside_by_keys(placed)).times(placed.op.heads)
