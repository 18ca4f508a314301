"""Chips in results of cost: their number, what their links carry, and notes on chips that cannot be exposed at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ohmformer import units
from ohmformer.cost.chips.exposure import LARGEST_FIELD
from ohmformer.cost.chips.layout import Layout
from ohmformer.cost.chips.sums import bytes_on_links
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.serving.served import Served
from ohmformer.hardware.spec import Accelerator
from ohmformer.study.results.costs import ChipsResult, CostResult, ServedResult
from ohmformer.study.results.part import made
from ohmformer.workload.request import ListedSteps, Steps

MOST_SYSTEMS = 3
"""Number of different systems that notes list."""


def chips_result(placements: Sequence[Placement]) -> ChipsResult | None:
    """The chips of all passes of a point; None if there is one chip."""
    last = placements[-1]
    if last.layout is None or last.machine is None:
        return None
    sent = (
        bytes_on_links(placed.layout.workload, placed.hardware) for placed in placements if placed.layout is not None
    )
    return _chips(last.layout, last.machine, sum(sent))


def served_chips(served: Served) -> ChipsResult | None:
    """The chips of requests, whose links carry the bytes of all passes; None if there is one chip."""
    layout, decoding, hardware = served.prefill.layout, served.decoding, served.machine.hardware
    if layout is None:
        return None
    sent = bytes_on_links(layout.workload, hardware)
    if decoding is not None:
        sent += _bytes_of_steps(decoding.prices.steps, hardware)
    return _chips(layout, served.machine, sent)


def _bytes_of_steps(steps: Steps | ListedSteps, hardware: Accelerator) -> float:
    """Bytes that all chips send in all decoding steps; they grow evenly where sizes of operations do."""
    if isinstance(steps, Steps):
        return steps.count * (bytes_on_links(steps.first, hardware) + bytes_on_links(steps.last, hardware)) / 2
    return sum(bytes_on_links(work, hardware) for work in steps.workloads)


def _chips(layout: Layout, machine: Machine, sent: float) -> ChipsResult:
    """The chips of a layout, whose links carry `sent` bytes."""
    return made(
        ChipsResult,
        "chips.",
        count=layout.chips,
        groups=len(layout.ends),
        sharing=max(layout.sharing),
        largest_area_m2=machine.largest_chip,
        links_B=sent,
    )


def chip_notes(costs: Sequence[CostResult | ServedResult]) -> list[str]:
    """What systems of several chips consist of, and chips that are larger than lithography exposes at once."""
    systems = list(dict.fromkeys(_described(cost.chips) for cost in costs if cost.chips is not None))
    listed = systems[:MOST_SYSTEMS]
    if len(systems) > MOST_SYSTEMS:
        listed.append(f"and {len(systems) - MOST_SYSTEMS} more systems of several chips")
    return [*listed, *_too_large(costs)]


def _described(chips: ChipsResult) -> str:
    """Example: "16 chips of up to 61.5 mm² (2 groups of up to 8); 6.68 MB over links"."""
    groups = f"{chips.groups} groups" if chips.groups > 1 else "1 group"
    of_size = f" of up to {chips.sharing}" if chips.sharing > 1 else ""
    size = f"{units.square_mm(chips.largest_area_m2)} each" if chips.largest_area_m2 else "unknown area"
    return f"{chips.count} chips of up to {size}, in {groups}{of_size}: {units.show(chips.links_B, 'B')} over links"


def _too_large(costs: Sequence[CostResult | ServedResult]) -> list[str]:
    """A note on each kind of chip that is too large: the only one, or the largest of several."""
    found: Counter[bool] = Counter()
    largest: dict[bool, float] = {}
    for cost in costs:
        several = cost.chips is not None
        area = cost.area_m2 if cost.chips is None else cost.chips.largest_area_m2
        if area > LARGEST_FIELD:
            found[several] += 1
            largest[several] = max(largest.get(several, 0.0), area)
    notes = []
    for several, area in largest.items():
        where = "" if found.total() == len(costs) else f" (at {found[several]} of {len(costs)} points)"
        remedy = "lower hardware.chip.tiles, or let more chips share each layer" if several else "give hardware.system"
        what = "the largest of several chips" if several else "one chip"
        notes.append(
            f"{what} has {units.square_mm(area)}{where}, and lithography exposes at most "
            f"{units.square_mm(LARGEST_FIELD)} at once: {remedy} to price several chips and their links"
        )
    return notes
