"""An independent list scheduler for overlapping layers: explicit jobs, each placed as soon as all it needs is placed.

It builds (layer, sample, block, stage) jobs and their edges from the rules alone, and uses neither jobs nor closed form
of the package.
"""

from __future__ import annotations

from math import ceil

from ohmformer.cost.attention.seen_keys import KeyTerm
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.spec import LayerOverlap

Key = tuple[int, int, int, int]
"""Layer, sample, block, stage."""


def list_schedule(placement: Placement, dataflow: LayerOverlap) -> tuple[float, float]:
    """The time of the last result, and the length of the longest path without waiting for units [s]."""
    sizes = [_sizes(layer, dataflow) for layer in placement.layers]
    todo = [
        (layer, sample, block, stage)
        for layer, placed in enumerate(placement.layers)
        for sample in range(placement.workload.batch)
        for stage in range(len(placed.stages))
        for block in range(1 if _whole(placed, stage) else len(sizes[layer]))
    ]
    start: dict[Key, float] = {}
    arrives: dict[Key, float] = {}
    longest: dict[Key, float] = {}
    free: dict[str, float] = {}
    queues: dict[str, list[Key]] = {}
    for key in sorted(todo, key=lambda k: (k[0], k[1], _part(placement.layers[k[0]], k[3]), k[2], k[3])):
        for unit in _units(placement, key):
            queues.setdefault(unit, []).append(key)
    while len(start) < len(todo):
        for queue in queues.values():
            if not queue:
                continue
            key = queue[0]
            units = _units(placement, key)
            needs = _needs(placement, dataflow, key, sizes)
            if any(queues[unit][0] != key for unit in units) or any(other not in start for other in needs):
                continue
            placed = placement.layers[key[0]]
            stage, size = placed.stages[key[3]], placed.tokens if _whole(placed, key[3]) else sizes[key[0]][key[2]]
            busy, late = busy_and_late(stage, size, sum(sizes[key[0]][: key[2]]))
            start[key] = max([0.0, *(arrives[other] for other in needs), *(free.get(unit, 0.0) for unit in units)])
            arrives[key] = start[key] + busy + late
            longest[key] = max([0.0, *(longest[o] for o in needs)]) + busy + late
            for unit in units:
                free[unit] = start[key] + (min(busy, stage.off_chip * size) if unit.endswith("off the chip") else busy)
                queues[unit].pop(0)
    return max(arrives.values()), max(longest.values())


def busy_and_late(stage: Stage, tokens: int, first: int) -> tuple[float, float]:
    """Time of a block on its unit, and how much later its result arrives: turn after turn, or token after token."""
    if stage.by_keys is not None and tokens:
        seen = stage.by_keys.seen
        keys = [seen.first + seen.step * (first + each) for each in range(tokens)]
        work = sum(
            max(part.constant + sum(_of_term(term, n) for term in part.terms) for part in stage.by_keys.parts)
            for n in keys
        )
        return max(stage.floor, work), max(stage.floor, stage.fixed + work) - max(stage.floor, work)
    busy = late = 0.0
    while tokens > 0:
        taken = int(min(tokens, stage.turn))
        work = stage.per_token * min(taken, stage.cap)
        busy += max(stage.floor, work)
        late = max(stage.floor, stage.fixed + work) - max(stage.floor, work)
        tokens -= taken
    return busy, late


def _of_term(term: KeyTerm, keys: int) -> float:
    """A term of the cost of a query that sees `keys` keys, written out from its definition."""
    counted = max(0, keys - term.skipped)
    return term.each * ceil(min(counted, term.most) / term.size)


def _sizes(layer: PlacedLayer, dataflow: LayerOverlap) -> list[int]:
    return [min(dataflow.block, layer.tokens - begin) for begin in range(0, layer.tokens, dataflow.block)]


def _whole(layer: PlacedLayer, stage: int) -> bool:
    return layer.gather is not None and layer.barrier is not None and layer.gather <= stage < layer.barrier


def _waits(layer: PlacedLayer) -> set[int]:
    return {cut for cut in (layer.barrier, layer.gather, *layer.later_barriers) if cut is not None}


def _part(layer: PlacedLayer, stage: int) -> int:
    return sum(cut <= stage for cut in _waits(layer))


def _name(placement: Placement, layer: int, stage: Stage) -> str:
    return f"{placement.layers[layer].chip} {stage.unit}" if stage.shared else f"layer {layer} {stage.unit}"


def _units(placement: Placement, key: Key) -> list[str]:
    layer = placement.layers[key[0]]
    units = [_name(placement, key[0], layer.stages[key[3]])]
    units += [f"{layer.chip} softmax units"] if placement.softmax_sets == "one" and key[3] in layer.softmax else []
    return [*units, f"{layer.chip} off the chip"] if layer.stages[key[3]].off_chip else units


def _needs(placement: Placement, dataflow: LayerOverlap, key: Key, sizes: list[list[int]]) -> list[Key]:
    layer, sample, block, stage = key
    placed = placement.layers[layer]
    needs: list[Key] = []
    if stage and (stage in _waits(placed) or _whole(placed, stage) != _whole(placed, stage - 1)):
        blocks = range(1 if _whole(placed, stage - 1) else len(sizes[layer]))
        needs += [(layer, sample, each, stage - 1) for each in blocks]
    elif stage:
        needs.append((layer, sample, block, stage - 1))
    elif layer:
        before = placement.layers[layer - 1]
        same = before.tokens == placed.tokens and not _whole(placed, 0)
        blocks = range(1 if _whole(before, len(before.stages) - 1) else len(sizes[layer - 1]))
        needs += [(layer - 1, sample, each, len(before.stages) - 1) for each in ([block] if same else blocks)]
    if placed.stages[stage].name == "write" and block == 0:
        needs += _readers(placement, key, sizes)
    return needs


def _readers(placement: Placement, key: Key, sizes: list[list[int]]) -> list[Key]:
    """All reads of the cells that a write stage overwrites."""
    layer, sample, _, stage = key
    writer = placement.layers[layer].stages[stage]
    if not writer.shared and placement.layers[layer].kept:
        return []
    uses = [
        (other, each)
        for other, placed in enumerate(placement.layers)
        for each in range(placement.workload.batch)
        if any(_name(placement, other, one) == _name(placement, layer, writer) for one in placed.stages)
        and (other, each) < (layer, sample)
    ]
    sets = placement.kv_sets if writer.shared else 1
    if len(uses) < sets:
        return []
    other, each = uses[-sets]
    placed = placement.layers[other]
    at = next(i for i, s in enumerate(placed.stages) if _name(placement, other, s) == _name(placement, layer, writer))
    found: list[Key] = []
    for place in range(at + 1, len(placed.stages)):
        if placed.stages[place].name == "write":
            break
        if placed.stages[place].engine == "attention" and placed.stages[place].name != "conditioning":
            found += [(other, each, b, place) for b in range(1 if _whole(placed, place) else len(sizes[other]))]
    return found
