"""Conditioning of K and V as work: what vector lanes do to tokens, inputs and results, and what memory keeps for it.

Arrays, cells, writes and conversions stay as they are, but for `copies`: plans count them, the shift-and-add averages
them. Symbols: B samples, R heads of keys and values, H heads of queries, M queries, N tokens held, n of them new,
d values of a token in one head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ohmformer.cost import components
from ohmformer.cost.cost import add_energy
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.operands import LayerContext, first_attention, unit_of
from ohmformer.cost.stage import CONDITIONING, Stage
from ohmformer.mitigation import rotation_ops
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.spec import DynamicMatMul


@dataclass(frozen=True)
class DigitalState:
    """Values that memory keeps for the conditioning of K and V of a layer.

    Attributes:
        constants: what calibration found.
        with_tokens: what belongs to the tokens in the layer's own cells.
        shared: what belongs to the tokens in cells that layers share.
    """

    constants: int = 0
    with_tokens: int = 0
    shared: int = 0

    def __add__(self, other: DigitalState) -> DigitalState:
        sums = (self.constants + other.constants, self.with_tokens + other.with_tokens, self.shared + other.shared)
        return DigitalState(*sums)


def turning(spec: Conditioning, size: int) -> int:
    """Operations that take one vector of d values to the basis, or back: each a multiplication or an addition.

    A factor for each value (`rescaled`), d log2 d additions (`hadamard`, see `rotation_ops.operations` for other
    sizes), or a product with a matrix [d, d] (`balanced`, whose Hadamard matrix is part of it).
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
    """Operations on the new tokens of all samples before they are written.

    A mean of the tokens at hand takes n d additions (divisions included) and n d subtractions, one that calibration
    fixed for causal attention the latter alone. A scale takes d comparisons a token, unless it is fixed likewise; codes
    by what cells hold of them take one look-up for each value.
    """
    d, own_scale = op.head_width, _scale_of_token(op, spec)
    each = turning(spec, d)
    if spec.mean:
        each += d if op.causal else 2 * d
    if spec.scale is not None and (own_scale or not op.causal):
        each += d
    if spec.unbiased:
        each += d
    return op.batch * op.kv_heads * op.written * each


def product_operations(op: DynamicMatMul, spec: Conditioning) -> int:
    """Operations on the inputs and results of a product, of all samples.

    Queries go to the basis of K, results of P V back from that of V. A scale for each token is one multiplication for
    each score, or for each entry of P; one for each feature of V, for each result. The mean of V is added to results as
    it is: behind a softmax, rows of P sum to one. Softmax ignores what the mean of K would add.
    """
    each = turning(spec, op.head_width)
    if _scale_of_token(op, spec):
        each += op.tokens
    if op.role == "attention.value":
        each += op.head_width * (spec.mean + (spec.scale == "column"))
    return op.batch * op.heads * op.queries * each


def _scale_of_token(op: DynamicMatMul, spec: Conditioning) -> bool:
    """Whether each token has a scale of its own: columns of K are tokens."""
    return spec.scale == "token" or (spec.scale == "column" and op.role == "attention.key")


def _conditioned(ops: Iterable[LayerOp]) -> Iterator[tuple[PlacedOp, DynamicMatMul, Conditioning]]:
    """The products whose K or V is conditioned, with how."""
    for placed in ops:
        if isinstance(placed, PlacedOp) and isinstance(placed.op, DynamicMatMul) and placed.kv is not None:
            yield placed, placed.op, placed.kv


def stages(ops: Iterable[LayerOp], context: LayerContext) -> list[Stage]:
    """What lanes do to new tokens of the first attention among `ops` before they are written; nothing without any."""
    operations, scales, unit = 0, 0, ""
    for _, op, spec in _conditioned(first_attention(ops)):
        operations += token_operations(op, spec)
        scales += op.batch * op.kv_heads * op.written if _scale_of_token(op, spec) else 0
        unit = unit_of(op, CONDITIONING)
    if not operations:
        return []
    chip = context.chip
    done = operations * chip.vector.add
    cost = components.lanes(chip, done, context.lanes_at_work, context.vectors, name=CONDITIONING)
    stored = components.transfer(chip, scales * context.bytes_per_value, 0.0)
    return [
        Stage(CONDITIONING, "attention", unit, per_token=cost.interval, energy=add_energy(cost.energy, stored.energy))
    ]  # fmt: skip


def of_product(placed: PlacedOp) -> int:
    """Operations on the inputs and results of a product: none, but for K and V that are conditioned."""
    return sum(product_operations(op, spec) for _, op, spec in _conditioned([placed]))


def scales_read(placed: PlacedOp) -> int:
    """Scales of tokens that come from memory for a product, of all samples."""
    found = _conditioned([placed])
    return sum(op.batch * op.kv_heads * op.tokens for _, op, spec in found if _scale_of_token(op, spec))


def gathers(ops: Iterable[LayerOp]) -> bool:
    """True if no token can be written before all are there, since the mean of those at hand is removed."""
    return any(spec.mean and not op.causal and op.written > 0 for _, op, spec in _conditioned(first_attention(ops)))


def state_of(ops: Iterable[LayerOp]) -> DigitalState:
    """What memory keeps for a layer."""
    return sum((_state(op, spec, shared=placed.shared) for placed, op, spec in _conditioned(ops)), DigitalState())


def _state(op: DynamicMatMul, spec: Conditioning, *, shared: bool) -> DigitalState:
    """Factors or matrices of both directions, means, and scales; a cache keeps those of every sample."""
    d, of_value = op.head_width, op.role == "attention.value"
    constants = {"rescaled": 2 * d, "balanced": 2 * d * d}.get(spec.basis, 0)
    with_tokens = op.tokens if _scale_of_token(op, spec) else 0
    for there in (spec.mean, of_value and spec.scale == "column"):
        if there and op.causal:
            constants += d
        elif there and of_value:
            with_tokens += d
    samples = op.batch if op.written < op.tokens else 1
    here = op.kv_heads * samples * with_tokens
    return DigitalState(op.kv_heads * constants, 0 if shared else here, here if shared else 0)
