"""Inputs whose bits are integrated before one conversion: pulses, repetitions and phases."""

from __future__ import annotations

import pytest
import torch

from ohmformer.array import mvm, program
from ohmformer.array.converters import full_scale
from ohmformer.array.event_counter import counting
from ohmformer.array.spec import Crossbar
from ohmformer.cost.array_costs import mvm_cost
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load_crossbar
from ohmformer.mapping.planning import plan
from ohmformer.schema import replace


def integrated(**fields: object) -> Crossbar:
    array = load_crossbar("neurram_2022")
    for name, value in fields.items():
        array = replace(array, f"inputs.{name}", value)
    return array


@pytest.mark.parametrize(
    ("bits", "phases", "pulses", "reads"),
    [(1, 1, 1, 1), (2, 1, 1, 1), (3, 1, 2, 3), (4, 1, 3, 7), (6, 1, 5, 31), (6, 2, 5, 10), (8, 2, 7, 22), (8, 7, 7, 7)],
)
def test_repetition_takes_twice_the_reads_for_every_bit(bits: int, phases: int, pulses: int, reads: int) -> None:
    array = integrated(bits=bits, phases=phases)
    assert (array.cycles(), array.conversions()) == (pulses, phases)
    assert array.inputs.reads == reads  # type: ignore[union-attr]
    assert integrated(bits=bits, phases=phases, weighting="charge").inputs.reads == pulses  # type: ignore[union-attr]


def test_time_and_energy_by_hand() -> None:
    """6 bits in two phases: 5 pulses, 7 + 3 reads, two conversions of each of 256 columns."""
    array = integrated(bits=6, phases=2)
    cost = mvm_cost(plan(256, 128, array), 1, "projection")
    assert cost.interval == pytest.approx(10 * 270e-9 + 2 * 2.34e-6, rel=1e-12)
    energy = {
        "array": 5 * 2 * 125.69e-12,
        "dac": 5 * 256 * 1.8565e-12,
        "sample": 5 * 256 * 1.2420e-12,
        "adc": 2 * 256 * 3.7259e-12,
    }
    assert dict(cost.energy) == pytest.approx(energy, rel=1e-12)


def test_more_phases_than_pulses_are_refused() -> None:
    with pytest.raises(BadInput, match=r"phases = 4: is above 3 pulses of bits = 4; lower it, or raise bits"):
        integrated(phases=4)


@pytest.mark.parametrize("phases", [1, 2])
@pytest.mark.parametrize("encoding", ["differential", "offset"])
def test_the_events_of_a_simulated_product_are_those_that_are_priced(encoding: str, phases: int) -> None:
    array = integrated(phases=phases, weighting="charge")
    for name, value in (("rows", 8), ("columns", 4), ("encoding", encoding), ("cost", None)):
        array = replace(array, name, value)
    programmed = program(torch.ones(6, 10), array)
    with counting() as counted:
        mvm(torch.ones(3, 10), programmed, level="cell", adc_range=(-1.0, 1.0))
    expected = plan(6, 10, array).reads(3)
    assert counted == expected


def test_the_ranges_of_groups_are_those_of_the_largest_group() -> None:
    """Five pulses in two groups of 3 and 2: up to 7, so 8 rows of digits up to 7 give 392; both signs."""
    array = replace(integrated(bits=6, phases=2), "rows", 8)
    assert full_scale(array, signed=True) == (-392.0, 392.0)
    assert full_scale(replace(array, "subtract", "digital"), signed=False) == (0.0, 392.0)
