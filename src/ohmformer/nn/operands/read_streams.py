"""Which random numbers the reads of a product draw: those of its samples, or of each token in causal models.

Shapes: B samples, M input vectors of each: `queries` of one head after those of another.
"""

from __future__ import annotations

import torch

from ohmformer.errors import BadInput
from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.nn.shared.memory import Mask
from ohmformer.nn.shared.state import CallInfo
from ohmformer.streams import PaddedStreams, SampleStreams, Stream, TokenStreams, sample_streams


def read_streams(
    stream: Stream,
    shape: torch.Size,
    info: CallInfo,
    queries: int | None,
    *,
    by_token: bool,
    columns: tuple[int, ...] | None = None,
    inputs: tuple[int, ...] | None = None,
    memory_mask: Mask | None = None,
    exactly: bool = False,
) -> SampleStreams:
    """One stream of each sample, from which padding draws nothing; or one of each token.

    Heads of queries that share a head of keys are read one after the other, so tokens of each head have their own.

    Args:
        stream: of the operand.
        shape: of the inputs [B, ..., M, I].
        info: what the call says of its batch.
        queries: inputs of one head; None if inputs count as tokens only where the call numbers them, M for each sample.
        by_token: tokens have streams of their own, if inputs are known to be tokens.
        columns: for each sample, how many of the outputs it has; None if all.
        inputs: for each sample, how many of the inputs of a vector it has; None if all.
        memory_mask: as in `inputs_shown`.
        exactly: as in `numbers_of_inputs`.
    """
    B, M = shape[0], shape[-2]
    samples, per_head = sample_streams(stream, B, info.names), queries or M
    heads = M // per_head
    if by_token and memory_mask is None:
        numbers = info.numbers if queries is None else numbers_of_inputs(B, queries, info, exactly=exactly)
        if len(numbers) == B and len(numbers[0]) >= per_head:
            of_heads = tuple(
                tuple(n * heads + head if n >= 0 else -1 for head in range(heads) for n in last_numbers(row, per_head))
                for row in numbers
            )
            return TokenStreams(samples.streams, numbers=of_heads, growing=True)
    shown = inputs_shown(B, per_head, heads, info, memory_mask)
    if shown is None and columns is None and inputs is None:
        return samples
    return PaddedStreams(samples.streams, places=M, rows=shown, columns=columns, inputs=inputs)


def last_numbers(numbers: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The numbers of the inputs that a product gets: those of all tokens of the call, or of its last tokens only.

    Fewer inputs than tokens, such as the token of a text that stands for all of it, are taken for the last tokens that
    are not padding.
    """
    if count == len(numbers):
        return numbers
    tokens = tuple(number for number in numbers if number >= 0)[-count:]
    return (-1,) * (count - len(tokens)) + tokens


def numbers_of_inputs(B: int, queries: int, info: CallInfo, *, exactly: bool = False) -> Numbers:
    """The numbers of inputs that are tokens, `queries` for each of B samples.

    They are those of the call if it has any (and, with `exactly`, as many as queries), otherwise those by place, -1 at
    padding. Empty if tokens come all at once, as in an encoder.
    """
    if info.numbers and not (exactly and len(info.numbers[0]) != queries):
        return info.numbers
    if not info.numbers and info.at_once:
        return ()
    shown = inputs_shown(B, queries, 1, info, None)
    if shown is None:
        return (tuple(range(queries)),) * B
    number_of = [dict(zip(row, range(len(row)), strict=True)) for row in shown]
    return tuple(tuple(number.get(place, -1) for place in range(queries)) for number in number_of)


def numbers_of_queries(B: int, queries: int, info: CallInfo, name: str, *, needed: bool) -> Numbers:
    """The numbers of the queries of a product with K or V, `queries` for each of B samples.

    Args:
        B: number of samples.
        queries: number of queries of one head.
        info: what the call says of its batch.
        name: of the operand.
        needed: False if queries may come all at once, without numbers; the result then is empty.

    Raises:
        BadInput: they are needed, and the call does not tell them.
    """
    numbers = numbers_of_inputs(B, queries, info)
    if not numbers and not needed:
        return ()
    if len(numbers) != B or len(numbers[0]) < queries:
        raise BadInput(
            f"ages: {name}: cannot tell which tokens its {queries} queries are; call the whole model with tokens, or "
            "leave ages out"
        )
    return tuple(last_numbers(row, queries) for row in numbers)


def inputs_shown(
    B: int, queries: int, heads: int, info: CallInfo, memory_mask: Mask | None
) -> tuple[tuple[int, ...], ...] | None:
    """For each sample, which of its inputs [heads * queries] are not padding; None if all, or if nothing tells.

    `memory_mask` [B, queries], False at padding, is given for inputs that are not the new tokens of the call (see
    `State.memory`); it is empty if none of them is padding.
    """
    masks = memory_mask if memory_mask is not None else info.token_mask if info.memory_mask is None else ()
    if not masks or masks[0].shape != (B, queries) or bool(masks[0].all()):
        return None
    shown = [row.nonzero().flatten().tolist() for row in masks[0]]
    return tuple(tuple(head * queries + n for head in range(heads) for n in row) for row in shown)
