"""An independent queueing simulation: stations in a fixed order, and blocks that carry all their edges.

It knows nothing of jobs, units or max-plus algebra: it sweeps over all (layer, sample, block, stage) until no start
moves any more, with every edge written out in full. A block waits for the results of others, and for stations that
others have left: a station is left before the result arrives if the stage has a fixed time, such as that of a link.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.spec import LayerSerial, SequenceBlocking
from tests.dataflow.list_scheduler import busy_and_late


@dataclass
class Visit:
    """One block at one station: its times, the visits whose result it waits for, and those whose leaving, with the time
    after which they leave."""

    busy: float
    time: float
    results: list[int] = field(default_factory=list)
    leaves: list[tuple[int, float]] = field(default_factory=list)


def queueing_latency(placement: Placement, dataflow: LayerSerial | SequenceBlocking) -> float:
    """The time at which the last result arrives."""
    visits = _visits(placement, dataflow)
    start = [0.0] * len(visits)
    moved = True
    while moved:
        moved = False
        for number, visit in enumerate(visits):
            came = [start[other] + visits[other].time for other in visit.results]
            left = [start[other] + stayed for other, stayed in visit.leaves]
            earliest = max([*came, *left], default=0.0)
            if earliest > start[number] + 1e-18:
                start[number], moved = earliest, True
    return max(begin + visit.time for begin, visit in zip(start, visits, strict=True))


def _visits(placement: Placement, dataflow: LayerSerial | SequenceBlocking) -> list[Visit]:
    visits: list[Visit] = []
    where: dict[tuple[int, int, int, int], int] = {}
    served: dict[str, list[tuple[int, float]]] = {}
    ends: dict[int, list[int]] = {sample: [] for sample in range(placement.workload.batch)}
    reads: dict[str, list[int]] = {}
    everything: list[int] = []
    for layer, sample in _order(placement, dataflow):
        placed = placement.layers[layer]
        size = placed.tokens if isinstance(dataflow, LayerSerial) else min(dataflow.block, placed.tokens)
        counts = [min(size, placed.tokens - begin) for begin in range(0, placed.tokens, size)]
        exact = isinstance(dataflow, LayerSerial) or dataflow.dependencies == "exact"
        waits = {placed.barrier, placed.gather, *placed.later_barriers} - {None} if exact else set()
        at_once = range(placed.gather, placed.barrier or 0) if exact and placed.gather is not None else range(0)
        first = len(visits)
        started = list(everything) if dataflow.batching == "serial" and layer == 0 else list(ends[sample])
        for part in _parts(len(placed.stages), waits):
            for block, tokens in enumerate(counts):
                for index in part:
                    here = tokens
                    if index in at_once:  # the whole sequence is the first block's, and nothing the others'
                        here = 0 if block else placed.tokens
                    visit = _visit(placed.stages[index], here, 0 if index in at_once else sum(counts[:block]))
                    if index == 0:
                        visit.results += started
                    elif index in waits:
                        visit.results += [where[layer, sample, each, index - 1] for each in range(len(counts))]
                    else:
                        visit.results.append(where[layer, sample, block, index - 1])
                    stage = placed.stages[index]
                    if stage.name == "write" and not block and (stage.shared or not placed.kept):
                        visit.results += reads.get("shared" if stage.shared else str(layer), [])
                    where[layer, sample, block, index] = len(visits)
                    for station in _stations(placement, layer, index) if here else ():
                        visit.leaves += served.setdefault(station, [])
                        memory = min(visit.busy, placed.stages[index].off_chip * here)
                        served[station].append((len(visits), memory if station == "off the chip" else visit.busy))
                    visits.append(visit)
        for block in range(len(counts)):
            for index, writer in _readers(placed):
                scope = "shared" if placed.stages[writer].shared else str(layer)
                reads.setdefault(scope, []).append(where[layer, sample, block, index])
        ends[sample] = everything = list(range(first, len(visits)))
    return visits


def _visit(stage: Stage, tokens: int, first: int) -> Visit:
    busy, late = busy_and_late(stage, tokens, first)
    return Visit(busy, busy + late)


def _parts(count: int, waits: set[int | None]) -> list[range]:
    edges = [0, *sorted(each for each in waits if each), count]
    return [range(first, end) for first, end in pairwise(edges)]


def _stations(placement: Placement, layer: int, index: int) -> list[str]:
    placed = placement.layers[layer]
    stage = placed.stages[index]
    own = stage.unit if stage.shared else f"{layer} {stage.unit}"
    found = [own, "all softmax"] if placement.softmax_sets == "one" and index in placed.softmax else [own]
    return [*found, "off the chip"] if stage.off_chip else found


def _readers(placed: PlacedLayer) -> list[tuple[int, int]]:
    """Positions of the stages that read cells of K or V, each with the position of the stage that writes them."""
    found, writer = [], None
    for index, stage in enumerate(placed.stages):
        if stage.name == "write":
            writer = index
        elif writer is not None and stage.engine == "attention" and stage.name != "conditioning":
            found.append((index, writer))
    return found


def _order(placement: Placement, dataflow: LayerSerial | SequenceBlocking) -> list[tuple[int, int]]:
    layers, samples = range(len(placement.layers)), range(placement.workload.batch)
    if dataflow.batching == "serial":
        return [(layer, sample) for sample in samples for layer in layers]
    return [(layer, sample) for layer in layers for sample in samples]
