"""The usual step of a decoding: one token more, behind those that cells hold, and a product with all of them.

The first step finds what is the same for all that follow, and the others compute the same numbers in few operations.

Shapes: B samples, R heads, n tokens, d features, M inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ohmformer.array import event_counter
from ohmformer.array.folded import Folded
from ohmformer.array.kernels.writes.single_tokens import SingleTokens
from ohmformer.nn.operands.kv_cache import WrittenTokens, same_bits
from ohmformer.nn.operands.kv_tokens import KVTokens
from ohmformer.nn.operands.quick.plan import Plan, plan_of, usual
from ohmformer.nn.operands.unpad import side_by_side
from ohmformer.streams import Part, Stream, TokenStreams, current_samples

if TYPE_CHECKING:
    from ohmformer.nn.operands.kv import KVOperand
    from ohmformer.nn.shared.state import Use

Write = Callable[[Tensor, tuple[int, ...]], Tensor]
"""Writes tokens [B, R, 1, d] with these numbers; returns what the cells hold."""


@dataclass(frozen=True, eq=False)
class NextToken:
    """How the next token of each sample is written, as long as all of this stays the same.

    Attributes:
        plan: of the operand: its settings and those of the model.
        stream: root of the noise.
        call_index: of the use.
        names: of the samples.
        starts: number of the first token of each sample.
        streams: keys of the write noise of each sample.
        write: writes the token.
    """

    plan: Plan
    stream: Stream
    call_index: tuple[int, ...]
    names: tuple[Part, ...]
    starts: tuple[int, ...]
    streams: tuple[Stream, ...]
    write: Write


def next_token(operand: KVOperand, held: WrittenTokens, batch: KVTokens, use: Use) -> NextToken | None:
    """How the token behind those that cells hold will be written; None if it is not a usual one.

    Args:
        operand: K or V.
        held: what cells hold, its last token included.
        batch: that token.
        use: the use in which it was written.
    """
    plan, cells, streams = plan_of(operand), held.cells, held.streams
    names = current_samples() or use.info.names
    if plan.inputs is None or plan.noisy or plan.span is not None or use.step is not None or names is None:
        return None
    if operand.conditioner is not None or operand.ages is not None or not isinstance(streams, TokenStreams):
        return None
    if type(cells) is not Folded or cells.variance is not None or cells.mismatch is not None or batch.gain is not None:
        return None
    if batch.code_range.shape[2:] != (1, 1) or not usual(batch.values, batch.code_range):
        return None
    write: Write | None = None
    if plan.writes is not None:
        write = plan.writes.of_single_tokens(batch.code_range, streams.streams)
    elif operand.state.kernels == "torch":
        write = SingleTokens.of(operand.array, operand.codec, batch.code_range, streams.streams)
    if write is None:
        return None
    starts = tuple(row[0] for row in streams.numbers)
    return NextToken(plan, use.stream, use.call_index, names, starts, streams.streams, write)


def appended_product(operand: KVOperand, x: Tensor, tokens: Tensor, new: int, use: Use) -> Tensor | None:
    """x[B, R, M, d] @ K.T, or x[B, R, M, n] @ V, where the last token alone is new; None if not a usual call.

    Args:
        operand: K or V, of causal attention.
        x: inputs.
        tokens: K or V [B, R, n, d], none of which is padding.
        new: as in `KVOperand.product`.
        use: the use of the operand.

    Raises:
        BadInput: as `KVOperand.product`.
    """
    call = operand.state.threads.call
    before: WrittenTokens | None = call.written.get(operand.name)
    following = None if before is None else before.following
    if before is None or following is None or new != 1 or not _follows(operand, following, use):
        return None
    B, R, n, d = tokens.shape
    if before.tokens.shape != (B, R, n - 1, d) or torch.is_grad_enabled() or not usual(x, tokens):
        return None
    ends = use.info.tokens_so_far
    if len(ends) != B or tuple([end - n for end in ends]) != following.starts:
        return None
    grown = call.grown.get(id(tokens))
    known = grown is not None and grown.goes_on(tokens, before.source)
    if not known and not same_bits(before.tokens, tokens.narrow(2, 0, n - 1)):
        return None
    last, numbers = tokens.narrow(2, n - 1, 1), side_by_side(following.starts, (n,) * B, n)
    values = following.write(last, tuple([row[-1] for row in numbers]))
    held = before.with_token(tokens, TokenStreams(following.streams, numbers=numbers), values, operand.axis)
    call.written[operand.name] = held
    call.moved[operand.name] = frozenset()
    assert following.plan.inputs is not None
    return held.cells.times(following.plan.inputs(x)[0])  # type: ignore[union-attr]


def _follows(operand: KVOperand, following: NextToken, use: Use) -> bool:
    """True if a use of an operand goes on with the settings, samples and noise of the one before."""
    return (
        plan_of(operand) is following.plan
        and use.stream == following.stream
        and use.step is None
        and use.call_index == following.call_index
        and (current_samples() or use.info.names) == following.names
        and use.info.cached
        and not use.info.ring
        and event_counter.current() is None
    )
