"""What a timeline says beyond its latency."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from ohmformer.cost.stage import total_energy
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerSerial, SequenceBlocking
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import replace
from ohmformer.workload.shapes import shapes
from tests.dataflow.build import placement, stage

XFORMER = load("xformer_tvlsi_2023")
assert isinstance(XFORMER, Accelerator)
RUN = simulate(shapes("bert-base", tokens=512), XFORMER, SequenceBlocking())


def test_the_published_latency_is_met_with_independent_blocks_only() -> None:
    published = simulate(shapes("bert-base", tokens=512), XFORMER, SequenceBlocking(dependencies="published"))
    assert published.latency == pytest.approx(0.98e-3, rel=0.1)
    assert RUN.latency == pytest.approx(1.54e-3, rel=0.02)


def test_a_causal_model_has_no_edge_to_later_blocks() -> None:
    work = shapes("gpt2", tokens=512)
    exact, published = (simulate(work, XFORMER, SequenceBlocking(dependencies=kind)) for kind in ("exact", "published"))
    assert exact.latency == pytest.approx(published.latency)
    assert RUN.latency > 1.4 * published.latency * 12 / 13


def test_more_tokens_than_cells_take_several_turns() -> None:
    times = {}
    for resident in (256, 512):
        hardware = XFORMER
        for role in ("key", "value"):
            hardware = replace(hardware, f"attention.{role}.resident", resident)
        placed = simulate(shapes("bert-base", tokens=512), hardware).placement
        times[resident] = {stage.name: stage.time(512) - stage.fixed for stage in placed.layers[1].stages}
        assert placed.arrays["attention.key"] == 12 * 8 * resident // 128
    for name in ("key", "value", "write"):
        assert times[256][name] == pytest.approx(2 * times[512][name])


def test_scores_need_blocks_or_the_square_of_the_sequence() -> None:
    assert RUN.timeline.peak_buffer()["scores"] == 12 * 64 * 64
    serial = simulate(shapes("bert-base", tokens=512), XFORMER, LayerSerial())
    assert serial.timeline.peak_buffer()["scores"] == 12 * 512 * 512
    assert serial.timeline.peak_buffer()["tokens"] == 512 * 3072


def test_energy_adds_up_and_static_power_takes_the_time_it_takes() -> None:
    by = RUN.energy_by("component")
    assert sum(by.values()) == pytest.approx(RUN.energy)
    assert by["static"] == pytest.approx(448 * 24.2e-3 * RUN.latency)
    assert sum(RUN.energy_by("operation").values()) == pytest.approx(RUN.energy)
    assert set(RUN.energy_by("engine")) == {"projection", "attention", "static"}
    placed = dict(RUN.placement.energy.items())
    assert {name: by[name] for name in placed} == pytest.approx(placed)


def test_utilization_of_two_stages_by_hand() -> None:
    made = placement([stage("qkv", per_token=1.0), stage("key", per_token=3.0)], tokens=4, layers=1)
    run = build_timeline(made, SequenceBlocking(block=1, dependencies="published"))
    assert run.latency == 13.0
    assert run.utilization == pytest.approx({"projection": 4 / 13, "attention": 12 / 13})
    assert run.critical_stages() == {"qkv": 1.0, "key": 12.0}


def test_the_trace_opens_with_one_track_for_each_unit(tmp_path: Path) -> None:
    RUN.save_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert set(tracks.values()) == set(RUN.timeline.busy)
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == len(RUN.timeline.jobs)
    assert max(event["args"]["arrives"] for event in spans) == pytest.approx(RUN.latency * 1e6)
    assert all(event["ts"] + event["dur"] <= event["args"]["arrives"] + 1e-9 for event in spans)
    for track in tracks:
        own = sorted((event["ts"], event["ts"] + event["dur"]) for event in spans if event["tid"] == track)
        assert all(one[1] <= two[0] + 1e-9 for one, two in itertools.pairwise(own))
    with pytest.raises(BadInput, match="cannot be written"):
        RUN.save_trace(tmp_path)


def test_a_sample_more_takes_less_than_the_first() -> None:
    one, four = (simulate(shapes("bert-base", batch=n), XFORMER, SequenceBlocking()).latency for n in (1, 4))
    assert one < four < 4 * one
    alone = simulate(shapes("bert-base", batch=4), XFORMER, SequenceBlocking(batching="serial")).latency
    assert alone == pytest.approx(4 * one)
    assert simulate(shapes("bert-base", batch=4), XFORMER).energy_by("engine")["attention"] == pytest.approx(
        4 * simulate(shapes("bert-base"), XFORMER).energy_by("engine")["attention"]
    )


def test_weights_that_do_not_fit_are_loaded_for_every_layer() -> None:
    sram = load("sram_iso_area")
    assert isinstance(sram, Accelerator)
    run = simulate(shapes("bert-base"), sram)
    loads = [job for job in run.timeline.jobs if job.stage.name == "load"]
    assert len(loads) == 12
    assert loads[0].duration == pytest.approx(7_077_888 / 192e9)
    assert run.energy_by("component")["dram"] == pytest.approx((12 * 7_077_888 + 512 * 768) * 112e-12)


def test_what_one_unit_does_in_turn_is_told_apart() -> None:
    """A GPU does all stages: still its energy and time are those of each, and attention is at work for its share."""
    gpu = load("a100_sxm_40gb")
    assert isinstance(gpu, Accelerator)
    run = simulate(shapes("bert-base", tokens=100, batch=2), gpu, SequenceBlocking(block=64))
    by_stage, path = run.energy_by("operation"), run.timeline.critical_stages()
    assert set(path) == {"embedding", "qkv", "key", "value", "output", "ffn1", "ffn2"}
    assert set(by_stage) == {*path, "static"}
    assert by_stage["static"] == pytest.approx(0.22 * 400 * run.latency)
    assert all(0 < by_stage[name] <= 0.78 * 400 * seconds for name, seconds in path.items())
    assert sum(by_stage.values()) == pytest.approx(run.energy)
    assert sum(path.values()) == pytest.approx(run.latency)
    attention = (path["key"] + path["value"]) / run.latency
    assert run.utilization == pytest.approx({"projection": 1 - attention, "attention": attention})
    assert run.energy_by("engine")["attention"] == pytest.approx(by_stage["key"] + by_stage["value"])


def test_the_largest_scores_of_a_layer_count() -> None:
    """The second attention of a decoder sees the source: 12 heads, one query, 300 keys of a byte."""
    run = simulate(shapes("t5-base", tokens=300, phase="decode", context=7), XFORMER)
    assert run.timeline.peak_buffer()["scores"] == 12 * 300
    units = {job.unit for job in run.timeline.jobs if job.stage.name == "write"}
    assert units == {"attention.write", "attention.cross_write"}


def test_what_is_no_workload_accelerator_or_sum_is_one_line() -> None:
    work = shapes("bert-base")
    for arguments, said in (
        (("bert-base", XFORMER), r"workload is a str, 'bert-base'; give a Workload \(of.shapes\('bert-base'\)\)$"),
        ((work, "nvm_ideal"), r"hardware is a str, 'nvm_ideal'; give an Accelerator \(of.load\('nvm_ideal'\)\)$"),
        ((XFORMER, work), r"^simulate: workload is an Accelerator; give a Workload \(of.shapes or of.trace\)$"),
        ((work, XFORMER, "layer_serial"), "dataflow is a str, 'layer_serial'; give LayerSerial"),
    ):
        with pytest.raises(BadInput, match=said):
            simulate(*arguments)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"energy_by.*'components'.*did you mean 'component'"):
        RUN.energy_by("components")  # type: ignore[arg-type]


def test_the_rate_of_a_lifetime_is_a_number_or_a_quantity() -> None:
    assert RUN.lifetime("20 Hz") == RUN.lifetime(20) == RUN.lifetime("0.02 kHz")
    for rate, said in (
        ("20", "has no unit"),
        ("20 s", "has the unit"),
        ([20], "rate is a list; give passes per second"),
        (True, "rate is a bool"),
        (0, "must be > 0"),
    ):
        with pytest.raises(BadInput, match=said):
            RUN.lifetime(rate)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="spare is a str"):
        RUN.lifetime(20, spare="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["xformer_tvlsi_2023", "sram_iso_area", "a100_sxm_40gb"])
@pytest.mark.parametrize("batching", ["pipelined", "serial"])
def test_the_energies_of_all_jobs_add_up_to_that_of_the_placement(name: str, batching: str) -> None:
    flow = SequenceBlocking(block=48, batching=batching)  # type: ignore[arg-type]
    run = simulate(shapes("bert-base", tokens=100, batch=3), load(name), flow)  # type: ignore[arg-type]
    for kind in ("component", "operation", "engine"):
        found = run.energy_by(kind)  # type: ignore[arg-type]
        of_jobs = total_energy(((job.stage, job.share) for job in run.timeline.jobs), kind)  # type: ignore[arg-type]
        assert {**of_jobs, "static": found["static"]} == pytest.approx(found, rel=1e-12)
