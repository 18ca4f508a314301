"""The cost of operations on vector lanes, and of softmax in units of its own."""

from __future__ import annotations

from ohmformer.cost.cost import Cost
from ohmformer.hardware.chip import Chip, SoftmaxUnit


def lanes_cost(chip: Chip, operations: float, count: int, vectors: float, *, name: str = "vector") -> Cost:
    """Cost of operations on vector lanes.

    Args:
        chip: clock and prices.
        operations: number of operations for all tokens.
        count: number of lanes.
        vectors: number of tokens.
        name: component of the breakdown.

    Returns:
        The energy of all operations; as interval the time per token.
    """
    time = operations / vectors / (count * chip.clock)
    return Cost({name: operations * chip.vector.energy_per_op}, 0.0, time)


def softmax_cost(chip: Chip, unit: SoftmaxUnit, rows: float, length: float) -> Cost:
    """Cost of softmax in dedicated units, one per head.

    Args:
        chip: clock.
        unit: lanes and prices.
        rows: number of rows of scores, of all heads.
        length: values per row, as their mean.

    Returns:
        The energy of all rows; as interval the time of one row in the lanes of its head.
    """
    return Cost({"softmax": rows * length * unit.energy_per_element}, 0.0, length / (unit.lanes_per_head * chip.clock))
