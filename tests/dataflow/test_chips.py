"""Several chips: schedules agree, free links are no links, and a slower link never helps."""

from __future__ import annotations

import itertools

import pytest

from ohmformer.cost.chips.sums import bytes_on_links
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.explore import DesignPoint, explore
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.dataflow.spec import Dataflow, LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.hardware.memory import Memory
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import Workload
from tests.cost.chips.build import FREE, LINK, several
from tests.dataflow.list_scheduler import list_schedule

ENCODER, PREFILL = shapes("bert-base", tokens=96, batch=2), shapes("gpt2", tokens=96, batch=2)
DECODE = shapes("gpt2", phase="decode", context=100, batch=3)
SIZES = {"title": "small", "layers": 4, "width": 128, "heads": 4, "hidden": 256, "head": 50, "tokens": 96}
SMALL = [
    shapes(Transformer(kind="encoder", **SIZES), batch=2),  # type: ignore[arg-type]
    shapes(Transformer(kind="decoder", gated=True, rotary=True, kv_heads=2, **SIZES), batch=2),  # type: ignore[arg-type]
    shapes(Transformer(kind="decoder", fused=True, **SIZES), phase="decode", context=40, batch=3),  # type: ignore[arg-type]
]
SYSTEMS: list[dict[str, object]] = [
    {"chips": 3},
    {"partition": "tensor", "degree": 2},
    {"partition": "tensor", "degree": 4, "chips": 8, "links": 2},
]
FLOWS: list[Dataflow] = [
    LayerSerial(),
    LayerSerial(batching="serial"),
    SequenceBlocking(block=40),
    LayerOverlap(block=32),
    LayerOverlap(block=40, batching="serial"),
]


def with_memory(base: str) -> Accelerator:
    """Fixed lanes whose weights are off the chip, so that stages of a chip take turns with its memory."""
    hardware = replace(load(Accelerator, base), "projection", {"kind": "simd", "ops_per_mac": 2, "lanes": 4096})
    for role in ("key", "value"):
        hardware = replace(hardware, f"attention.{role}.lanes", 4096)
    assert hardware.chip is not None
    chip = hardware.chip.model_copy(update={"dram": Memory(bandwidth=192e9, energy=112e-12)})
    return hardware.model_copy(update={"chip": chip})


MACHINES = {
    **{name: load(Accelerator, name) for name in ("nvm_ideal", "xformer_tvlsi_2023", "a100_sxm_40gb")},
    "puma_asplos_2019": load(Accelerator, "puma_asplos_2019"),
    "lanes and memory": with_memory("puma_asplos_2019"),
    "gated": replace(load(Accelerator, "nvm_ideal"), "chip.idle_tiles", "gated"),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("system", SYSTEMS, ids=["pipeline", "tensor", "both"])
@pytest.mark.slow
def test_event_engine_closed_form_and_explore_agree(machine: str, system: dict[str, object]) -> None:
    hardware = several(MACHINES[machine], **system)  # type: ignore[arg-type]
    for work, flow in itertools.product(SMALL, FLOWS):
        run = simulate(work, hardware, flow)
        assert latency(run.placement, flow) == pytest.approx(run.latency, rel=1e-9)
        found = explore([DesignPoint(work, hardware, flow)])
        assert found.latency[0] == pytest.approx(run.latency, rel=1e-9)
        assert found.energy[0] == pytest.approx(run.energy, rel=1e-9)
        assert found.area[0] == run.area


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("system", SYSTEMS, ids=["pipeline", "tensor", "both"])
def test_an_independent_scheduler_agrees(machine: str, system: dict[str, object]) -> None:
    hardware = several(MACHINES[machine], **system)  # type: ignore[arg-type]
    flow = LayerOverlap(block=32)
    for work in SMALL:
        run = simulate(work, hardware, flow)
        last, longest = list_schedule(run.placement, flow)
        assert run.latency == pytest.approx(last, rel=1e-9)
        assert run.latency >= longest * (1 - 1e-9)


@pytest.mark.parametrize("work", [ENCODER, PREFILL, DECODE], ids=["encode", "prefill", "decode"])
@pytest.mark.parametrize("chips", [2, 5])
def test_a_pipeline_with_free_links_is_one_large_chip(work: Workload, chips: int) -> None:
    """Samples one by one, so that nothing gains from a second set of softmax units."""
    one, flow = load(Accelerator, "nvm_ideal"), SequenceBlocking(block=32, batching="serial")
    whole, run = simulate(work, one, flow), simulate(work, several(one, link=FREE, chips=chips), flow)
    assert run.latency - links_time(run) == pytest.approx(whole.latency, rel=1e-9)
    dynamic = {name: value for name, value in run.energy_by("component").items() if name not in ("static", "link")}
    assert dynamic == pytest.approx({n: v for n, v in whole.energy_by("component").items() if n != "static"}, rel=1e-12)
    assert run.placement.arrays == whole.placement.arrays
    assert run.placement.counts == whole.placement.counts
    assert run.placement.tiles - whole.placement.tiles in range(-chips, chips + 1)
    assert run.lifetime(1.0) == whole.lifetime(1.0)


def links_time(run: Run) -> float:
    """Time on the critical path that goes into links, which are as wide as they may be."""
    return run.timeline.critical_stages().get("link", 0.0)


def test_tensor_chips_with_free_links_do_what_their_shares_take_alone() -> None:
    """The energy is that of all shares, the time that of one."""
    hardware = several("nvm_ideal", link=FREE, partition="tensor", degree=4)
    run = simulate(DECODE, hardware)
    assert run.placement.layout is not None
    share = run.placement.layout.workload
    alone = [op for op in share.ops if type(op).__name__ != "Exchange"]
    one = simulate(Workload(share.title, "decode", 3, 1, 100, True, tuple(alone)), load(Accelerator, "nvm_ideal"))
    sums = {"link", "static", "vector"}  # additions of partial sums are those of the all-reduce
    energy = {name: 4 * value for name, value in one.energy_by("component").items() if name not in sums}
    assert {n: v for n, v in run.energy_by("component").items() if n not in sums} == pytest.approx(energy, rel=1e-12)
    for layer, other in zip(run.placement.layers, one.placement.layers, strict=True):
        times = [(stage.name, stage.fixed, stage.per_token) for stage in layer.stages if stage.name != "link"]
        assert times == [(stage.name, stage.fixed, stage.per_token) for stage in other.stages]
    assert run.placement.arrays == {role: 4 * count for role, count in one.placement.arrays.items()}
    assert run.area == pytest.approx(4 * one.area, rel=1e-12)


@pytest.mark.parametrize("system", SYSTEMS, ids=["pipeline", "tensor", "both"])
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: f"{flow.kind} {flow.batching}")
@pytest.mark.slow
def test_faster_links_never_hurt(system: dict[str, object], flow: Dataflow) -> None:
    for name, values in (("bandwidth", (1e9, 1e10, 1e11)), ("latency", (1e-6, 1e-8, 0.0))):
        runs = [
            simulate(PREFILL, several("nvm_ideal", link={**LINK, name: value}, **system), flow)  # type: ignore[arg-type]
            for value in values
        ]
        latencies = [run.latency for run in runs]
        assert latencies == sorted(latencies, reverse=True)
        assert len({run.energy_by("component")["link"] for run in runs}) == 1


def test_more_chips_send_more_bytes() -> None:
    runs = [simulate(DECODE, several("nvm_ideal", chips=chips)) for chips in (2, 3, 6, 12)]
    sent = [run.energy_by("component")["link"] / LINK["energy"] for run in runs]
    assert sent == pytest.approx([(chips - 1) * 3 * 768 for chips in (2, 3, 6, 12)])
    layouts = [run.placement.layout for run in runs]
    counted = [bytes_on_links(layout.workload, runs[0].placement.hardware) for layout in layouts if layout is not None]
    assert counted == pytest.approx(sent)


def test_energy_by_component_operation_and_engine_adds_up() -> None:
    run = simulate(PREFILL, several("nvm_ideal", partition="tensor", degree=3, chips=6), LayerOverlap(block=32))
    for kind in ("component", "operation", "engine"):
        parts = run.energy_by(kind)  # type: ignore[arg-type]
        assert sum(parts.values()) == pytest.approx(run.energy, rel=1e-12)
        assert parts["link"] > 0


def test_a_trace_shows_the_links_of_each_chip() -> None:
    run = simulate(DECODE, several("nvm_ideal", chips=3))
    names = {event["args"].get("name") for event in run.timeline.chrome_trace()["traceEvents"] if event["ph"] == "M"}
    assert {"chip 1: link", "chip 2: link"} <= names
    assert "chip 3: link" not in names


def test_nodes_of_puma_by_hand() -> None:
    """A token of Llama-3-8B with 4,096 cached, 16 nodes of 168 tiles that share each layer, links of 6.4 GB/s.

    Each of 64 all-reduces sends 2 x 15/16 x 4,096 bytes in 30 steps, each of 17 - 1 groups passes 4,096 bytes on, and
    the gather takes 15/16 of 128,256 bytes. The link alone would take 0.64 us for one vector.
    """
    link = {"bandwidth": 6.4e9, "energy": 406e-12, "latency": 5e-9}
    work = shapes("llama-3-8b", phase="decode", context=4096)
    run = simulate(work, several("puma_asplos_2019", 168, link=link, partition="tensor", degree=16))
    assert run.placement.layout is not None
    groups = len(run.placement.layout.ends)
    assert run.placement.layout.sharing == (16,) * groups
    all_reduce, gather = 2 * 15 / 16 * 4096, 15 / 16 * 128_256
    busy = (64 * all_reduce + gather + (groups - 1) * 4096) / 6.4e9
    late = (64 * 30 + 15 + groups - 1) * 5e-9
    assert links_time(run) == pytest.approx(busy + late, rel=1e-9)
    sent = 16 * (64 * all_reduce + gather + (groups - 1) * 4096)
    assert run.energy_by("component")["link"] == pytest.approx(sent * 406e-12, rel=1e-12)


def test_a_refresh_takes_all_chips_at_the_same_time() -> None:
    cells = replace(load(Accelerator, "nvm_ideal"), "attention.refresh", 1e-3)
    one, three = (simulate(PREFILL, each) for each in (cells, several(cells, chips=3)))
    assert one.placement.refresh is not None
    assert three.placement.refresh is not None
    assert three.placement.refresh.seconds == one.placement.refresh.seconds
    assert three.placement.refresh.cell_writes == one.placement.refresh.cell_writes
    assert three.placement.refresh.joules == pytest.approx(one.placement.refresh.joules, rel=1e-12)
    shared = simulate(PREFILL, several(cells, partition="tensor", degree=4)).placement.refresh
    assert shared is not None
    assert shared.cell_writes == one.placement.refresh.cell_writes


def test_ages_of_keys_are_those_of_one_chip_and_later_by_the_links() -> None:
    flow = LayerSerial()
    work = shapes("gpt2", tokens=64)
    one, two = (simulate(work, each, flow) for each in (load(Accelerator, "nvm_ideal"), several("nvm_ideal", chips=2)))
    for layer in (0, 11):
        ages = [run.timeline.ages().of(layer=layer, role="attention.key").age(63, 0) for run in (one, two)]
        assert ages[0] == pytest.approx(ages[1], rel=1e-9)
