"""The value that components return: energy by component, latency and interval, with a small algebra.

`latency` is from the first input to the last output, `interval` the time after which the next input may come. Nothing
accumulates in hidden state: costs are combined, and what is combined is a new value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Cost:
    """Energy [J] by component, latency [s] and interval [s]."""

    energy: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    latency: float = 0.0
    interval: float = 0.0

    @property
    def total(self) -> float:
        """Energy of all components [J]."""
        return sum(self.energy.values())

    def then(self, other: Cost) -> Cost:
        """One after the other, as stages of a pipeline: latencies add, the slower interval counts."""
        joined = add_energy(self.energy, other.energy)
        return Cost(joined, self.latency + other.latency, max(self.interval, other.interval))

    def beside(self, other: Cost) -> Cost:
        """At the same time, on hardware of their own: the slower latency and interval count."""
        joined = add_energy(self.energy, other.energy)
        return Cost(joined, max(self.latency, other.latency), max(self.interval, other.interval))

    def in_turn(self, other: Cost) -> Cost:
        """One after the other on the same hardware: latencies and intervals add."""
        joined = add_energy(self.energy, other.energy)
        return Cost(joined, self.latency + other.latency, self.interval + other.interval)

    def repeated(self, times: float) -> Cost:
        """`times` inputs, one interval after another."""
        energy = {name: value * times for name, value in self.energy.items()}
        latency = self.latency + (times - 1) * self.interval if times > 0 else 0.0
        return Cost(energy, latency, times * self.interval)


def add_energy(*parts: Mapping[str, float]) -> dict[str, float]:
    """Energies added component by component."""
    found: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = found.get(name, 0.0) + value
    return found


def all_beside(costs: Iterable[Cost]) -> Cost:
    """Costs of what runs at the same time."""
    found = Cost()
    for cost in costs:
        found = found.beside(cost)
    return found
