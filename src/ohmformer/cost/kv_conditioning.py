"""Cost of conditioning K and V: operations of the vector lanes, and values that memory keeps.

Conditioning does not change arrays, cells, writes or conversions, except for redundancy, which plans count and the
shift-and-add averages. Symbols: B samples, R heads of K and V, H heads of Q, M queries, N tokens in cells, n of them
new, d values per token and head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, PerQueryCost
from ohmformer.cost.attention.token_places import tokens_for_cells, tokens_leaving
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.network.transfer import transfer_cost
from ohmformer.cost.operands import LayerContext, attention_unit, first_attention
from ohmformer.cost.power.standing import on_powered_chips
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.cost.vector import lane_costs
from ohmformer.cost.vector.lanes import Lanes, vector_units
from ohmformer.mitigation import rotation_ops
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.spec import DynamicMatMul


@dataclass(frozen=True)
class DigitalState:
    """Number of values that memory keeps for the conditioning of K and V of a layer.

    Attributes:
        constants: values that calibration fixed.
        own: values per token for the tokens in the layer's own cells.
        shared: values per token for the tokens in cells that layers share.
        digital: tokens of K and V of a sample that are digital, where `first_tokens` or `last_tokens` are set.
        tokens: all tokens of these K and V.
    """

    constants: int = 0
    own: int = 0
    shared: int = 0
    digital: int = 0
    tokens: int = 0

    def __add__(self, other: DigitalState) -> DigitalState:
        sums = (self.constants + other.constants, self.own + other.own, self.shared + other.shared)
        return DigitalState(*sums, self.digital + other.digital, self.tokens + other.tokens)


def basis_operations(spec: Conditioning, size: int) -> int:
    """Number of multiplications and additions that transform one vector of d = `size` values to the basis, or back.

    `rescaled`: one factor per value. `hadamard`: d log2 d additions (other sizes: `rotation_ops.operations`).
    `balanced`: a product with a matrix [d, d], which includes its Hadamard matrix.
    """
    match spec.basis:
        case "rescaled":
            return size
        case "hadamard":
            return rotation_ops.operations(size)
        case "balanced":
            return size * (2 * size - 1)
    return 0


def token_operations(op: DynamicMatMul, spec: Conditioning) -> int:
    """Number of operations on the tokens of all samples that a pass adds to cells, before they are written.

    The mean of the current tokens takes n d additions (divisions included) and n d subtractions; the mean that
    calibration fixes for causal attention takes the subtractions only. A scale takes d comparisons per token, unless
    calibration fixes it. Bias-corrected codes (`unbiased`) take one look-up per value.
    """
    d, token_scale = op.head_width, _has_token_scale(op, spec)
    per_token = basis_operations(spec, d)
    if spec.mean:
        per_token += d if op.causal else 2 * d
    if spec.scale is not None and (token_scale or not op.causal):
        per_token += d
    if spec.unbiased:
        per_token += d
    return op.batch * op.kv_heads * tokens_leaving(op, spec.most_digital_tokens) * per_token


def product_operations(op: DynamicMatMul, spec: Conditioning) -> int:
    """Number of operations on the inputs and results of a product, for all samples.

    Queries are transformed to the basis of K; results of P V are transformed back from the basis of V. A scale per
    token takes one multiplication per score, or per entry of P; a scale per feature of V takes one per result. The mean
    of V is added to results unweighted, since rows of P sum to one after softmax. The mean of K needs no operation,
    since softmax ignores a constant per row.
    """
    return int(op.batch * op.heads * operations_by_keys(op, spec).total(KeysPerQuery.of(op)))


def operations_by_keys(op: DynamicMatMul, spec: Conditioning) -> PerQueryCost:
    """The operations of `product_operations` for one query of a head, by the keys that it sees."""
    per_query = basis_operations(spec, op.head_width)
    if op.role == "attention.value":
        per_query += op.head_width * (spec.mean + (spec.scale == "column"))
    terms = (KeyTerm(1, 1, inf),) if _has_token_scale(op, spec) else ()
    return PerQueryCost(per_query, terms).beyond(spec.most_digital_tokens)


def _has_token_scale(op: DynamicMatMul, spec: Conditioning) -> bool:
    """True if each token has its own scale; columns of K are tokens."""
    return spec.scale == "token" or (spec.scale == "column" and op.role == "attention.key")


def _conditioned(ops: Iterable[LayerOp]) -> Iterator[tuple[PlacedOp, DynamicMatMul, Conditioning]]:
    """The products whose K or V is conditioned: placed product, product, conditioning."""
    for placed in ops:
        if isinstance(placed, PlacedOp) and isinstance(placed.op, DynamicMatMul) and placed.conditioning is not None:
            yield placed, placed.op, placed.conditioning


def stages(products: Iterable[PlacedOp], context: LayerContext) -> list[Stage]:
    """The stage in which lanes condition the new tokens of one attention before they are written.

    Args:
        products: Q K^T and P V.
        context: what prices them.

    Returns:
        The stage, or [] if nothing is conditioned.
    """
    operations, scales, unit = 0, 0, ""
    for _, op, spec in _conditioned(products):
        operations += token_operations(op, spec)
        new = tokens_leaving(op, spec.most_digital_tokens)
        scales += op.batch * op.kv_heads * new if _has_token_scale(op, spec) else 0
        unit = attention_unit(op, CONDITIONING)
    if not operations:
        return []
    chip = context.chip
    lane_operations = operations * chip.vector.add
    cost = lane_costs.lanes_cost(chip, lane_operations, context.working_lanes, context.vectors, name=CONDITIONING)
    stored = transfer_cost(chip, scales * context.bytes_per_value, 0.0)
    lanes = vector_units(context) or Lanes(context.working_lanes, unit, False)
    energy = sum_by_name(cost.energy, stored.energy)
    stage = lanes.stage(CONDITIONING, "attention", per_token=cost.interval, energy=energy)
    return [on_powered_chips(stage, (), context)]


def operations_beside(placed: PlacedOp) -> int:
    """`product_operations` of a product; 0 if its K or V is not conditioned."""
    return sum(product_operations(op, spec) for _, op, spec in _conditioned([placed]))


def operations_beside_by_keys(placed: PlacedOp) -> PerQueryCost:
    """The operations of `operations_beside` for one query of a head, by the keys that it sees."""
    return sum((operations_by_keys(op, spec) for _, op, spec in _conditioned([placed])), PerQueryCost())


def scales_read(placed: PlacedOp) -> int:
    """Number of token scales that a product reads from memory, for all samples."""
    products = _conditioned([placed])
    return sum(
        op.batch * op.kv_heads * tokens_for_cells(op, spec.most_digital_tokens)
        for _, op, spec in products
        if _has_token_scale(op, spec)
    )


def needs_all_tokens(ops: Iterable[LayerOp]) -> bool:
    """True if no token can be written before all are computed, since the mean of the current tokens is removed."""
    return any(spec.mean and not op.causal and op.written > 0 for _, op, spec in _conditioned(first_attention(ops)))


def digital_state(ops: Iterable[LayerOp]) -> DigitalState:
    """The number of values that memory keeps for a layer."""
    return sum((_state(op, spec, shared=placed.shared) for placed, op, spec in _conditioned(ops)), DigitalState())


def _state(op: DynamicMatMul, spec: Conditioning, *, shared: bool) -> DigitalState:
    """Values of one product: factors or matrices of both directions, means and scales; a cache keeps all samples."""
    d, of_value = op.head_width, op.role == "attention.value"
    constants = {"rescaled": 2 * d, "balanced": 2 * d * d}.get(spec.basis, 0)
    per_sample = tokens_for_cells(op, spec.most_digital_tokens) if _has_token_scale(op, spec) else 0
    for per_feature in (spec.mean, of_value and spec.scale == "column"):
        if per_feature and op.causal:
            constants += d
        elif per_feature and of_value:
            per_sample += d
    samples = op.batch if op.written < op.tokens else 1
    values = op.kv_heads * samples * per_sample
    digital = (min(op.tokens, spec.most_digital_tokens), op.tokens) if spec.most_digital_tokens else (0, 0)
    return DigitalState(op.kv_heads * constants, 0 if shared else values, values if shared else 0, *digital)
