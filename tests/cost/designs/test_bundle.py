"""Accelerators that differ in numbers alone are priced at once, all others apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ohmformer as of
from ohmformer.cost.designs.bundle import MOST_AT_ONCE, bundled, price_at_once
from ohmformer.cost.designs.per_design import Disagreement, PerDesign, value_at
from ohmformer.errors import BadInput
from ohmformer.schema import Spec, walk

MACHINE = of.load("xformer_tvlsi_2023")


def machines(path: str, values: list[Any]) -> list[of.Accelerator]:
    return [of.replace(MACHINE, path, value) for value in values]


def priced(found: list[of.Accelerator], price: Any) -> list[float]:
    shared = price_at_once(found, lambda each: each, lambda each: 0, price)
    return [value_at(one, place) for one, place in shared]


def test_only_numbers_that_differ_become_numbers_per_design() -> None:
    bundle = bundled(machines("attention.array.cost.read_energy", [1e-12, 2e-12]))
    found = {path: value for path, value, _ in walk(bundle) if isinstance(value, PerDesign)}
    assert sorted(found) == ["attention.key.array.cost.read_energy", "attention.value.array.cost.read_energy"]
    assert all(value.values.tolist() == [1e-12, 2e-12] for value in found.values())
    assert bundle.projection is MACHINE.projection
    assert bundled([MACHINE, MACHINE]) is MACHINE


def test_titles_and_sources_do_not_tell_accelerators_apart() -> None:
    found = [of.replace(MACHINE, "title", title) for title in ("one", "two")]
    assert bundled(found).projection is MACHINE.projection


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("projection.array.adc.columns_per_adc", [1, 8, 1]),
        ("chip.idle_tiles", ["on", "gated", "on"]),
        ("attention.refresh", [None, 1.0, None]),
        ("projection.array.inputs", [{"kind": "bit_serial"}, {"kind": "amplitude"}, {"kind": "bit_serial"}]),
    ],
)
def test_accelerators_that_differ_in_more_than_numbers_are_told_apart(path: str, values: list[Any]) -> None:
    with pytest.raises(Disagreement) as refused:
        bundled(machines(path, values))
    assert refused.value.outcomes.tolist() == [0, 1, 0]


def test_designs_that_decide_alike_are_priced_at_once() -> None:
    calls: list[int] = []

    def price(_: of.Accelerator, machine: of.Accelerator, count: int) -> float:
        calls.append(count)
        time: float = machine.projection.array.cost.read_time  # type: ignore[attr-defined]
        return time * 2 if time > 2e-8 else time

    times = np.linspace(1e-8, 3e-8, 20).tolist()
    found = priced(machines("projection.array.cost.read_time", times), price)
    assert found == [time * 2 if time > 2e-8 else time for time in times]
    assert sorted(calls) == [10, 10, 20]


def test_many_designs_are_priced_in_chunks() -> None:
    counts: list[int] = []
    price_at_once(
        [MACHINE] * (2 * MOST_AT_ONCE + 10), lambda each: each, lambda each: 0, lambda *given: counts.append(given[2])
    )
    assert sorted(counts) == [10, MOST_AT_ONCE, MOST_AT_ONCE]


def test_what_fails_for_many_is_priced_alone_and_the_first_refusal_counts() -> None:
    times = [3e-8, 1e-8, 5e-8, 4e-8, 2e-8]
    found = machines("projection.array.cost.read_time", times)

    def alone(_: of.Accelerator, machine: Spec, count: int) -> float:
        return float(machine.projection.array.cost.read_time)  # type: ignore[attr-defined]

    assert priced(found, alone) == times

    def refuse(_: of.Accelerator, machine: Spec, count: int) -> float:
        if (time := machine.projection.array.cost.read_time) > 3.5e-8:  # type: ignore[attr-defined]
            raise BadInput(f"too slow: {time}")
        return 0.0

    with pytest.raises(BadInput, match="too slow: 5e-08"):
        priced(found, refuse)
