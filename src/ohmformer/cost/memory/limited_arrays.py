"""Arrays of limited number for weights: how many hold weights at the same time, and how often they are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from ohmformer.cost.engine_choice import PlacedOp
from ohmformer.cost.operands import arrays_of
from ohmformer.hardware.spec import SramEngine
from ohmformer.workload.spec import StaticMatMul


def limit_of(placed: PlacedOp) -> int | None:
    """Number of arrays that the engine of a product has for the weights of all layers; None if it is not limited."""
    op, engine = placed.op, placed.engine
    if not isinstance(op, StaticMatMul) or not isinstance(engine, SramEngine) or placed.role != "projection":
        return None
    return engine.arrays


def arrays_at_once(products: Iterable[PlacedOp], filled: float = 1.0) -> float:
    """Number of arrays that hold the operands of some products at the same time.

    Args:
        products: the products of a stage.
        filled: for weights, the share of the arrays in their tiles that counts as theirs; 1 for the arrays alone.
    """
    whole, limited, most = 0.0, 0, 0
    for placed in products:
        limit, count = limit_of(placed), arrays_of(placed)
        if limit is not None:
            limited, most = limited + count, limit
        else:
            whole += count / filled if isinstance(placed.op, StaticMatMul) else count
    return whole + min(limited, most) / filled


def array_turns(products: Iterable[PlacedOp]) -> int:
    """How often arrays of limited number are loaded to hold all weights of some products; 1 if they hold them at once.

    The products of a turn are computed for all tokens before the next turn begins.
    """
    limited = [placed for placed in products if limit_of(placed) is not None]
    if not limited:
        return 1
    return ceil(sum(arrays_of(placed) for placed in limited) / (limit_of(limited[0]) or 1))
