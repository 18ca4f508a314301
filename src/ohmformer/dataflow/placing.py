"""Places a workload with the sets of cells and softmax units that a dataflow needs."""

from __future__ import annotations

from typing import Any

from ohmformer.cost.placement import Placement, count_softmax_units, place
from ohmformer.dataflow.spec import Dataflow, LayerOverlap
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.workload.spec import Workload


def sets_of(dataflow: Dataflow) -> dict[str, Any]:
    """The arguments of `place` that a dataflow decides."""
    return {"kv_sets": dataflow.kv_sets(), "softmax_sets": dataflow.softmax_sets()}


def place_for(dataflow: Dataflow, workload: Workload, hardware: Accelerator, **options: Any) -> Placement:
    """Price a workload on an accelerator with the sets that a dataflow needs; `options` are those of `place`.

    Raises:
        BadInput: as `place`, or a field of the dataflow does not apply to the accelerator.
    """
    placement = place(workload, hardware, **sets_of(dataflow), **options)
    check_softmax(placement, dataflow)
    return placement


def check_softmax(placement: Placement, dataflow: Dataflow) -> None:
    """Refuse shared softmax units where layers do not compete for them.

    Raises:
        BadInput: `softmax` is "shared", and at most one unit computes Q K^T beside softmax units.
    """
    asked = isinstance(dataflow, LayerOverlap) and dataflow.softmax == "shared"
    if asked and count_softmax_units(placement.layers) == 1:
        raise BadInput(
            "dataflow.softmax = 'shared': layers of this model do not compete for softmax units on this accelerator; "
            "leave it out (per_layer)"
        )
