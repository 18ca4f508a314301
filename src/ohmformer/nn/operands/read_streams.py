"""Which random numbers the reads of a product draw: those of its samples, or of each token in causal models.

Shapes: B samples, M input vectors of each: `queries` of one head after those of another.
"""

from __future__ import annotations

from ohmformer.nn.operands.memory import Mask
from ohmformer.nn.operands.state import CallInfo
from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.streams import PaddedStreams, SampleStreams, Stream, TokenStreams, sample_streams


def streams_of_samples(
    stream: Stream, B: int, M: int, queries: int, info: CallInfo, memory: Mask | None, columns: tuple[int, ...] | None
) -> SampleStreams:
    """One stream for each sample, from which padding draws nothing.

    Args:
        stream: of the operand.
        B: samples.
        M: input vectors of a sample, over all heads.
        queries: input vectors of a head.
        info: what the call says of its batch.
        memory: as in `inputs_shown`.
        columns: for each sample, how many of the outputs it has; None if all.
    """
    samples = sample_streams(stream, B, info.names)
    shown = inputs_shown(B, queries, M // queries, info, memory)
    if shown is None and columns is None:
        return samples
    return PaddedStreams(samples.streams, places=M, rows=shown, columns=columns)


def streams_of_tokens(stream: Stream, numbers: Numbers, M: int, queries: int, info: CallInfo) -> TokenStreams:
    """One stream for each token: `numbers` of at least as many tokens of each sample as there are queries.

    Heads of queries that share a head of keys are read one after the other, so each has numbers of its own.
    """
    heads = M // queries
    of_heads = tuple(
        tuple(n * heads + head if n >= 0 else -1 for head in range(heads) for n in row[-queries:]) for row in numbers
    )
    return TokenStreams(sample_streams(stream, len(numbers), info.names).streams, numbers=of_heads, growing=True)


def numbers_of_inputs(B: int, queries: int, info: CallInfo, *, exactly: bool = False) -> Numbers:
    """The numbers of inputs that are tokens, `queries` for each of B samples.

    Args:
        B: samples.
        queries: input vectors of a head.
        info: what the call says of its batch.
        exactly: count inputs by their place where the call numbers another count of tokens.

    Returns:
        The numbers of the call if it has any; otherwise those by place, -1 at padding. Empty if tokens come all at
        once, as in an encoder.
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


def inputs_shown(
    B: int, queries: int, heads: int, info: CallInfo, memory: Mask | None
) -> tuple[tuple[int, ...], ...] | None:
    """For each sample, which of its inputs [heads * queries] are not padding.

    Args:
        B: samples.
        queries: inputs of a head.
        heads: heads.
        info: what the call says of its batch.
        memory: for inputs that are not the new tokens of the call (see `State.memory`), a mask [B, queries] that is
            False at padding, or an empty tuple; None for the new tokens.

    Returns:
        None if all are shown, or if nothing says which.
    """
    masks = memory if memory is not None else info.padding if info.memory is None else ()
    if not masks or masks[0].shape != (B, queries) or bool(masks[0].all()):
        return None
    shown = [row.nonzero().flatten().tolist() for row in masks[0]]
    return tuple(tuple(head * queries + n for head in range(heads) for n in row) for row in shown)
