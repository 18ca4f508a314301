"""The energy of tiles that are on only while they work, without building jobs."""

from __future__ import annotations

from ohmformer.cost.placement import Placement
from ohmformer.dataflow.layer_cuts import segments
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import build_timeline


def gated_energy(placement: Placement, dataflow: Dataflow) -> float:
    """Energy of gated tiles: their standing power times the time for which each stage occupies its unit [J].

    It does not depend on the order of jobs. It equals that of the event engine up to rounding.
    """
    if not dataflow.has_closed_form:
        return sum(job.stage.standing * job.duration for job in build_timeline(placement, dataflow).jobs)
    total = 0.0
    for layer, count in placement.distinct():
        size = dataflow.size_of_block(layer.tokens)
        blocks, rest = divmod(layer.tokens, size)
        for first, end, whole in segments(layer, dataflow):
            for stage in layer.stages[first:end]:
                seconds = stage.occupancy(layer.tokens)
                if not whole:
                    seconds = blocks * stage.occupancy(size) + stage.occupancy(rest)
                total += count * placement.workload.batch * stage.standing * seconds
    return total
