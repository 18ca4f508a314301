"""Which tokens of K and V cells hold, and which a memory keeps: digital ones by position, and those without cells.

A query that sees n keys multiplies the digital ones among them in vector lanes, the next ones in cells, and those for
which there are no cells in vector lanes again (`overflow = "spill"`). D tokens of a sequence are digital at the same
time: its first ones, and the recent window of the query.
"""

from __future__ import annotations

from ohmformer.hardware.spec import ArrayEngine, Engine
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.spec import DynamicMatMul


def tokens_for_cells(op: DynamicMatMul, digital: int) -> int:
    """Tokens per sample that are not digital.

    Args:
        op: the product.
        digital: D, the largest number of digital tokens.
    """
    return max(0, op.tokens - digital)


def tokens_leaving(op: DynamicMatMul, digital: int) -> int:
    """Tokens per sample that go into cells in this pass, if the cells keep the cache of earlier passes.

    They are the new tokens that are not digital, and those that leave the recent window.
    """
    return tokens_for_cells(op, digital) - max(0, op.tokens - op.written - digital)


def tokens_read_digitally(op: DynamicMatMul, conditioning: Conditioning | None) -> int:
    """Tokens per sample that vector lanes read since they are digital: the first ones, and all recent windows.

    Args:
        op: the product, each query of which has a recent window of its own.
        conditioning: how K or V is conditioned; None if it is not.
    """
    if conditioning is None:
        return 0
    window = conditioning.last_tokens
    windows = op.queries + window - 1 if window else 0
    return min(op.tokens, conditioning.first_tokens + windows)


def slots_of(op: DynamicMatMul, engine: ArrayEngine, digital: int) -> int:
    """Number of tokens per sample that cells can hold; at least 1."""
    return engine.resident or (op.queries if engine.written == "left" else max(1, tokens_for_cells(op, digital)))


def tokens_written(op: DynamicMatMul, engine: ArrayEngine, digital: int, *, shared: bool) -> int:
    """Tokens per sample that a product writes: the new ones, or all if others have overwritten the cache.

    Others are layers that share the cells, and tokens of the same cache that take turns in too few cells. With digital
    tokens, new ones are those that leave the recent window.
    """
    if engine.written == "left":
        return op.queries
    tokens, new = tokens_for_cells(op, digital), tokens_leaving(op, digital)
    if tokens_spilled(op, engine, digital):
        return min(tokens if shared else new, slots_of(op, engine, digital))
    return tokens if shared or tokens > slots_of(op, engine, digital) else new


def tokens_spilled(op: DynamicMatMul, engine: Engine, digital: int) -> int:
    """Tokens per sample that have no cells, so that vector lanes multiply by them; 0 unless the engine spills."""
    if not isinstance(engine, ArrayEngine) or engine.overflow != "spill":
        return 0
    return max(0, tokens_for_cells(op, digital) - slots_of(op, engine, digital))


def tokens_in_cells(op: DynamicMatMul, engine: ArrayEngine, digital: int) -> int:
    """Tokens per sample that cells multiply by, in one turn or in several."""
    return tokens_for_cells(op, digital) - tokens_spilled(op, engine, digital)
