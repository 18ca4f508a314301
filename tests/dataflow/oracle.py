"""An independent queueing simulation: stations in a fixed order, and jobs that carry all their edges.

It knows nothing of jobs, units or max-plus algebra: it sweeps over all (layer, sample, block, stage) until no start
moves any more, with every edge written out in full.
"""

from __future__ import annotations

from ohmformer.cost.placement import Placement
from ohmformer.dataflow.spec import LayerSerial, SequenceBlocking


def queueing_latency(placement: Placement, dataflow: LayerSerial | SequenceBlocking) -> float:
    """The time at which the last job leaves."""
    jobs, edges = _jobs(placement, dataflow)
    start = [0.0] * len(jobs)
    moved = True
    while moved:
        moved = False
        for number, before in enumerate(edges):
            earliest = max((start[other] + jobs[other] for other in before), default=0.0)
            if earliest > start[number] + 1e-18:
                start[number], moved = earliest, True
    return max(begin + length for begin, length in zip(start, jobs, strict=True))


def _jobs(placement: Placement, dataflow: LayerSerial | SequenceBlocking) -> tuple[list[float], list[list[int]]]:
    jobs: list[float] = []
    edges: list[list[int]] = []
    where: dict[tuple[int, int, int, int], int] = {}
    served: dict[str, list[int]] = {}
    ends: dict[int, list[int]] = {sample: [] for sample in range(placement.workload.batch)}
    reads: dict[str, list[int]] = {}
    everything: list[int] = []
    for layer, sample in _order(placement, dataflow):
        placed = placement.layers[layer]
        size = placed.tokens if isinstance(dataflow, LayerSerial) else min(dataflow.block, placed.tokens)
        counts = [min(size, placed.tokens - begin) for begin in range(0, placed.tokens, size)]
        at_once = range(placed.gather, placed.join or 0) if placed.gather is not None else range(0)
        exact = isinstance(dataflow, LayerSerial) or dataflow.dependencies == "exact"
        started = list(everything) if dataflow.batching == "serial" and layer == 0 else list(ends[sample])
        finished = []
        for block, tokens in enumerate(counts):
            for index, stage in enumerate(placed.stages):
                before = list(started) if index == 0 else [where[layer, sample, block, index - 1]]
                if exact and placed.join == index:
                    before += [
                        number for (a, b, c, d), number in where.items() if (a, b, d) == (layer, sample, index - 1)
                    ]
                unit = stage.unit if stage.shared else f"{layer} {stage.unit}"
                before += served.setdefault(unit, [])
                scope = "shared" if stage.shared else str(layer)
                if stage.name == "write":
                    before += [] if block else reads.get(scope, [])
                number = len(jobs)
                here = tokens
                if exact and index in at_once:  # the whole sequence is the first block's, and nothing the others'
                    here = 0 if block else placed.tokens
                length = max(stage.floor, stage.fixed + stage.per_token * min(here, stage.cap))
                jobs.append(length if here else 0.0)
                edges.append(before)
                where[layer, sample, block, index] = number
                served[unit].append(number)
                finished.append(number)
        # Exact edges need all fronts before any back; jobs of later blocks were not there yet.
        if exact and placed.join is not None:
            fronts = [where[layer, sample, block, placed.join - 1] for block in range(len(counts))]
            for block in range(len(counts)):
                edges[where[layer, sample, block, placed.join]] += fronts
        if exact and placed.gather:
            fronts = [where[layer, sample, block, placed.gather - 1] for block in range(len(counts))]
            edges[where[layer, sample, 0, placed.gather]] += fronts
        for block in range(len(counts)):
            for index, stage in enumerate(placed.stages):
                if stage.engine == "attention" and stage.name not in ("write", "conditioning"):
                    scope = "shared" if stage.shared else str(layer)
                    reads.setdefault(scope, []).append(where[layer, sample, block, index])
        ends[sample] = finished
        everything = finished
    return jobs, edges


def _order(placement: Placement, dataflow: LayerSerial | SequenceBlocking) -> list[tuple[int, int]]:
    layers, samples = range(len(placement.layers)), range(placement.workload.batch)
    if dataflow.batching == "serial":
        return [(layer, sample) for sample in samples for layer in layers]
    return [(layer, sample) for layer in layers for sample in samples]
