"""The usual writes of K and V, and the usual product with tokens that come all at once.

Shapes: B samples, R heads, N tokens, d features, M inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ohmformer.array.folded import Folded
from ohmformer.array.kernels.amx import reads as tiled_reads
from ohmformer.array.programmed import Programmed
from ohmformer.nn.operands.kv_tokens import KVTokens
from ohmformer.nn.operands.quick.plan import has_gradients, plan_of, usual
from ohmformer.streams import SampleStreams, sample_streams

if TYPE_CHECKING:
    from ohmformer.nn.operands.kv import KVOperand
    from ohmformer.nn.shared.state import Use


def token_product(operand: KVOperand, x: Tensor, tokens: Tensor, new: int, use: Use) -> Tensor | None:
    """x[B, R, M, d] @ K.T, or x[B, R, M, N] @ V, by a loop that writes all tokens; None if the call is not a usual one.

    Args:
        operand: K or V.
        x: inputs.
        tokens: K or V [B, R, N, d], none of which is padding.
        new: as in `KVOperand.product`.
        use: the use of the operand.

    Raises:
        BadInput: as `KVOperand.product`.
    """
    plan = plan_of(operand)
    if plan.inputs is None or plan.writes is None or operand.causal or operand.write != "right":
        return None
    if use.step is not None or use.info.cached or x.shape[:2] != tokens.shape[:2] or not usual(x, tokens):
        return None
    if has_gradients(x, tokens):
        return None
    stream = use.stream.child(operand.name, *use.call_index)
    cells = _written(operand, tokens, sample_streams(stream, len(tokens), use.info.names), None)
    if cells is None:
        return None
    operand.state.threads.call.written.pop(operand.name, None)
    reads = operand.read_streams(x.shape, None, new, use) if plan.noisy else None
    if plan.noisy or isinstance(cells, Programmed):
        return operand.multiply(x, tokens if operand.axis == "K" else tokens.mT, cells, reads)
    if plan.in_tiles(cells):
        return tiled_reads.folded_product(plan.inputs(x, 1.0)[0], cells, plan.inputs.unit)
    (B, R, M, _), (_, _, O, I) = x.shape, cells.values.shape
    sent, _ = plan.inputs(x)
    return torch.bmm(sent.view(B * R, M, I), cells.values.mT.view(B * R, I, O)).view(B, R, M, O)


def _written(
    operand: KVOperand, tokens: Tensor, streams: SampleStreams, ranges: Tensor | None
) -> Folded | Programmed | None:
    """What the cells of tokens hold, see `TokenWrites.write`; None if its loops do not support the write."""
    plan, array, is_k = plan_of(operand), operand.array, operand.axis == "K"
    writes, by_head = plan.writes, array.scale == "head"
    if writes is None:
        return None
    if plan.span is not None:
        found = writes.digits(tokens, streams, ranges, by_head=by_head)
        return None if found is None else Programmed(array, found[0] if is_k else found[0].mT, None, found[1])
    written = writes.write(tokens, streams, ranges, by_head=by_head)
    if written is None:
        return None
    held, variance, units = written
    if not is_k:
        held, variance = held.mT, None if variance is None else variance.mT
    return Folded(held, variance, None, units, slices=writes.slices)


def tokens_in_cells(operand: KVOperand, batch: KVTokens, use: Use) -> Folded | Programmed | None:
    """What the cells of tokens hold, written by one loop; None if the write is not a usual one.

    Args:
        operand: K or V.
        batch: the tokens.
        use: the use of the operand.

    Raises:
        BadInput: a value or a range is NaN or infinite, or a range is negative.
    """
    ranges = batch.code_range
    if plan_of(operand).writes is None or use.step is not None or batch.gain is not None or ranges.shape[2:] != (1, 1):
        return None
    return _written(operand, batch.values, batch.streams, ranges) if usual(batch.values, ranges) else None
