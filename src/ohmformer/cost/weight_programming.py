"""Cost of programming the static weights of a model once, before it is used."""

from __future__ import annotations

from ohmformer.cost import array_costs
from ohmformer.cost.attention.write_lines import matrix_lines
from ohmformer.cost.cost import Cost
from ohmformer.cost.engine_choice import EngineChoice
from ohmformer.cost.operands import array_reads
from ohmformer.hardware.rules import RuleBook, Rules
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
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
    choice = EngineChoice(hardware, rules=RuleBook.read(rules), weights=weights or WeightMitigation())
    total = Cost()
    tenants = choice.tenants(workload.ops)
    for op in workload.ops:
        if not isinstance(op, StaticMatMul) or id(op) in tenants:
            continue
        placed = choice.resolve(op)
        if isinstance(placed.engine, CrossbarEngine):
            plan = array_reads(placed).matrices
            line = array_costs.write_cost(plan, placed.role, lines=placed.engine.write_lines)
            time = matrix_lines(plan, placed.engine) * line.interval
            total = total.beside(Cost(line.energy, time, time))
    return total
