"""`Homes`: what lives in the memories of tiles, what lives off the chip, and in which shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from ohmformer.hardware.memory import Memory
from ohmformer.workload.spec import Phase

KV, WEIGHTS, TABLES, LOADED = "keys and values", "weights", "embedding tables", "loaded weights"
"""Kinds of values that need a memory. Loaded weights are those that an engine loads into its arrays for every use."""


@dataclass(frozen=True)
class Homes:
    """What lives in which memory.

    Attributes:
        on_chip: kind of values -> bytes in the memories of tiles.
        off_chip: kind of values -> bytes in the memory off the chip.
        phase: phase of the workload, which decides whether keys and values are kept.
        memory: the memory off the chip; None if nothing is there.
        tiles: number of memories of tiles that serve an engine without tiles of its own; 0 if there is none.
    """

    on_chip: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    off_chip: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    phase: Phase = "encode"
    memory: Memory | None = None
    tiles: int = 0

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """Kind of values -> share that is off the chip."""
        return {name: size / (size + self.on_chip.get(name, 0.0)) for name, size in self.off_chip.items() if size}

    @property
    def moves_weights(self) -> bool:
        """True if weights are read or loaded in every pass."""
        return any(kind in home for kind in (WEIGHTS, LOADED) for home in (self.on_chip, self.off_chip))

    @cached_property
    def key(self) -> tuple[object, ...]:
        """All that decides the price of a stage."""
        if self.memory is None:
            return (self.tiles,)
        kv = self.shares.get(KV, 0.0)
        shares = (kv, self.phase if kv else "", self.shares.get(WEIGHTS, 0.0), TABLES in self.shares)
        return (*shares, self.memory.bandwidth, self.memory.energy, self.tiles)
