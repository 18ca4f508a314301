"""How long the links of a stage's tiles take for its bytes: their ports to the network, and their memories.

A stage whose bytes take longer than its work is overloaded: `Chip.overload` says what happens then. Latency of the
network is no part of it.
"""

from __future__ import annotations

from ohmformer.cost.attention.beside_products import timed_by_keys
from ohmformer.cost.attention.seen_keys import KeysPerQuery, PerQueryCost
from ohmformer.cost.network.traffic import Traffic
from ohmformer.cost.stage import Stage
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip

SAME = 1e-9
"""Difference up to which a load counts as allowed, relative to the limit."""


def carried(stage: Stage, traffic: Traffic, chip: Chip) -> Stage:
    """The stage as its links carry its bytes: slower if they are overloaded, unless the chip only notes it.

    Args:
        stage: the stage with the time of its work.
        traffic: its bytes.
        chip: the limits, and what happens beyond them.

    Raises:
        BadInput: a link is overloaded, and the chip refuses that; or it refuses overload and states no limit.
    """
    port, memory = chip.network_bandwidth, chip.buffer_bandwidth
    if port is None and memory is None:
        if chip.overload == "refuse":
            raise BadInput(
                "hardware.chip.overload = 'refuse': there is no limit to exceed; give network_packet and "
                "network_max_load, or buffer_bandwidth"
            )
        return stage
    if not stage.per_token:
        return stage
    network_time = 0.0 if port is None else traffic.mean_sent / port
    memory_time = 0.0 if memory is None else traffic.mean_passed / memory
    loaded = stage.with_loads(network_time / stage.per_token, memory_time / stage.per_token)
    if chip.overload == "note":
        return loaded
    if chip.overload == "refuse":
        _refuse(loaded, chip)
    links = ((traffic.sent, port, "network_max_load"), (traffic.passed, memory, "buffer_bandwidth"))
    for bytes_each, rate, field in links:
        if rate is None:
            continue
        slower = _at_least(loaded, bytes_each, rate, traffic.seen)
        if chip.overload == "refuse" and slower.per_token > loaded.per_token * (1 + SAME):
            raise BadInput(
                f"hardware.chip.{field} = {getattr(chip, field):g}: stage {stage.name} moves more for some tokens, "
                "though not for their mean; take overload = 'slow' or raise it"
            )
        loaded = slower
    return loaded


def _at_least(stage: Stage, bytes_each: PerQueryCost, rate: float, seen: KeysPerQuery | None) -> Stage:
    """The stage if every token takes at least the time in which its bytes pass a link.

    Args:
        stage: the stage.
        bytes_each: bytes of a token, by the keys that it sees.
        rate: bytes per second.
        seen: the keys that tokens see; None if they do not matter.
    """
    if bytes_each.terms:
        parts = stage.by_keys.parts if stage.by_keys is not None else (PerQueryCost(stage.per_token),)
        return timed_by_keys(stage, seen, (*parts, bytes_each.times(1 / rate)))
    seconds = bytes_each.constant / rate
    return stage if stage.by_keys is None and seconds <= stage.per_token else stage.at_least(seconds)


def _refuse(stage: Stage, chip: Chip) -> None:
    """Refuse a stage with an overloaded link.

    Raises:
        BadInput: one line with the load and the limit.
    """
    if stage.network_load > 1 + SAME:
        limit = chip.network_max_load or 0.0
        raise BadInput(
            f"hardware.chip.network_max_load = {limit:g}: a tile sends {stage.network_load * limit:.3g} packets per "
            f"cycle in stage {stage.name}, {stage.network_load:.3g} times as many; take overload = 'slow' or a wider "
            "network"
        )
    if stage.memory_load > 1 + SAME:
        rate = chip.buffer_bandwidth or 0.0
        raise BadInput(
            f"hardware.chip.buffer_bandwidth = {rate / 1e9:.4g} GB/s: stage {stage.name} moves "
            f"{stage.memory_load * rate / 1e9:.4g} GB/s through the memory of a tile; take overload = 'slow' or a "
            "faster memory"
        )
