"""Standing power: always on, or gated while tiles are idle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import Dataflow, LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import replace
from ohmformer.workload.shapes import shapes

NAMES = ("xformer_tvlsi_2023", "puma_asplos_2019", "nvm_ideal", "sram_iso_area")


def gated(name: str) -> Accelerator:
    return replace(load(name), "chip.idle_tiles", "gated")


def test_gated_tiles_by_hand() -> None:
    """BERT-base, 128 tokens, layer by layer: each stage is on alone, for the time in which it works."""
    work, hardware = shapes("bert-base", tokens=128), gated("xformer_tvlsi_2023")
    run = simulate(work, hardware, LayerSerial())
    assert hardware.chip is not None
    arrays = {"qkv": 432, "output": 144, "ffn1": 576, "ffn2": 576, "key": 384, "value": 384, "write": 768}
    stages = {stage.name: stage for stage in run.placement.layers[1].stages}
    assert run.placement.power == 0
    for name, count in arrays.items():
        assert stages[name].standing == pytest.approx(hardware.chip.tile_power * count / 48, rel=1e-12), name
    seconds = {name: stage.occupancy(128) for name, stage in stages.items()}
    in_layers = 12 * sum(stages[name].standing * seconds[name] for name in arrays)
    others = sum(
        stage.standing * stage.occupancy(layer.tokens)
        for layer in run.placement.layers
        if layer.scores is None
        for stage in layer.stages
    )
    assert run.energy_by("component")["static"] == pytest.approx(in_layers + others, rel=1e-9)


def test_tiles_that_stay_on_take_the_latency() -> None:
    work, hardware = shapes("bert-base", tokens=128), load("xformer_tvlsi_2023")
    run = simulate(work, hardware, LayerSerial())
    assert hardware.chip is not None
    static = hardware.chip.tile_power * run.placement.tiles * run.latency
    assert run.energy_by("component")["static"] == pytest.approx(static, rel=1e-12)
    assert all(stage.standing == 0 for stage in run.placement.stages())


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 200), st.integers(1, 3), st.integers(1, 80), st.sampled_from([0, 1, 2]))
@pytest.mark.slow
def test_gating_saves_energy_and_both_ways_of_timing_agree(
    name: str, tokens: int, batch: int, block: int, kind: int
) -> None:
    flow: Dataflow = (LayerSerial(), SequenceBlocking(block=block), LayerOverlap(block=block))[kind]
    work = shapes("bert-base", tokens=tokens, batch=batch)
    on, off = simulate(work, load(name), flow), simulate(work, gated(name), flow)
    assert off.latency == on.latency
    assert 0 < off.energy_by("component")["static"] <= on.energy_by("component")["static"] * (1 + 1e-9)
    assert explore([(work, gated(name), flow)]).energy[0] == pytest.approx(off.energy, rel=1e-9)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(BadInput, match=r"chip\.idle_tiles"):
        replace(load("xformer_tvlsi_2023"), "chip.idle_tiles", "sleepy")


@pytest.mark.parametrize("batching", ["pipelined", "serial"])
def test_gated_tiles_are_on_while_their_weights_are_loaded(batching: str) -> None:
    """512 arrays that all layers share: each layer of BERT-base fills them, once for all samples or once for each."""
    hardware, work = replace(gated("sram_iso_area"), "projection.arrays", 512), shapes("bert-base", tokens=8, batch=3)
    flow = LayerSerial.model_validate({"batching": batching})
    run = simulate(work, hardware, flow)
    loads = [job for job in run.timeline.jobs if job.stage.name == "load"]
    chip = hardware.chip
    assert chip is not None
    tiles = 512 / (chip.arrays_per_core * chip.cores_per_tile)
    assert len(loads) >= (36 if batching == "serial" else 12)
    assert loads[1].stage.standing == pytest.approx(tiles * chip.tile_power, rel=1e-12)
    working = sum(job.stage.standing * job.duration for job in run.timeline.jobs)
    assert run.energy_by("component")["static"] == pytest.approx(working, rel=1e-9)
    assert explore([(work, hardware, flow)]).energy[0] == pytest.approx(run.energy, rel=1e-9)
