"""Requests on several chips: every pass runs on the same chips, and free links are no links."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import ohmformer as of
from ohmformer.cost.chips.layout import SharedChips
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.placing import place_for
from ohmformer.dataflow.serving.served import Served
from ohmformer.dataflow.timeline import Timeline, build_timeline
from ohmformer.errors import BadInput
from tests.cases import quick_first
from tests.cost.chips.build import FREE, LINK, several
from tests.dataflow.serving.test_gated_request import InJobs
from tests.dataflow.serving.test_request_homes import ALL_LANES, KV_LANES, SPILLED, machine
from tests.dataflow.serving.test_step_latency import mixed_latency

SIZES: dict[str, Any] = {"layers": 4, "width": 64, "heads": 4, "hidden": 128, "entries": 100, "head": 100}
SMALL = of.Transformer(title="small", kind="decoder", tokens=8, **SIZES)
GROUPED = of.Transformer(
    title="grouped", kind="decoder", gated=True, rotary=True, kv_heads=2, tokens=8, **{**SIZES, "width": 128}
)
SYSTEMS: dict[str, dict[str, Any]] = {
    "pipeline": {"chips": 3},
    "tensor": {"partition": "tensor", "degree": 2},
    "wide tensor": {"partition": "tensor", "degree": 4, "links": 2},
    "both": {"partition": "tensor", "degree": 2, "chips": 4, "links": 2},
}
FLOWS: list[of.Dataflow] = [
    of.LayerSerial(),
    of.LayerSerial(batching="serial"),
    of.SequenceBlocking(block=5),
    of.LayerOverlap(block=4),
    InJobs(),
]
GATED = of.replace(of.load("nvm_ideal"), "chip.idle_tiles", "gated")
MACHINES = {
    "nvm_ideal": of.load("nvm_ideal"),
    "xformer": of.load("xformer_tvlsi_2023"),
    "puma": of.load("puma_asplos_2019"),
    "a100": of.load("a100_sxm_40gb"),
    "gated, with refresh": of.replace(GATED, "attention.refresh", "1 ms"),
    "overflowing caches": machine("xformer_tvlsi_2023", KV_LANES, 256),
    "weights in memories": machine("puma_asplos_2019", ALL_LANES, 1024),
    "spilled tokens": machine("nvm_ideal", {**SPILLED, "chip.idle_tiles": "gated"}, 64),
}


def on_chips(served: Served, workload: of.Workload, flow: of.Dataflow) -> Timeline:
    """A pass of its own on the chips of a request, by the event engine; the closed form agrees."""
    tiles = tuple(chip.used.total for chip in served.machine.groups)
    shared = SharedChips(served.prefill.layout, tiles=tiles)
    placed = place_for(flow, workload, served.machine.hardware, shared=shared)
    run = build_timeline(placed.moved_to(served.machine), flow)
    if flow.has_closed_form:
        assert latency(run.placement, flow) == pytest.approx(run.work, rel=1e-9)
    return run


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("system", quick_first(SYSTEMS, 2))
def test_passes_equal_simulations_on_the_same_chips(name: str, system: str) -> None:
    hardware = several(MACHINES[name], **SYSTEMS[system])
    first = list(MACHINES).index(name) + 2 * list(SYSTEMS).index(system)
    for number in (first, first + 3):  # two flows of each, all flows of each machine
        flow, model, batch = FLOWS[number % 5], (SMALL, GROUPED)[number % 2], 1 + number % 3
        served = of.serve(model, hardware, prompt=6, generate=31, batch=batch, dataflow=flow)
        assert served.decoding is not None
        prefill = on_chips(served, of.shapes(model, tokens=6, batch=batch, phase="prefill"), flow)
        assert served.prefill_work == pytest.approx(prefill.work, rel=1e-9)
        again = served.refresh.seconds if served.refresh else np.zeros(31)
        joules = served.refresh.joules + served.refresh.gated if served.refresh else np.zeros(31)
        power = served.machine.power
        dynamic = sum(prefill.placement.energy.values()) + prefill.gated + power * (prefill.work + again[0])
        assert served.prefill_energy == pytest.approx(dynamic + joules[0], rel=1e-9)
        assert served.timeline().energy == pytest.approx(prefill.energy, rel=1e-9)
        for step in (0, 13, 29):
            work = of.shapes(model, phase="decode", context=6 + step, batch=batch)
            run = on_chips(served, work, flow)
            assert served.decoding.latencies[step] == pytest.approx(run.work, rel=1e-9)
            assert served.step_latency[step] == pytest.approx(run.work + again[1 + step], rel=1e-9)
            dynamic = sum(run.placement.energy.values()) + run.gated + power * served.step_latency[step]
            assert served.step_energy[step] == pytest.approx(dynamic + joules[1 + step], rel=1e-9)
            assert served.timeline(step).latency == pytest.approx(run.work, rel=1e-9)
            assert served.timeline(step).energy == pytest.approx(run.energy, rel=1e-9)
        for kind in ("component", "operation", "engine"):
            parts = served.energy_by(kind)  # type: ignore[arg-type]
            assert sum(parts.values()) == pytest.approx(served.energy, rel=1e-12)
            assert parts["link"] > 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_passes_equal_simulate_where_chips_have_a_given_size(system: str) -> None:
    hardware = several("nvm_ideal", 40, **{"chips": 4, **SYSTEMS[system]})
    served = of.serve(SMALL, hardware, prompt=6, generate=4, batch=2, dataflow=of.LayerOverlap(block=4))
    for step in (None, 0, 1, 2):
        sizes: dict[str, Any] = {"phase": "prefill", "tokens": 6} if step is None else {"context": 6 + step}
        work = of.shapes(SMALL, batch=2, **{"phase": "decode", **sizes})
        run = of.simulate(work, hardware, of.LayerOverlap(block=4))
        assert served.timeline(step).latency == pytest.approx(run.latency, rel=1e-9)
        assert served.timeline(step).energy == pytest.approx(run.energy, rel=1e-9)
        assert run.area == served.area


@pytest.mark.parametrize("name", ["nvm_ideal", "xformer", "weights in memories", "overflowing caches"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("flow", [of.LayerSerial(), of.LayerSerial(batching="serial"), of.LayerOverlap()], ids=str)
@pytest.mark.slow
def test_steps_with_mixed_contexts_equal_the_event_engine(name: str, system: str, flow: of.Dataflow) -> None:
    served = of.serve(SMALL, several(MACHINES[name], **SYSTEMS[system]), prompt=6, generate=5, batch=3, dataflow=flow)
    assert served.decoding is not None
    assert served.steady is not None
    mixed, ahead = served.decoding.mixed, (0, 1, 2)
    placed = [mixed.placement(step) for step in range(4)]
    if flow.batching == "serial":
        expected = sum(build_timeline(each, flow).latency for each in placed)
    else:
        expected = sum(mixed_latency([placed[(step + more) % 4] for more in ahead]) for step in range(4))
    assert mixed.mixed_time(ahead) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("chips", [2, 3, 5])
@pytest.mark.parametrize("changes", [{}, {"chip.idle_tiles": "gated"}, {"attention.refresh": "1 ms"}], ids=str)
@pytest.mark.slow
def test_a_pipeline_with_free_links_is_one_large_chip(chips: int, changes: dict[str, Any]) -> None:
    """Samples one by one, so that nothing gains from a second set of softmax units."""
    hardware, flow = of.load("nvm_ideal"), of.LayerSerial(batching="serial")
    for path, value in changes.items():
        hardware = of.replace(hardware, path, value)
    sizes: dict[str, Any] = {"prompt": 20, "generate": 40, "batch": 2, "dataflow": flow}
    one, run = (of.serve("gpt2", each, **sizes) for each in (hardware, several(hardware, link=FREE, chips=chips)))
    late = (chips - 1) * 2 * 768 * hardware.value_bytes / FREE["bandwidth"]  # of two samples, for a token
    assert run.prefill_work - 20 * late == pytest.approx(one.prefill_work, rel=1e-9)
    assert run.decoding is not None
    assert one.decoding is not None
    assert run.decoding.latencies - late == pytest.approx(one.decoding.latencies, rel=1e-9)
    parts = [{**each.energy_by("component"), "static": 0.0, "link": 0.0} for each in (one, run)]
    assert parts[1] == pytest.approx(parts[0], rel=1e-9)
    assert run.machine.arrays == one.machine.arrays
    assert {(wear.max_writes, wear.mean_writes) for wear in run.wear} == {
        (wear.max_writes, wear.mean_writes) for wear in one.wear
    }
    assert run.lifetime(1.0) == one.lifetime(1.0)
    assert run.steady is not None
    assert one.steady is not None
    if not changes.get("attention.refresh"):
        assert run.steady.output_tokens_per_s == pytest.approx(one.steady.output_tokens_per_s, rel=1e-5)
    for layer, role in itertools.product((0, 11), ("attention.key", "attention.value")):
        keys = [each.ages(1).of(layer=layer, role=role) for each in (one, run)]
        for query, key in ((19, 0), (30, 2), (58, 50)):
            assert keys[1].age(query, key) == pytest.approx(keys[0].age(query, key), rel=1e-5)


def test_chips_are_sized_for_the_longest_cache_and_the_whole_batch() -> None:
    hardware = several("nvm_ideal", chips=3)
    served = of.serve("gpt2", hardware, prompt=100, generate=200, batch=2)
    longest = of.simulate(of.shapes("gpt2", phase="decode", context=298, batch=2), hardware)
    assert served.area == longest.area
    assert served.machine.power == longest.placement.power
    assert served.machine.arrays == longest.placement.arrays
    assert longest.placement.layout is not None
    for placed in (served.prefill, served.alone, served.timeline(0).placement, served.timeline(198).placement):
        assert placed is not None
        assert placed.layout is not None
        assert placed.layout.ends == longest.placement.layout.ends
    fewest = of.serve("gpt2", several("nvm_ideal", 138), prompt=100, generate=900, batch=4)
    first = of.simulate(of.shapes("gpt2", phase="decode", context=100, batch=4), several("nvm_ideal", 138))
    assert first.placement.layout is not None
    assert fewest.machine.chips > first.placement.layout.chips


def test_chips_have_room_for_the_queries_of_the_prefill_and_for_the_values_of_the_last_step() -> None:
    """X-Former stores Q, of which the prefill has as many as the prompt, and V, of which the last step has most."""
    hardware = of.load("xformer_tvlsi_2023")
    for role in ("key", "value"):
        hardware = of.replace(hardware, f"attention.{role}.resident", None)
    hardware = several(hardware, 80)
    served = of.serve("gpt2", hardware, prompt=500, generate=500)
    assert all(chip.used.total == 80 for chip in served.machine.groups)
    for role in ("attention.key", "attention.value"):
        assert served.prefill.machine is not None
        both = served.prefill.machine.arrays[role], served.timeline(498).placement.arrays[role]
        assert served.machine.arrays[role] == max(both)


def test_a_link_by_hand() -> None:
    """Three chips, links of 1 GB/s and 100 ns: 2 tokens of 768 values cross twice in each of 9 steps.

    The prompt has 20 tokens, of which the second link takes as many if the head does not stand alone on the last chip.
    """
    slow, free = ({"bandwidth": 1e9, "energy": 10e-12, "latency": 100e-9}, FREE)
    sizes: dict[str, Any] = {"prompt": 20, "generate": 10, "batch": 2, "dataflow": of.LayerSerial(batching="serial")}
    run, none = (of.serve("gpt2", several("nvm_ideal", link=link, chips=3), **sizes) for link in (slow, free))
    size = 768 * run.machine.hardware.value_bytes
    one_token = 2 * (size / 1e9 + 100e-9)
    gone = 2 * size / FREE["bandwidth"]
    assert run.step_latency == pytest.approx(none.step_latency + 2 * (one_token - gone), rel=1e-9)
    prompt = 2 * (20 * size / 1e9 + 100e-9)
    assert run.ttft == pytest.approx(none.ttft + 2 * (prompt - 20 * gone), rel=1e-9)
    assert run.energy_by("component")["link"] == pytest.approx(10e-12 * 2 * 2 * size * (20 + 9), rel=1e-12)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("flow", [of.LayerSerial(), of.LayerOverlap(block=8)], ids=str)
@pytest.mark.slow
def test_faster_links_never_hurt(system: str, flow: of.Dataflow) -> None:
    for name, values in (("bandwidth", (1e9, 1e10, 1e11)), ("latency", (1e-6, 1e-8, 0.0))):
        found = [
            of.serve(
                SMALL,
                several("nvm_ideal", link={**LINK, name: value}, **SYSTEMS[system]),
                prompt=20,
                generate=6,
                batch=3,
                dataflow=flow,
            )
            for value in values
        ]
        for field in ("ttft", "tpot", "latency"):
            times = [getattr(each, field) for each in found]
            assert times == sorted(times, reverse=True), field
        rates = [each.steady.output_tokens_per_s for each in found if each.steady is not None]
        assert rates == sorted(rates)
        assert len({each.energy_by("component")["link"] for each in found}) == 1


@pytest.mark.parametrize(("gpus", "published"), [(2, 168.84), (4, 254.02), (8, 328.43)])
def test_tokens_per_second_of_gpus_that_share_each_layer(gpus: int, published: float) -> None:
    """A request with a prompt of 5 tokens and 200 generated ones, against a rate to which nothing was fitted."""
    hardware = of.replace(of.load("a100_sxm_80gb_x8"), "system.degree", gpus)
    served = of.serve("llama-2-7b", hardware, prompt=5, generate=200)
    assert served.machine.chips == gpus
    assert served.output_tokens_per_s / published == pytest.approx(1.07, abs=0.1)
    middle = of.simulate(of.shapes("llama-2-7b", phase="decode", context=104), hardware)
    assert served.tpot == pytest.approx(middle.latency, rel=1e-3)


def test_gpus_hold_the_activations_of_the_prompt_beside_the_longest_cache() -> None:
    """As few GPUs as hold both: fewer would hold either pass alone."""
    small = of.replace(of.load("a100_sxm_80gb_x8"), "engine.memory", "17 GiB")
    small = small.model_copy(update={"system": small.system.model_copy(update={"chips": None, "degree": None})})  # type: ignore[union-attr]
    served = of.serve("llama-2-7b", small, prompt=2000, generate=2000, batch=8)
    needed = [
        of.place(of.shapes("llama-2-7b", batch=8, **sizes), small).layout.chips  # type: ignore[union-attr]
        for sizes in ({"tokens": 2000, "phase": "prefill"}, {"context": 3998, "phase": "decode"})  # type: ignore[arg-type]
    ]
    assert served.machine.chips >= max(needed)


def test_a_trace_shows_the_links_of_each_chip_in_every_pass() -> None:
    served = of.serve(SMALL, several("nvm_ideal", chips=3), prompt=6, generate=3)
    events = served.chrome_trace()["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    links = [(names[event["tid"]], event["args"]["pass"]) for event in events if event["name"] == "link"]
    assert links == [(f"chip {chip}: link", each) for each in ("prefill", "step 0", "step 1") for chip in (1, 2)]


def test_one_chip_of_a_system_is_one_chip() -> None:
    one, system = (
        of.serve(SMALL, hardware, prompt=30, generate=5, batch=2)
        for hardware in (of.load("nvm_ideal"), several("nvm_ideal", chips=1))
    )
    assert (system.latency, system.energy, system.area) == (one.latency, one.energy, one.area)
    assert (system.steady, system.wear) == (one.steady, one.wear)
    assert system.machine.chips == 1


def test_a_request_of_one_token_decides_the_layout_for_its_prefill() -> None:
    served = of.serve(SMALL, several("nvm_ideal", chips=2), prompt=6, generate=1, batch=2)
    run = of.simulate(of.shapes(SMALL, tokens=6, batch=2, phase="prefill"), several("nvm_ideal", chips=2))
    assert (served.ttft, served.area) == (pytest.approx(run.latency, rel=1e-9), run.area)
    assert served.steady is not None


def test_listed_passes_give_what_the_table_gives() -> None:
    hardware = several("nvm_ideal", **SYSTEMS["both"])
    steps = [of.shapes(SMALL, phase="decode", context=6 + step, batch=2) for step in range(5)]
    listed = of.serve((of.shapes(SMALL, tokens=6, batch=2, phase="prefill"), steps), hardware)
    table = of.serve(SMALL, hardware, prompt=6, generate=6, batch=2)
    assert listed.step_latency == pytest.approx(table.step_latency, rel=1e-12)
    assert listed.energy == pytest.approx(table.energy, rel=1e-12)
    assert listed.writes[0][1:] == table.writes[0][1:]


def test_what_is_refused() -> None:
    sizes: dict[str, Any] = {"prompt": 6, "generate": 4}
    with pytest.raises(BadInput, match=r"^hardware.system: .* is an encoder-decoder"):
        of.serve("t5-base", several("nvm_ideal", chips=2), **sizes)
    with pytest.raises(BadInput, match=r"^hardware.system: chunked_prefill has no prices of exchanges"):
        of.serve(SMALL, several("nvm_ideal", chips=2), **sizes, batch=2).chunked_prefill(2)
    with pytest.raises(BadInput, match=r"^hardware.chip.tiles = 20: a chip needs .* or take hardware.system.partition"):
        of.serve("gpt2", several("nvm_ideal", 20), **sizes)
    with pytest.raises(BadInput, match=r"^hardware.system.degree = 3: .* 4 heads, which 3 chips cannot divide evenly"):
        of.serve(SMALL, several("nvm_ideal", partition="tensor", degree=3), **sizes)
    with pytest.raises(BadInput, match=r"^hardware.system.chips = 50: .* lower it to 5$"):
        of.serve(SMALL, several("nvm_ideal", chips=50), **sizes)
    prefill = of.shapes(SMALL, tokens=6, phase="prefill")
    fewer = of.shapes(SMALL.model_copy(update={"layers": 3}), phase="decode", context=6)
    with pytest.raises(BadInput, match=r"^hardware.system: a pass of 'small' has 6 layers .* another one 5"):
        of.serve((prefill, [fewer]), several("nvm_ideal", chips=2))
    eight = of.replace(of.load("a100_sxm_80gb_x8"), "engine.memory", "2 GiB")
    eight = of.replace(eight, "system.chips", 8)
    with pytest.raises(BadInput, match=r"^hardware.system.chips = 8: .* with batch = 4 needs 16; raise it"):
        of.serve("llama-2-7b", eight, prompt=1000, generate=1000, batch=4)
