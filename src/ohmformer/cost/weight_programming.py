"""Cost of what is done to the static weights of a model beside its passes: programming, and readings against drift."""

from __future__ import annotations

from collections.abc import Iterator

from ohmformer.cost import array_costs
from ohmformer.cost.attention.write_lines import matrix_lines
from ohmformer.cost.cost import Cost
from ohmformer.cost.engine_choice import EngineChoice
from ohmformer.cost.operands import array_reads
from ohmformer.hardware.rules import RuleBook, Rules
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mapping.planning import Plan
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.workload.spec import StaticMatMul, Workload


def programming(
    workload: Workload,
    hardware: Accelerator,
    *,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
) -> Cost:
    """Cost of writing all static weights that lie in memristive cells.

    All arrays are written at the same time, the lines of an array one after another. With `residual.feedback`, the
    arrays of a matrix along its inputs follow one another. A matrix that several modules share is written once.

    Args:
        workload: the products.
        hardware: its engines need prices.
        rules: see `place`.
        weights: mitigation of the weights; residual writing adds read-backs.

    Returns:
        The energy of all weights; as latency and interval the time of the longest sequence of lines.

    Raises:
        BadInput: a price is missing; one line with the field and the remedy.
    """
    total = Cost()
    for plan, role, engine in _weights(workload, hardware, rules, weights):
        line = array_costs.write_cost(plan, role, lines=engine.write_lines)
        time = matrix_lines(plan, engine) * line.interval
        total = total.beside(Cost(line.energy, time, time))
    return total


def compensation_reading(
    workload: Workload,
    hardware: Accelerator,
    *,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
) -> Cost:
    """Cost of one reading of all weights whose drift is compensated: each row is driven alone, once.

    A compensation takes one such reading when the cells are new, and one whenever its factors are computed anew. All
    arrays are read at the same time, the rows of an array one after another. The mean over the results is left out.

    Args:
        workload: the products.
        hardware: its engines need prices.
        rules: see `place`.
        weights: mitigation of the weights.

    Returns:
        The energy of all weights; as latency and interval the time of the rows of one array. Nothing where no array
        has a `drift_compensation`.

    Raises:
        BadInput: a price is missing; one line with the field and the remedy.
    """
    total = Cost()
    for plan, role, _ in _weights(workload, hardware, rules, weights):
        if plan.array.drift_compensation != "none":
            row = array_costs.row_read_cost(plan, role)
            time = min(plan.inputs, plan.array.rows) * row.interval
            total = total.beside(Cost(row.energy, time, time))
    return total


def _weights(
    workload: Workload, hardware: Accelerator, rules: Rules | None, weights: WeightMitigation | None
) -> Iterator[tuple[Plan, str, CrossbarEngine]]:
    """The matrices of static weights in memristive cells, each once, with their role and engine."""
    choice = EngineChoice(hardware, rules=RuleBook.read(rules), weights=weights or WeightMitigation())
    tenants = choice.tenants(workload.ops)
    for op in workload.ops:
        if not isinstance(op, StaticMatMul) or id(op) in tenants:
            continue
        placed = choice.resolve(op)
        if isinstance(placed.engine, CrossbarEngine):
            yield array_reads(placed).matrices, placed.role, placed.engine
