"""Arrays of limited number: they compute no more than they can hold, and hold what the engine has, rules or not."""

from __future__ import annotations

import pytest

from ohmformer.cost.placement import place
from ohmformer.cost.tiles import array_limit
from ohmformer.dataflow import closed_form
from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import Dataflow, LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.hardware.entries import load
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import replace
from ohmformer.workload.shapes import Transformer, shapes

BERT_LAYER = 3_456
"""Arrays of a layer of BERT-base: 7,077,888 weights of 8 bits in arrays of 128 x 128 cells."""


def sram(arrays: int | None, **chip: object) -> Accelerator:
    hardware = replace(replace(load("sram_iso_area"), "projection.arrays", arrays), "chip.overload", "note")
    for name, value in chip.items():
        hardware = replace(hardware, f"chip.{name}", value)
    return hardware


def test_weights_take_turns_in_fewer_arrays_than_they_need() -> None:
    """Q, K and V need 864 arrays, output 288, each product of the feed-forward network 1,152; a read takes 100 ns."""
    work = shapes("bert-base", tokens=32)
    enough = {stage.name: stage.per_token for stage in place(work, sram(BERT_LAYER)).layers[1].stages}
    assert [enough[name] for name in ("qkv", "output", "ffn1", "ffn2")] == pytest.approx([100e-9] * 4)
    few = {stage.name: stage.per_token for stage in place(work, sram(288)).layers[1].stages}
    assert few["qkv"] == pytest.approx(3 * 100e-9)
    assert few["output+ffn1+ffn2"] == pytest.approx((1 + 4 + 4) * 100e-9)  # one after another, in the same arrays


def test_writing_the_parts_of_a_layer_takes_time_for_each_part() -> None:
    work, hardware = shapes("bert-base", tokens=32), replace(sram(288), "chip.dram.bandwidth", 1e17)
    setup = place(work, hardware).layers[1].setup
    assert setup is not None
    cell = hardware.projection.array.cell  # type: ignore[attr-defined]
    assert setup.floor == pytest.approx(BERT_LAYER / 288 * 128 * cell.write_time)


@pytest.mark.parametrize("flow", [LayerSerial(), SequenceBlocking(block=7), LayerOverlap(block=7)])
@pytest.mark.parametrize("arrays", [1, 100, 1_000, BERT_LAYER, None])
def test_operations_per_second_never_exceed_those_of_the_arrays(arrays: int | None, flow: Dataflow) -> None:
    work, hardware = shapes("bert-base", tokens=32, batch=3), sram(arrays, idle_tiles="gated")
    run = simulate(work, hardware, flow)
    assert closed_form.latency(run.placement, flow) == pytest.approx(run.latency, rel=1e-9)
    found = explore([(work, hardware, flow)])
    assert found.energy[0] == pytest.approx(run.energy, rel=1e-9)
    there = run.placement.arrays["projection"]
    assert there == min(array_limit(hardware) or 12 * BERT_LAYER, 12 * BERT_LAYER)
    weights = 12 * 7_077_888 * 96
    seconds = weights / (128 * 128 / 8) / there * 100e-9  # 8 arrays hold one bit each of 128 x 128 weights
    assert run.latency > seconds
    chip = hardware.chip
    assert chip is not None
    always_on = run.placement.tiles * chip.tile_power * run.latency
    assert run.energy_by("component")["static"] <= always_on * (1 + 1e-9)


def test_fewer_arrays_are_never_faster() -> None:
    work = shapes("bert-base", tokens=16)
    times = [simulate(work, sram(n), SequenceBlocking(block=4)).latency for n in (1, 30, 287, 288, 1_151, 3_455, 3_456)]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("rule", [Rule(scale="column"), Rule(percentile=99.0)])
def test_rules_on_scales_leave_the_number_of_arrays(rule: Rule) -> None:
    work = shapes("bert-base", tokens=32)
    plain, ruled = simulate(work, sram(4_000)), simulate(work, sram(4_000), rules={"*": rule})
    assert ruled.placement.arrays == plain.placement.arrays
    assert ruled.placement.homes == plain.placement.homes
    assert (ruled.latency, ruled.energy, ruled.area) == (plain.latency, plain.energy, plain.area)


def test_a_chip_with_given_tiles_is_not_rounded_up_to_nodes() -> None:
    """`granularity` says what is added where the number of tiles is not given."""
    model = Transformer(title="small", kind="encoder", layers=1, width=64, heads=2, hidden=64, entries=64, tokens=8)
    hardware = load("isaac_isca_2016")
    assert place(shapes(model), hardware).tiles == 168
    assert place(shapes(model), replace(hardware, "chip.tiles", 16)).tiles == 16
