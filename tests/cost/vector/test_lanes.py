"""Vector units and attention units that layers share: what they take, what they cost, and what refuses them."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.explore import DesignPoint, explore
from ohmformer.dataflow.placing import place_for
from ohmformer.dataflow.serving.serve import serve
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.dataflow.spec import Dataflow, LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import Conditioning
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

PUMA = load(Accelerator, "puma_asplos_2019")
CHIP = PUMA.chip
assert CHIP is not None
PER_TILE = CHIP.cores_per_tile * CHIP.vector.lanes_per_core
TEXT = shapes("bert-base", tokens=6)
TOKENS = LayerOverlap(block=1)


def changed(hardware: Accelerator = PUMA, **fields: Any) -> Accelerator:
    for name, value in fields.items():
        hardware = replace(hardware, name.replace("__", "."), value)
    return hardware


def attention(**fields: Any) -> Accelerator:
    engine = {"kind": "simd", "ops_per_mac": 2.0, **fields}
    return changed(attention__key=engine, attention__value=engine)


def dynamic(run: Run) -> dict[str, float]:
    return {name: joules for name, joules in run.energy_by("component").items() if name != "static"}


def pools(run: Run) -> dict[str, int]:
    """Pool -> largest number of jobs that run in it at the same time."""
    spans: dict[str, list[tuple[float, int]]] = {}
    for number, job in enumerate(run.timeline.jobs):
        if job.pool and job.duration:
            start, end = run.timeline.schedule.start[number], run.timeline.schedule.end[number]
            spans.setdefault(job.unit, []).extend([(start, 1), (end, -1)])
    found = {}
    for unit, changes in spans.items():
        running = most = 0
        for _, change in sorted(changes):
            running += change
            most = max(most, running)
        found[unit] = most
    return found


def test_vector_units_take_the_digital_work_at_the_same_energy_and_values_travel_to_them() -> None:
    own, shared = simulate(TEXT, PUMA, TOKENS), simulate(TEXT, changed(chip__vector__units=4), TOKENS)
    before, after = dynamic(own), dynamic(shared)
    assert {name for name in before if after[name] != pytest.approx(before[name], rel=1e-12)} == {
        *("register", "buffer", "bus", "network")
    }
    stages = {stage.name: stage for stage in shared.placement.layers[1].stages}
    results, sums = 6 * 768, 6 * 768 * 5 * 2  # the sums of 6 row blocks, in 2 bytes
    assert CHIP is not None
    assert isinstance(CHIP.network_energy, float)
    assert stages["output"].energy["network"] == pytest.approx((results + sums) * CHIP.network_energy)
    assert stages["output_vector"].energy["network"] == pytest.approx(results * CHIP.network_energy)
    assert shared.placement.tiles == own.placement.tiles
    assert shared.latency > own.latency  # 4 units of 4 lanes for 48 tiles of 32 lanes
    assert pools(shared) == {"vector unit": 4}


def test_by_hand_one_unit_does_all_digital_work_one_token_after_another() -> None:
    """The unit is slow, so that it never rests, but before the first token and behind the last one."""
    hardware = changed(chip__vector__units=1, chip__vector__lanes_per_core=1)
    run = simulate(TEXT, hardware, TOKENS)
    work = sum(stage.occupancy(6) for layer in run.placement.layers for stage in layer.stages if stage.pool)
    arrays = sum(stage.time(1) for layer in run.placement.layers for stage in layer.stages if not stage.pool)
    assert work < run.latency < work + arrays + sum(s.fixed for layer in run.placement.layers for s in layer.stages)


@pytest.mark.parametrize("flow", [LayerSerial(), SequenceBlocking(block=2), TOKENS])
@pytest.mark.parametrize("batch", [1, 3])
def test_no_more_units_work_than_there_are(flow: Dataflow, batch: int) -> None:
    work = shapes("gpt2", tokens=5, phase="prefill", batch=batch)
    for hardware in (changed(chip__vector__units=3), attention(lanes=64, units=3)):
        found = pools(simulate(work, hardware, flow))
        assert found
        assert max(found.values()) <= 3


def test_enough_units_serve_as_if_each_token_had_its_own() -> None:
    many = [simulate(TEXT, changed(chip__vector__units=n), TOKENS).latency for n in (1, 2, 4, 72, 200)]
    assert many == sorted(many, reverse=True)
    assert many[-1] == many[-2]  # 6 tokens in at most 12 layers


def test_attention_units_of_the_chip_and_of_each_layer() -> None:
    once, one, four = (simulate(TEXT, attention(lanes=64, **more), TOKENS) for more in ({}, {"units": 1}, {"units": 4}))
    assert one.latency == pytest.approx(once.latency, rel=1e-12)  # one sequence: layers follow one another anyway
    assert four.latency < one.latency
    assert (pools(once), pools(one), pools(four)) == ({}, {"attention.key unit": 1}, {"attention.key unit": 4})


def test_causal_tokens_do_not_wait_for_a_layer() -> None:
    """Without units the lanes take layer after layer; a unit takes the token that came first."""
    work = shapes("gpt2", tokens=48, phase="prefill")
    ordered, first_come = (simulate(work, attention(lanes=4096, **more), TOKENS) for more in ({}, {"units": 1}))
    assert first_come.latency < 0.5 * ordered.latency


def test_lanes_of_the_layer_are_one_of_the_chips_vector_units() -> None:
    run = simulate(TEXT, changed(chip__vector__units=2), TOKENS)
    stages = [stage for stage in run.placement.layers[1].stages if stage.engine == "attention"]
    assert {(stage.unit, stage.pool) for stage in stages} == {("vector unit", 2)}
    assert CHIP is not None
    macs = 2 * 6 * 768
    lanes = CHIP.vector.lanes_per_core * CHIP.clock
    softmax = 12 * 6 * CHIP.vector.softmax
    assert stages[0].per_token == pytest.approx((2 * macs + softmax) / lanes, rel=1e-12)


def test_units_take_the_tiles_that_have_their_lanes() -> None:
    for more, tiles in (
        ({"lanes": 64, "units": 1000}, 1000 * 64 / PER_TILE),
        ({"lanes": 6400, "shared": "layer"}, 12 * 6400 / PER_TILE),
        ({"lanes": 3200, "units": 2, "shared": "layer"}, 12 * 6400 / PER_TILE),
    ):
        assert place_for(TOKENS, TEXT, attention(**more)).tiles == tiles
    base = attention(lanes=640)
    many = changed(base, chip__vector__units=10_000)
    assert place_for(TOKENS, TEXT, many).tiles == (640 + 10_000 * 4) / PER_TILE


def test_a_layer_with_lanes_of_its_own_waits_for_no_other_layer() -> None:
    work = shapes("gpt2", tokens=12, phase="prefill")
    chip, layer = (simulate(work, attention(lanes=64, shared=who), TOKENS) for who in ("chip", "layer"))
    assert layer.latency < 0.5 * chip.latency
    assert pools(layer) == {}


def test_explore_and_requests_take_the_event_engine() -> None:
    hardware = changed(load(Accelerator, "nvm_ideal"), chip__vector__units=5)
    work = shapes("gpt2", tokens=6, phase="prefill", batch=2)
    run = simulate(work, hardware, TOKENS)
    assert explore([DesignPoint(work, hardware, TOKENS)]).latency[0] == pytest.approx(run.latency, rel=1e-12)
    served = serve("gpt2", hardware, prompt=6, generate=3, batch=2, dataflow=TOKENS)
    assert served.ttft == pytest.approx(run.latency, rel=1e-12)
    step = simulate(shapes("gpt2", tokens=1, phase="decode", context=6, batch=2), hardware, TOKENS)
    assert served.decoding is not None
    assert served.decoding.latencies[0] == pytest.approx(step.latency, rel=1e-12)
    assert served.steady is None
    assert any("first come, first served" in note for note in run.notes)
    with pytest.raises(BadInput, match="chunked_prefill has no steps with mixed contexts"):
        served.chunked_prefill(3)


def test_too_many_decoding_steps_are_refused_before_they_are_priced() -> None:
    hardware = changed(load(Accelerator, "nvm_ideal"), chip__vector__units=5)
    with pytest.raises(BadInput, match=r"generate = 900: takes .* jobs in the event engine.*generate fewer"):
        serve("gpt2", hardware, prompt=6, generate=900, batch=64)


def test_gated_units_draw_the_power_of_their_cores() -> None:
    hardware = changed(chip__vector__units=2, chip__idle_tiles="gated")
    stages = [stage for stage in place_for(TOKENS, TEXT, hardware).layers[1].stages if stage.pool]
    assert CHIP is not None
    assert {stage.standing for stage in stages} == {CHIP.tile_power / CHIP.cores_per_tile}


def test_conditioning_of_k_and_v_runs_in_vector_units() -> None:
    hardware = changed(load(Accelerator, "nvm_ideal"), chip__vector__units=2)
    run = simulate(TEXT, hardware, TOKENS, kv=Conditioning(mean=True))
    stage = next(stage for stage in run.placement.layers[1].stages if stage.name == "conditioning")
    assert (stage.unit, stage.pool) == ("vector unit", 2)
    assert pools(run) == {"vector unit": 2}


def test_a_gpu_without_a_chip_needs_no_units() -> None:
    assert simulate(TEXT, load(Accelerator, "a100_sxm_40gb")).latency > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lanes": "of_layer", "units": 4}, "units = 4: needs a number of lanes for each unit"),
        ({"lanes": "of_layer", "shared": "layer"}, "shared = 'layer': lanes = 'of_layer' already belong to a layer"),
        ({"lanes": 64, "units": 0}, "units"),
        ({"lanes": 64, "shared": "head"}, "shared"),
    ],
)
def test_units_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        replace(PUMA, "attention.key", {"kind": "simd", "ops_per_mac": 2.0, **fields})
    assert "\n" not in str(error.value)


def test_chips_that_share_a_layer_refuse_vector_units() -> None:
    link = {"bandwidth": 1e9, "energy": 1e-12, "latency": 1e-9}
    system = {"chips": 2, "partition": "tensor", "link": link}
    hardware = changed(chip__vector__units=2, chip__tiles=400, system=system)
    with pytest.raises(BadInput, match=r"hardware\.chip\.vector\.units = 2: chips that share a layer"):
        simulate(TEXT, hardware)
    pipeline = changed(hardware, system__partition="pipeline")
    units = set(simulate(TEXT, pipeline, TOKENS).timeline.busy)
    assert {"chip 1: vector unit 1", "chip 2: vector unit 1"} <= units


@pytest.mark.parametrize("results", ["by_token", "by_sequence"])
@pytest.mark.parametrize("shared", ["chip", "layer"])
@pytest.mark.parametrize(("model", "phase", "batch"), [("bert-base", "encode", 1), ("gpt2", "prefill", 3)])
def test_closed_form_and_event_engine_agree_on_whole_sequences(
    results: str, shared: str, model: str, phase: str, batch: int
) -> None:
    hardware = attention(lanes=300, results=results, shared=shared)
    work = shapes(model, tokens=13, phase=phase, batch=batch)
    published = SequenceBlocking(block=5, dependencies="published")
    for flow in (LayerSerial(), TOKENS, LayerOverlap(block=5), SequenceBlocking(block=5), published):
        run = simulate(work, hardware, flow)
        assert latency(run.placement, flow) == pytest.approx(run.latency, rel=1e-9)
        assert explore([DesignPoint(work, hardware, flow)]).latency[0] == pytest.approx(run.latency, rel=1e-9)


def test_results_of_a_sequence_go_on_together() -> None:
    """A layer waits for the last query before its output projection, whose tokens then follow one another."""
    one, all_ = (simulate(TEXT, attention(lanes=64, results=each), TOKENS) for each in ("by_token", "by_sequence"))
    layer = all_.placement.layers[1]
    after = [stage for stage in layer.stages[2:] if stage.engine == "projection"]
    slowest = max(stage.per_token for stage in after)
    assert all_.latency > one.latency + 12 * 4 * slowest
    assert dynamic(all_) == pytest.approx(dynamic(one), rel=1e-12)
    assert simulate(TEXT, attention(lanes=64, results="by_token")).latency == pytest.approx(
        simulate(TEXT, attention(lanes=64, results="by_sequence")).latency, rel=1e-12
    )


def test_a_unit_takes_a_whole_sequence() -> None:
    hardware = attention(lanes=64, units=3, results="by_sequence")
    run = simulate(shapes("bert-base", tokens=6, batch=5), hardware, TOKENS)
    assert pools(run) == {"attention.key unit": 3}
    assert {job.share for job in run.timeline.jobs if job.pool} == {1 / 5}
