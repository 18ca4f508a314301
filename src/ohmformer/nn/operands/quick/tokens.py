"""The usual writes of K and V, and the usual product with tokens that come all at once.

Shapes: B samples, R heads, N tokens, d features, M inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ohmformer.array.folded import Folded, with_read_noise
from ohmformer.nn.operands.kv_tokens import KVTokens
from ohmformer.nn.operands.quick.plan import has_gradients, plan_of, usual
from ohmformer.streams import sample_streams

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
    B, R, N, d = tokens.shape
    array, stream = operand.array, use.stream.child(operand.name, *use.call_index)
    streams = sample_streams(stream, B, use.info.names)
    written = plan.writes.write(tokens, streams, None, by_head=array.scale == "head")
    if written is None:
        return None
    operand.state.threads.call.written.pop(operand.name, None)
    held, variance, units = written
    sent, squares = plan.inputs(x, squares=plan.noisy)
    matrix = held.view(B * R, N, d)
    y = torch.bmm(sent.view(B * R, x.shape[2], -1), matrix.mT if operand.axis == "K" else matrix)
    y = y.view(B, R, x.shape[2], -1)
    if variance is None:
        return y
    if operand.axis == "V":
        held, variance = held.mT, variance.mT
    reads = operand.read_streams(x.shape, None, new, use)
    return with_read_noise(y, squares, Folded(held, variance, None, units), array, reads)


def tokens_in_cells(operand: KVOperand, batch: KVTokens, use: Use) -> Folded | None:
    """What the cells of tokens hold, written by one loop; None if the write is not a usual one.

    Args:
        operand: K or V.
        batch: the tokens.
        use: the use of the operand.

    Raises:
        BadInput: a value or a range is NaN or infinite, or a range is negative.
    """
    writes, ranges = plan_of(operand).writes, batch.code_range
    if writes is None or use.step is not None or batch.gain is not None or ranges.shape[2:] != (1, 1):
        return None
    if not usual(batch.values, ranges):
        return None
    written = writes.write(batch.values, batch.streams, ranges, by_head=True)
    if written is None:
        return None
    held, variance, units = written
    if operand.axis == "V":
        held, variance = held.mT, None if variance is None else variance.mT
    return Folded(held, variance, None, units, slices=writes.slices)
