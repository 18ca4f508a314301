"""What it takes to write the weights of a model once, before it is used."""

from __future__ import annotations

from ohmformer.cost import components
from ohmformer.cost.cost import Cost
from ohmformer.cost.operands import Pricing, used_arrays
from ohmformer.hardware.rules import Rules, as_rule
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.workload.spec import StaticMatMul, Workload


def programming(workload: Workload, hardware: Accelerator, *, rules: Rules | None = None) -> Cost:
    """Writing all static weights that lie in memristive cells: the energy of all, and the time of an array's rows.

    Arrays are written at the same time, the rows of one after another; matrices that several modules share once.

    Raises:
        BadInput: a price is missing; one line with the field and the remedy.
    """
    ruled = tuple((pattern, as_rule(pattern, value)) for pattern, value in (rules or {}).items())
    pricing, total = Pricing(hardware, 1, 1, 0, rules=ruled), Cost()
    for op in workload.ops:
        if not isinstance(op, StaticMatMul) or op.shared_with:
            continue
        place = pricing.where(op)
        if isinstance(place.engine, CrossbarEngine):
            plan = used_arrays(op, place).reads
            row = components.write(plan, place.role)
            time = min(plan.inputs, plan.array.rows) * row.interval
            total = total.beside(Cost(row.energy, time, time))
    return total
