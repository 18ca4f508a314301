"""Stages: how their energies add up."""

from __future__ import annotations

from ohmformer.cost.stage import Stage, merged, total_energy

LANES = {"vector": 2.0, "conditioning": 1.0}


def test_energies_add_by_component_operation_and_engine() -> None:
    """Merged stages are told apart by operation and engine; conditioning is an operation of its own."""
    key = Stage("key", "attention", "gpu", True, energy={"gpu": 4.0, **LANES})
    output = Stage("output", "projection", "gpu", True, energy={"gpu": 8.0})
    (both,) = merged([key, output])
    pairs = [(both, 2), (Stage("write", "attention", "w", energy={"write": 16.0}), 0.5)]
    assert total_energy(pairs) == {"gpu": 24.0, "vector": 4.0, "conditioning": 2.0, "write": 8.0}
    assert total_energy(pairs, "operation") == {"key": 12.0, "conditioning": 2.0, "output": 16.0, "write": 8.0}
    assert total_energy(pairs, "engine") == {"attention": 22.0, "projection": 16.0}


def test_what_takes_no_energy_is_an_operation_too() -> None:
    idle = Stage("value", "attention", "u")
    assert total_energy([(idle, 3)]) == {}
    assert total_energy([(idle, 3)], "operation") == {"value": 0.0}
    assert total_energy([(idle, 3)], "engine") == {"attention": 0.0}
