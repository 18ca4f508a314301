"""The time of computing of a single pass, refreshes left out."""

from __future__ import annotations

from dataclasses import replace

from ohmformer.cost.placement import Placement
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.jobs import check_size
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline


def work_of(placed: Placement, dataflow: Dataflow) -> float:
    """The time of computing of a pass [s]: from the closed form if there is one, else from the event engine.

    Raises:
        BadInput: there are too many blocks or jobs to compute.
    """
    placement = replace(placed, refresh=None)
    if dataflow.has_closed_form:
        return latency(placement, dataflow)
    check_size(placement, dataflow)
    return build_timeline(placement, dataflow).latency
