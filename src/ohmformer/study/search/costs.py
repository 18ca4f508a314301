"""The costs of many designs, priced together by `explore`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any

from ohmformer.cost.machine.refresh import refreshes
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.lifetime import lifetime
from ohmformer.errors import BadInput
from ohmformer.study.cost import cost_options, works_of
from ohmformer.study.results.spec import Chosen
from ohmformer.study.spec import CostSettings
from ohmformer.workload.spec import Workload

Costs = dict[str, float]
"""Name of a quantity of the cost half -> its value in SI units."""

NO_LIFETIME = (
    "the lifetime is not known, since its cells have no endurance; state cell.endurance, or leave the lifetime out"
)


def costs_of(points: Sequence[CostSettings], names: Collection[str]) -> list[Costs | BadInput]:
    """The costs of designs, equal to those of `study.cost.price` up to rounding.

    Args:
        points: settings of the designs, whose mitigation leaves no choice.
        names: quantities that are needed; latency, energy, area and power are always there.

    Returns:
        For each design its costs, or why it has none.
    """
    found: list[Costs | BadInput | None] = [None] * len(points)
    works: dict[Any, list[Workload]] = {}
    groups: dict[Any, list[int]] = {}
    for number, settings in enumerate(points):
        try:
            key = settings.model, settings.task, settings.rules
            if key not in works:
                works[key] = works_of(settings)
            groups.setdefault((settings.mitigation, settings.rules), []).append(number)
        except BadInput as error:
            found[number] = error
    for numbers in groups.values():
        group = [points[number] for number in numbers]
        passes = [works[each.model, each.task, each.rules] for each in group]
        for number, costs in zip(numbers, _group(group, passes, names), strict=True):
            found[number] = costs
    return [each if each is not None else BadInput("has no cost") for each in found]


def _group(
    group: Sequence[CostSettings], passes: Sequence[Sequence[Workload]], names: Collection[str]
) -> list[Costs | BadInput]:
    """The costs of designs with the same mitigation and rules; if one is refused, each is priced by itself."""
    try:
        return list(_priced(group, passes, names))
    except BadInput as error:
        if len(group) == 1:
            return [BadInput(_placed(str(error)))]
    return [_group([each], [works], names)[0] for each, works in zip(group, passes, strict=True)]


def _placed(message: str) -> str:
    return f"mitigation.{message}" if message.startswith(("clip", "kv", "weights.")) else message


def _priced(group: Sequence[CostSettings], passes: Sequence[Sequence[Workload]], names: Collection[str]) -> list[Costs]:
    """The costs of designs with the same mitigation and rules.

    Raises:
        BadInput: one of them is refused.
    """
    triples = [
        (work, each.hardware, each.dataflow) for each, works in zip(group, passes, strict=True) for work in works
    ]
    run = explore(triples, **cost_options(group[0]))
    priced: list[Costs] = []
    start = 0
    for settings, works in zip(group, passes, strict=True):
        rows = range(start, start + len(works))
        start += len(works)
        latency, energy = (float(sum(values[row] for row in rows)) for values in (run.latency, run.energy))
        costs = {"latency": latency, "energy": energy, "power": energy / latency, "area": float(run.area[rows[-1]])}
        if not all(map(isfinite, costs.values())):
            raise BadInput(
                f"{', '.join(name for name in costs if not isfinite(costs[name]))}: is not finite; correct prices"
            )
        if "throughput" in names:
            costs["throughput"] = works[-1].batch / latency
        if "arrays" in names:
            costs["arrays"] = float(sum(run.placements[rows[-1]].arrays.values()))
        if "lifetime" in names:
            placements = [run.placements[row] for row in rows]
            costs["lifetime"] = _lifetime(settings, placements, [float(run.latency[row]) for row in rows])
        priced.append(costs)
    return priced


def _lifetime(settings: CostSettings, placements: Sequence[Placement], latencies: Sequence[float]) -> float:
    """The lifetime at the rate of the study, or with one pass right after another; infinite without writes.

    Raises:
        BadInput: cells are written whose endurance is not known.
    """
    options = settings.cost
    again = sum(
        refreshes(seconds, placement.refresh.interval) if placement.refresh else 0
        for placement, seconds in zip(placements, latencies, strict=True)
    )
    rate = options.rate or len(latencies) / sum(latencies)
    found = lifetime(
        placements[-1], rate, leveling=options.leveling, spare=options.spare, refreshes=again / len(latencies)
    )
    if found is None:
        raise BadInput(NO_LIFETIME)
    return found.seconds


def cost_after_choice(settings: CostSettings, chosen: Chosen | None, names: Collection[str]) -> Costs:
    """The costs of one design for which calibration has chosen mitigations.

    Raises:
        BadInput: it has no price.
    """
    from ohmformer.study.cost import price
    from ohmformer.study.join_cost import without_choice

    cost = price(without_choice(settings, chosen), chosen)
    costs = {"latency": cost.latency_s, "energy": cost.energy_J, "power": cost.power_W, "area": cost.area_m2}
    costs |= {"throughput": cost.throughput_per_s, "arrays": float(cost.counts["arrays"])}
    if "lifetime" in names:
        if cost.lifetime is None:
            raise BadInput(NO_LIFETIME)
        costs["lifetime"] = float("inf") if cost.lifetime_s is None else cost.lifetime_s
    return costs
