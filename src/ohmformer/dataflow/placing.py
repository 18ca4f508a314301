"""Places a workload with the sets of cells and softmax units that a dataflow needs."""

from __future__ import annotations

from typing import Any

from ohmformer.cost.layers import count_softmax_units
from ohmformer.cost.placement import Placement, place
from ohmformer.dataflow.spec import Dataflow, LayerOverlap
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.spec import Accelerator
from ohmformer.registry import called
from ohmformer.workload.spec import Workload


def sets_of(dataflow: Dataflow) -> dict[str, Any]:
    """The arguments of `place` that a dataflow decides.

    Raises:
        BadInput: a method of the dataflow fails, or gives another value than it may give.
    """
    name, kv, softmax = type(dataflow).__name__, called(dataflow, "kv_sets"), called(dataflow, "softmax_sets")
    if type(kv) is not int or kv not in (1, 2):
        raise BadInput(f"{name}.kv_sets(): gives {shown(kv)}; return 1 or 2")
    if not isinstance(softmax, str) or softmax not in ("one", "per_layer"):
        raise BadInput(f"{name}.softmax_sets(): gives {shown(softmax)}; return 'one' or 'per_layer'")
    return {"kv_sets": kv, "softmax_sets": softmax, "batching": dataflow.batching}


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
