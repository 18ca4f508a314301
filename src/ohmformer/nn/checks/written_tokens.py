"""A proof that the noise of K and V does not depend on the other rows of a batch, from a pass without noise.

What a cell holds of a sample follows from the tokens of that sample, its ranges and its random numbers, where the array
writes each token by itself. Such cells get the same noise alone and in a batch if they get the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ohmformer.array.writing import exact
from ohmformer.capture.inputs import batch_size, call
from ohmformer.nn.checks.comparing import TOLERANCE, named_rows
from ohmformer.nn.checks.sample_variants import checked_row
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.observation import Observation
from ohmformer.registry import is_own


@contextmanager
def keeping_tokens(operands: Iterable[Operand], sample: Any) -> Iterator[None]:
    """Context in which K and V keep the tokens of the checked row while ranges are calibrated on the sample batch."""
    noisy = [op for op in operands if isinstance(op, KVOperand) and not exact(op.array)]
    kept = [op for op in noisy if op.array.wires is None and _follows_tokens(op)] if batch_size(sample) > 1 else []
    for operand in kept:
        operand.watched_row = checked_row(sample)
    try:
        yield
    finally:
        for operand in kept:
            operand.watched_row = None


def writes_same_tokens(converted: nn.Module, operands: Iterable[Operand], alone: Any) -> bool:
    """Tell whether K and V of a sample get the same noise alone and in the sample batch, as far as tokens prove it.

    Args:
        converted: the converted model, in the mode `observe tokens`.
        operands: its operands; K and V hold what `keeping_tokens` kept of the sample, which is forgotten.
        alone: inputs of the sample.

    Returns:
        True if this is proved; False if noise may differ, which passes with noise must show.
    """
    all_kv = [operand for operand in operands if isinstance(operand, KVOperand)]
    noisy = [operand for operand in all_kv if not exact(operand.array)]
    in_batch = _taken(noisy)
    if not all(operand.separable() and _follows_tokens(operand) for operand in noisy):
        return False
    try:
        with named_rows(alone, 0):
            call(converted, alone)
    except Exception:  # a model may raise anything on inputs that were made for this check
        return False
    finally:
        by_itself = _taken(noisy)
        _taken(all_kv)  # the pass observed exact cells, too
    return all(
        len(first) == len(second) and all(map(_same_tokens, first, second))
        for first, second in zip(by_itself, in_batch, strict=True)
    )


def _taken(operands: Sequence[KVOperand]) -> list[tuple[Observation, ...]]:
    """Return what each operand has observed, and forget it there."""
    observed = [tuple(operand.watched) for operand in operands]
    for operand in operands:
        operand.watched.clear()
    return observed


def _follows_tokens(operand: KVOperand) -> bool:
    """True if noise in separable cells follows from tokens and random numbers, and all tokens come in one call.

    A kind of noise from outside the package may compute anything from the cells of all samples.
    """
    array, cell = operand.array, operand.array.cell
    own = all(is_own(type(kind)) for kind in (cell.write_noise, cell.read_noise, cell.drift))
    written_once = array.residual is None and operand.ages is None
    at_once = operand.conditioner is None and not operand.causal
    return own and written_once and at_once and operand.conditionable


def _same_tokens(alone: Observation, in_batch: Observation) -> bool:
    """True if the tokens of a sample are the same in both calls, in the same order and without padding."""
    if alone.unpadding is not None or in_batch.unpadding is not None or alone.tokens.shape != in_batch.tokens.shape:
        return False
    difference = (in_batch.tokens - alone.tokens).norm(dim=-1)
    return len(alone.tokens) == 1 and bool((difference <= TOLERANCE * alone.tokens.norm(dim=-1)).all())
