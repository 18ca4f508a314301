"""Chunked prefill: steps with a chunk equal the event engine, and requests take the sum of their passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ohmformer as of
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.event_engine import run_jobs
from ohmformer.dataflow.job_list import JobList
from ohmformer.dataflow.layer_cuts import sets_of_cells, unit_name, writer_of

SMALL = of.Transformer(
    title="small", kind="decoder", layers=3, width=64, heads=4, hidden=128, entries=100, tokens=8, head=100
)

LANES = {"kind": "simd", "ops_per_mac": 2.0, "lanes": 64}

Sample = tuple[Placement, bool]
"""A pass of one request, and whether it makes a token."""


def step_latency(samples: list[Sample], last: Placement) -> float:
    """The latency of a step of samples with different passes, from the event engine; `last` has the units."""
    jobs, left = JobList(last), [()] * len(samples)
    readers: dict[str, list[int]] = {}
    for index, units in enumerate(last.layers):
        for sample, (placement, makes_token) in enumerate(samples):
            layer = placement.layers[index]
            if layer.name == "head" and not makes_token:
                continue
            jobs.placement, after, reads = placement, left[sample], {}
            for place, stage in enumerate(layer.stages):
                uses, sets = readers.get(unit_name(units, stage), []), sets_of_cells(last, units, stage)
                if stage.name == "write" and sets is not None and len(uses) >= sets:
                    after = (*after, uses[-sets])
                after = (jobs.add(index, place, layer.tokens, after, sample=sample),)  # type: ignore[assignment]
                if (writer := writer_of(layer.stages, place)) is not None:
                    reads[unit_name(units, layer.stages[writer])] = after[0]
            for unit, number in reads.items():
                readers.setdefault(unit, []).append(number)
            left[sample] = after  # type: ignore[call-overload]
    return max(run_jobs(jobs.jobs).ready)


def passes_of(hardware: of.Accelerator, prompt: int, generate: int, chunk: int, batch: int, flow: Any) -> list[Sample]:
    """All passes of a request, priced one by one: chunks of its prompt, then decoding steps."""
    found = []
    for start in range(0, prompt, chunk):
        tokens = min(chunk, prompt - start)
        work = of.shapes(SMALL, phase="prefill", tokens=tokens, context=start)
        found.append((of.simulate(work, hardware, flow).placement, start + tokens == prompt))
    for step in range(generate - 1):
        work = of.shapes(SMALL, phase="decode", context=prompt + step, batch=batch)
        found.append((of.simulate(work, hardware, flow).placement, True))
    return found


CASES: list[tuple[str, dict[str, Any], of.Dataflow, int, int]] = [
    ("nvm_ideal", {}, of.LayerSerial(), 3, 8),
    ("nvm_ideal", {}, of.LayerOverlap(block=16), 4, 5),
    ("nvm_ideal", {"chip.idle_tiles": "gated"}, of.LayerOverlap(softmax="shared"), 2, 7),
    ("xformer_tvlsi_2023", {}, of.LayerSerial(), 3, 6),
    ("xformer_tvlsi_2023", {"attention.key.resident": 5}, of.LayerOverlap(kv_cells="double"), 4, 20),
    ("isaac_isca_2016", {}, of.SequenceBlocking(block=32), 3, 10),
    ("puma_asplos_2019", {}, of.LayerSerial(), 2, 9),
    ("clipformer_tcad_2024", {}, of.LayerSerial(), 1, 8),
]


@pytest.mark.parametrize(("name", "changes", "flow", "batch", "chunk"), CASES, ids=str)
@pytest.mark.slow
def test_steps_equal_the_event_engine(
    name: str, changes: dict[str, Any], flow: of.Dataflow, batch: int, chunk: int
) -> None:
    hardware = of.load(name)
    for path, value in changes.items():
        hardware = of.replace(hardware, path, value)
    prompt, generate = 20, 25
    served = of.serve(SMALL, hardware, prompt=prompt, generate=generate, batch=batch, dataflow=flow)
    state = served.chunked_prefill(chunk)
    fixed = of.replace(hardware, "chip.tiles", served.machine.used.total)
    passes = passes_of(fixed, prompt, generate, chunk, batch, flow)
    cycle, last = len(passes), passes[-1][0]
    parts = cycle - generate + 1
    ahead = [number * cycle // batch for number in range(batch)]
    times = [step_latency([passes[(step + each) % cycle] for each in ahead], last) for step in range(cycle)]
    assert batch / state.requests_per_s == pytest.approx(sum(times), rel=1e-9)
    own = [[times[(place - each) % cycle] for place in range(cycle)] for each in ahead]
    assert state.ttft == pytest.approx(np.mean([sum(request[:parts]) for request in own]), rel=1e-9)
    assert state.tpot == pytest.approx(np.mean([request[parts:] for request in own]), rel=1e-9)
    joules = served.machine.power * sum(times)
    for place, (placement, makes_token) in enumerate(passes):
        for layer in placement.layers:
            if layer.name != "head" or makes_token:
                work = sum(stage.joules + stage.standing * stage.occupancy(layer.tokens) for stage in layer.stages)
                gated = sum(stage.standing * stage.occupancy(layer.tokens) for stage in layer.stages)
                # stages of decoding steps have the energy of all requests, but the time of one
                joules += batch * work if place < parts else work + (batch - 1) * gated
    assert state.energy_per_token == pytest.approx(joules / (batch * generate), rel=1e-9)
    assert state.power == pytest.approx(state.energy_per_token * state.output_tokens_per_s, rel=1e-12)


def test_a_chunk_of_the_whole_prompt_of_one_request_is_its_prefill() -> None:
    for flow in (of.LayerSerial(), of.LayerOverlap(block=64)):
        served = of.serve("gpt2", of.load("nvm_ideal"), prompt=60, generate=9, dataflow=flow)
        steady = served.steady
        assert steady is not None
        for chunk in (60, 64):
            whole = served.chunked_prefill(chunk)
            for name in ("ttft", "tpot", "requests_per_s", "energy_per_token", "power", "output_tokens_per_s"):
                assert getattr(whole, name) == pytest.approx(getattr(steady, name), rel=1e-9), name


def test_a_cache_that_overflows_is_priced_chunk_by_chunk() -> None:
    """K and V in memories of tiles that are too small for the whole prompt, whose chunks start on the chip."""
    hardware = of.load("xformer_tvlsi_2023")
    chip = {"dram": {"bandwidth": 2e9, "energy": 112e-12}, "buffer_capacity": 1024, "buffer_bandwidth": 16e9}
    for path, value in {f"chip.{name}": value for name, value in chip.items()}.items():
        hardware = of.replace(hardware, path, value)
    for role in ("key", "value"):
        hardware = of.replace(hardware, f"attention.{role}", {**LANES, "lanes": "of_layer"})
    served = of.serve(SMALL, hardware, prompt=20, generate=30)
    steady = served.steady
    assert steady is not None
    assert served.decoding is not None
    assert served.decoding.prices.moving
    whole = served.chunked_prefill(20)
    assert whole.ttft == pytest.approx(steady.ttft, rel=1e-9)
    assert whole.energy_per_token == pytest.approx(steady.energy_per_token, rel=1e-9)
    fixed = of.replace(hardware, "chip.tiles", served.machine.used.total)
    passes = passes_of(fixed, 20, 30, 6, 1, of.LayerSerial())
    assert "keys and values" not in passes[0][0].homes.off_chip
    assert "keys and values" in passes[3][0].homes.off_chip
    times = [step_latency([one], passes[-1][0]) for one in passes]
    assert served.chunked_prefill(6).ttft == pytest.approx(sum(times[:4]), rel=1e-9)
    several = of.serve(SMALL, hardware, prompt=20, generate=30, batch=3)
    assert several.chunked_prefill(6).ttft > 0


def test_one_request_by_hand() -> None:
    """Four chunks of 16 tokens and one of 6 take the sum of their passes without the head, which the last one has."""
    hardware = of.load("nvm_ideal")
    served = of.serve("gpt2", hardware, prompt=70, generate=6)
    state = served.chunked_prefill(16)
    expected = 0.0
    for start in range(0, 70, 16):
        run = of.simulate(of.shapes("gpt2", phase="prefill", tokens=min(16, 70 - start), context=start), hardware)
        head = run.placement.layers[-1]
        after = sum(stage.time(head.tokens) for stage in head.stages)
        expected += run.latency - (after if start < 64 else 0.0)
    assert state.ttft == pytest.approx(expected, rel=1e-9)
    assert state.tpot == pytest.approx(served.tpot, rel=1e-12)


def test_chunks_shorten_the_time_between_tokens() -> None:
    """A decoding step with a chunk takes less than a prefill that runs alone, which all other requests wait for."""
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=200, generate=100, batch=8)
    alone, chunked = served.steady, [served.chunked_prefill(size) for size in (20, 40, 100, 200)]
    assert alone is not None
    assert all(state.tpot < alone.tpot for state in chunked)  # type: ignore[operator]
    ttft = [state.ttft for state in chunked]
    assert ttft == sorted(ttft, reverse=True)
    period = [8 / state.requests_per_s for state in chunked]
    assert [state.ttft + 99 * state.tpot for state in chunked] == pytest.approx(period, rel=1e-9)  # type: ignore[operator]


def test_requests_one_by_one_gain_nothing() -> None:
    flow = of.LayerSerial(batching="serial")
    one, four = (of.serve(SMALL, of.load("nvm_ideal"), prompt=20, generate=25, batch=n, dataflow=flow) for n in (1, 4))
    assert four.chunked_prefill(8).requests_per_s == pytest.approx(one.chunked_prefill(8).requests_per_s, rel=1e-9)


def test_refreshes_slow_chunks_down() -> None:
    hardware = of.load("nvm_ideal")
    plain = of.serve(SMALL, hardware, prompt=20, generate=25, batch=2).chunked_prefill(8)
    refreshed = of.serve(SMALL, of.replace(hardware, "attention.refresh", "20 us"), prompt=20, generate=25, batch=2)
    slower = refreshed.chunked_prefill(8)
    assert slower.ttft / plain.ttft == pytest.approx(slower.tpot / plain.tpot, rel=1e-9)  # type: ignore[operator]
    assert slower.ttft > plain.ttft
    assert slower.energy_per_token > plain.energy_per_token


REFUSED: list[tuple[dict[str, Any], Any, str]] = [
    ({}, 0, "chunked_prefill: chunk is an int, 0; give a whole number of 1 or more"),
    ({}, -3, "chunked_prefill: chunk is an int, -3;"),
    ({}, 1.5, "chunked_prefill: chunk is a float, 1.5;"),
    ({}, float("nan"), "chunked_prefill: chunk is a float, nan;"),
    ({}, True, "chunked_prefill: chunk is a bool, True;"),
    ({}, "8", "chunked_prefill: chunk is a str, '8';"),
    ({}, None, "chunked_prefill: chunk is None;"),
    ({"generate": 1}, 8, "chunked_prefill: generate = 1: there is no decoding step to join; generate more tokens"),
    ({"model": "t5-base"}, 8, "chunked_prefill: 'T5-base' is an encoder-decoder, so its prompt has no chunks; take"),
    ({"hardware": of.load("h100_sxm")}, 8, "hardware.projection.kind = 'gpu': chunked_prefill has no prices of"),
    (
        {"batch": 4, "generate": 5},
        1,
        "chunked_prefill: chunk = 1: 4 prompts of 20 chunks each do not fit into 24 steps, one",
    ),
    ({"prompt": 40_000}, 1, "chunk = 1: a prompt of 40,000 tokens takes 40,000 chunks, at most 32,768 are possible;"),
    ({"dataflow": of.LayerOverlap(block=4)}, 8, "chunked_prefill: chunk = 8: the dataflow cuts it into blocks of 4;"),
]


@pytest.mark.parametrize(("change", "chunk", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_has_no_chunks_is_refused(change: dict[str, Any], chunk: Any, message: str) -> None:
    options = {"model": SMALL, "hardware": of.load("nvm_ideal"), "prompt": 20, "generate": 9, **change}
    served = of.serve(options.pop("model"), options.pop("hardware"), **options)
    with pytest.raises(of.BadInput) as caught:
        served.chunked_prefill(chunk)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_machines_that_read_weights_for_all_tokens_are_refused() -> None:
    hardware = of.replace(of.load("nvm_ideal"), "projection", LANES)
    hardware = of.replace(hardware, "chip.dram", {"bandwidth": 1e9, "energy": 112e-12})
    served = of.serve(SMALL, hardware, prompt=20, generate=9)
    with pytest.raises(of.BadInput, match=r"^hardware\.projection: chunked_prefill .* read or loaded once for chunks"):
        served.chunked_prefill(8)
    prefill, step = of.shapes(SMALL, tokens=4, phase="prefill"), of.shapes(SMALL, phase="decode", context=4)
    with pytest.raises(of.BadInput, match="chunked_prefill: the passes are listed, so its prompt has no chunks"):
        of.serve((prefill, [step]), of.load("nvm_ideal")).chunked_prefill(2)
