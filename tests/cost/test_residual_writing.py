"""Residual writing by hand: read-backs, slices that follow one another, and wear; what has no price is refused."""

from __future__ import annotations

import pytest
import torch

import ohmformer as of
from ohmformer.array.event_counter import counting
from ohmformer.array.folded_writes import write_folded
from ohmformer.cost.array_costs import write_cost
from ohmformer.cost.placement import place
from ohmformer.cost.weight_programming import programming
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial
from ohmformer.hardware.spec import Accelerator
from ohmformer.mapping.planning import plan
from ohmformer.mapping.write_effort import Effort, effort
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.shapes import shapes

WORK = shapes("deit-small", tokens=16)


def clipformer() -> Accelerator:
    found = of.load("clipformer_tcad_2024")
    assert isinstance(found, Accelerator)
    return found


HARDWARE = clipformer()
RESIDUAL = of.replace(HARDWARE, "attention.array.residual", {})


def test_a_line_is_written_slice_by_slice_and_read_back() -> None:
    """Four slices of 64 x 64 cells, 85.7 ns a write and 10 ns a read; a read-back as that of a verified write."""
    plain, array = HARDWARE.attention.array, RESIDUAL.attention.array
    once, made = (write_cost(plan(64, 64, each), "attention.key") for each in (plain, array))
    assert effort(array, 4) == Effort(1, 0.75, 4, 3, 1)
    one_read = (7.5e-12 / 64 + 0.39e-12) / 64 + 0.98e-15 + 1.5625e-12
    assert made.energy["write"] == once.energy["write"]
    assert made.energy["read back"] == pytest.approx(2 * 3 * 64 * 64 * one_read)
    assert made.interval == pytest.approx(4 * 85.7e-9 + 3 * 10e-9)


def test_an_analog_pair_is_converted_once() -> None:
    digital, analog = (of.replace(RESIDUAL.attention.array, "subtract", how) for how in ("digital", "analog"))
    both = [write_cost(plan(64, 64, each), "attention.key").energy["read back"] for each in (digital, analog)]
    share = (7.5e-12 / 64 + 0.39e-12) / 64
    assert (both[1] / (2 * 3 * 64 * 64) - share) * 2 == pytest.approx(both[0] / (2 * 3 * 64 * 64) - share, rel=0.2)


@pytest.mark.parametrize("subtract", ["digital", "analog"])
def test_events_are_those_that_are_simulated(subtract: str) -> None:
    """K and V of 12 layers: 6 heads of 64 features."""
    plain, machine = (of.replace(each, "attention.array.subtract", subtract) for each in (HARDWARE, RESIDUAL))
    before, after = (place(WORK, each).counts for each in (plain, machine))
    with counting() as simulated:
        write_folded(torch.zeros(6, WORK.tokens, 64), machine.attention.key.array)
    expected = simulated.times(24)
    assert after.cell_writes == before.cell_writes == expected.cell_writes
    assert after.cell_reads - before.cell_reads == expected.cell_reads
    assert after.adc_conversions - before.adc_conversions == expected.adc_conversions
    assert after.activations == before.activations


def test_one_cell_for_a_value_costs_what_a_write_costs() -> None:
    alone = of.replace(HARDWARE, "attention.array.bits_per_cell", 8)
    array = of.replace(alone, "attention.array.residual", {}).attention.array
    made, once = (write_cost(plan(64, 64, each), "attention.key") for each in (array, alone.attention.array))
    assert made == once


@pytest.mark.parametrize("flow", [LayerSerial(), LayerOverlap(block=8)])
def test_runs_take_longer_and_more_energy_but_wear_no_more(flow: LayerSerial | LayerOverlap) -> None:
    plain, run = simulate(WORK, HARDWARE, flow), simulate(WORK, RESIDUAL, flow)
    assert run.energy > plain.energy
    assert run.latency > plain.latency
    placed = (place(WORK, each).wear for each in (RESIDUAL, HARDWARE))
    made, once = ([(wear.max_writes, wear.pulses) for wear in each] for each in placed)
    assert made == once
    assert simulate(WORK, HARDWARE, flow, kv=Conditioning(residual={})).latency == run.latency


def test_weights_are_written_once_before_use() -> None:
    residual = of.replace(HARDWARE, "projection.array.residual", {})
    assert simulate(WORK, residual).energy == simulate(WORK, HARDWARE).energy
    plain, made = programming(WORK, HARDWARE), programming(WORK, residual)
    assert made.energy["write"] == plain.energy["write"]
    assert made.latency == pytest.approx(plain.latency / 85.7e-9 * (4 * 85.7e-9 + 3 * 10e-9))


def test_what_has_no_price_is_refused() -> None:
    columns = of.replace(RESIDUAL, "attention.key.write_lines", "columns")
    with pytest.raises(of.BadInput, match=r"residual writes are read back a row at a time, so a column has no price"):
        simulate(WORK, columns)
    fine = of.replace(RESIDUAL, "attention.array.residual.bits", 12)
    with pytest.raises(of.BadInput, match=r"array.residual.bits = 12: is above the 8 bits of the converter"):
        simulate(WORK, fine)


def test_residual_writing_of_weights_alone_is_programmed_alike() -> None:
    residual = of.replace(HARDWARE, "projection.array.residual", {"bits": 6})
    asked = of.WeightMitigation(residual={"bits": 6})
    assert programming(WORK, HARDWARE, weights=asked) == programming(WORK, residual)
    assert programming(WORK, HARDWARE, weights=asked).energy["read back"] > 0
    with pytest.raises(of.BadInput, match=r"array.residual.bits = 12: is above the 8 bits of the converter"):
        programming(WORK, HARDWARE, weights=of.WeightMitigation(residual={"bits": 12}))


def test_corrections_of_later_weights_go_through_all_inputs_of_a_matrix() -> None:
    """Four slices with a read-back each, and the 1,536 inputs of the second layer of an MLP one after another."""
    without, corrected = (
        programming(WORK, HARDWARE, weights=of.WeightMitigation(residual={"feedback": feedback}))
        for feedback in (False, True)
    )
    assert corrected.latency == pytest.approx(1536 * 4 * (85.7e-9 + 10e-9))
    assert without.latency == pytest.approx(64 * (4 * 85.7e-9 + 3 * 10e-9))
    assert corrected.energy["read back"] == pytest.approx(without.energy["read back"] * 4 / 3)
    assert corrected.energy["write"] == without.energy["write"]
    both = [
        simulate(WORK, HARDWARE, weights=of.WeightMitigation(residual={"feedback": feedback})).energy
        for feedback in (False, True)
    ]
    assert both[0] == both[1]
