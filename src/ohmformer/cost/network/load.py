"""The loads of the links of a placement, and what results say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ohmformer import units
from ohmformer.cost.network.links import SAME
from ohmformer.cost.stage import Stage
from ohmformer.hardware.chip import Chip

NETWORK, MEMORY = "network", "tile memory"
"""Names of the links."""

LIMITS = {NETWORK: ("the network", "network_max_load"), MEMORY: ("the memories of tiles", "buffer_bandwidth")}
"""Name of a link -> the link in words, and the field with its limit."""


def highest_loads(stages: Iterable[Stage]) -> dict[str, float]:
    """The highest load of each link in any stage, before links slow it: bytes that pass, over those that may pass.

    Links without a limit, and those that no stage uses, are left out.
    """
    network = memory = 0.0
    for stage in stages:
        network, memory = max(network, stage.network_load), max(memory, stage.memory_load)
    return {name: load for name, load in ((NETWORK, network), (MEMORY, memory)) if load}


def most_of(loads: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The highest load of each link among those of several placements."""
    found: dict[str, float] = {}
    for each in loads:
        found |= {name: max(load, found.get(name, 0.0)) for name, load in each.items()}
    return found


def link_notes(chip: Chip | None, loads: Mapping[str, float]) -> list[str]:
    """What the loads of a chip mean for its results, as sentences without a full stop.

    Args:
        chip: the chip; None if none is described.
        loads: see `highest_loads`; of several results, the highest.
    """
    if chip is None:
        return []
    limits = {NETWORK: chip.network_max_load, MEMORY: chip.buffer_bandwidth}
    found = []
    unknown = [LIMITS[name] for name, limit in limits.items() if limit is None]
    if unknown:
        fields, links = (" and ".join(words) for words in zip(*((field, link) for link, field in unknown), strict=True))
        verb = "is" if len(unknown) == 1 else "are"
        found.append(f"hardware.chip.{fields} {verb} not given: the bandwidth of {links} is taken to suffice")
    for name, load in loads.items():
        link, field = LIMITS[name]
        limit = limits[name]
        if limit is None or load <= 1 + SAME:
            continue
        value = f"{limit:g} packets per cycle" if name == NETWORK else units.show(limit, "B/s")
        end = "times leave that out" if chip.overload == "note" else "stages wait for that"
        found.append(f"{link} would carry {load:.3g} times hardware.chip.{field} = {value}; {end}")
    return found
