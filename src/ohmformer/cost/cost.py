"""`Cost`: energy by component, latency and interval, with an algebra that combines costs into new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ohmformer.cost.designs.per_design import largest


@dataclass(frozen=True)
class Cost:
    """Energy and time of an operation.

    Attributes:
        energy: component -> energy [J]. The components are array, dac, adc, sample, shift_add, write, verify,
            read back, register, buffer, bus, network, vector, softmax, conditioning, simd, dram, gpu and static.
        latency: time from the first input to the last output [s].
        interval: time after which the next input may come [s].
    """

    energy: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    latency: float = 0.0
    interval: float = 0.0

    @property
    def total(self) -> float:
        """Energy of all components [J]."""
        return sum(self.energy.values())

    def then(self, other: Cost) -> Cost:
        """Cost of both in series as stages of a pipeline: latencies add, the longer interval counts."""
        joined = sum_by_name(self.energy, other.energy)
        return Cost(joined, self.latency + other.latency, largest(self.interval, other.interval))

    def beside(self, other: Cost) -> Cost:
        """Cost of both in parallel on separate hardware: the longer latency and the longer interval count."""
        joined = sum_by_name(self.energy, other.energy)
        return Cost(joined, largest(self.latency, other.latency), largest(self.interval, other.interval))

    def in_turn(self, other: Cost) -> Cost:
        """Cost of both in series on the same hardware: latencies and intervals add."""
        joined = sum_by_name(self.energy, other.energy)
        return Cost(joined, self.latency + other.latency, self.interval + other.interval)


def sum_by_name(*parts: Mapping[str, float]) -> dict[str, float]:
    """Sums of values, such as energies, over all parts: name -> sum."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total
