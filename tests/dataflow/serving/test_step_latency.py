"""Latencies of many decoding steps at once equal those of the event engine, also where contexts are mixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.event_engine import run_jobs
from ohmformer.dataflow.job_list import JobList
from ohmformer.dataflow.layer_cuts import sets_of_cells, unit_name, writer_of
from ohmformer.dataflow.serving.step_latency import KindTimes, step_latencies
from ohmformer.dataflow.timeline import build_timeline
from tests.dataflow.build import made_up


def kind_times(layers: list[PlacedLayer]) -> KindTimes:
    rows = [[(s.occupancy(1), s.time(1), min(s.occupancy(1), s.off_chip)) for s in layer.stages] for layer in layers]
    busy, arrives, memory = np.array(rows).transpose(2, 1, 0)
    return KindTimes(busy, arrives, memory, 0.0)


def faster(layer: PlacedLayer, factor: float) -> PlacedLayer:
    stages = (replace(s, fixed=s.fixed * factor, per_token=s.per_token * factor) for s in layer.stages)
    return replace(layer, stages=tuple(stages))


def at(placement: Placement, factor: float) -> Placement:
    return replace(placement, layers=tuple(faster(layer, factor) for layer in placement.layers))


def mixed_latency(samples: list[Placement]) -> float:
    """The latency of a step whose samples take the stages of different placements, from the event engine."""
    jobs, before = JobList(samples[0]), [() for _ in samples]
    left: list[tuple[int, ...]] = list(before)
    readers: dict[str, list[int]] = {}
    for index, placed in enumerate(samples[0].layers):
        for sample, placement in enumerate(samples):
            jobs.placement, after, last = placement, left[sample], {}
            for place, stage in enumerate(placement.layers[index].stages):
                uses, sets = readers.get(unit_name(placed, stage), []), sets_of_cells(placement, placed, stage)
                if stage.name == "write" and sets is not None and len(uses) >= sets:
                    after = (*after, uses[-sets])
                number = jobs.add(index, place, 1, after, sample=sample)
                after = (number,)
                if (writer := writer_of(placement.layers[index].stages, place)) is not None:
                    last[unit_name(placed, placed.stages[writer])] = number
            for unit, number in last.items():
                readers.setdefault(unit, []).append(number)
            left[sample] = after
    return max(run_jobs(jobs.jobs).ready)


FLOWS = st.sampled_from([of.LayerSerial(), of.LayerSerial(batching="serial"), of.LayerOverlap(), of.SequenceBlocking()])
FACTORS = st.lists(st.sampled_from([0.25, 1.0, 1.5, 3.0]), min_size=1, max_size=4)


@given(made_up(most_layers=9), FLOWS, FACTORS)
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_steps_equal_the_event_engine(placement: Placement, flow: of.Dataflow, factors: list[float]) -> None:
    placement = replace(placement, layers=tuple(replace(layer, tokens=1) for layer in placement.layers))
    steps = [at(placement, factor) for factor in factors]
    times = {0: kind_times([step.layers[0] for step in steps])}
    found = step_latencies(placement, flow, (0,) * len(placement.layers), times)
    assert found == pytest.approx([build_timeline(step, flow).latency for step in steps], rel=1e-9, abs=1e-12)


@given(made_up(most_layers=9), FLOWS, FACTORS, st.data())
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_stages_that_use_the_memory_in_some_steps_alone(
    placement: Placement, flow: of.Dataflow, factors: list[float], data: Any
) -> None:
    """A cache that overflows in a later step; a stage waits for the memory only in steps in which it uses it."""
    placement = replace(placement, layers=tuple(replace(layer, tokens=1) for layer in placement.layers))
    count = len(placement.layers[0].stages)
    uses = data.draw(st.lists(st.lists(st.booleans(), min_size=count, max_size=count), min_size=4, max_size=4))

    def only(step: Placement, flags: list[bool]) -> Placement:
        stages = zip(step.layers[0].stages, flags, strict=True)
        layer = tuple(stage if use else replace(stage, off_chip=0.0) for stage, use in stages)
        return replace(step, layers=tuple(replace(each, stages=layer) for each in step.layers))

    steps = [only(at(placement, factor), flags) for factor, flags in zip(factors, uses, strict=False)]
    times = {0: kind_times([step.layers[0] for step in steps])}
    found = step_latencies(placement, flow, (0,) * len(placement.layers), times)
    assert found == pytest.approx([build_timeline(step, flow).latency for step in steps], rel=1e-9, abs=1e-12)


@given(made_up(most_layers=9), FACTORS, st.data())
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_mixed_contexts_equal_the_event_engine(placement: Placement, factors: list[float], data: Any) -> None:
    placement = replace(placement, layers=tuple(replace(layer, tokens=1) for layer in placement.layers))
    batch, count = placement.workload.batch, len(factors)
    ahead = data.draw(st.lists(st.integers(0, count - 1), min_size=batch, max_size=batch))
    steps = [at(placement, factor) for factor in factors]
    times = {0: kind_times([step.layers[0] for step in steps])}
    found = step_latencies(placement, of.LayerSerial(), (0,) * len(placement.layers), times, ahead)
    expected = [mixed_latency([steps[(step + offset) % count] for offset in ahead]) for step in range(count)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_too_many_jobs_are_refused() -> None:
    with pytest.raises(of.BadInput, match=r"serve: batch = 100000: takes .* jobs in each of 899 steps, too many"):
        of.serve("gpt2", of.load("nvm_ideal"), prompt=10, generate=900, batch=100_000)
    serial = of.LayerSerial(batching="serial")
    assert of.serve("gpt2", of.load("nvm_ideal"), prompt=10, generate=90, batch=100_000, dataflow=serial).tpot


def test_steady_state_of_one_request_is_that_request() -> None:
    served = of.serve("gpt2", of.load("xformer_tvlsi_2023"), prompt=40, generate=30)
    steady = served.steady
    assert steady is not None
    assert steady.output_tokens_per_s == pytest.approx(served.output_tokens_per_s, rel=1e-12)
    assert steady.energy_per_token == pytest.approx(served.energy_per_token, rel=1e-12)


def test_steady_state_by_hand() -> None:
    """Equal steps: B prefills of one request and G - 1 steps pass for each B requests that end."""
    hardware, batch = of.load("nvm_ideal"), 4
    served = of.serve("gpt2", hardware, prompt=200, generate=21, batch=batch)
    alone = of.simulate(of.shapes("gpt2", tokens=200, phase="prefill"), hardware)
    assert served.step_latency == pytest.approx(served.first_tpot, rel=1e-9)
    period = batch * alone.latency + 20 * served.step_latency[0]
    steady = served.steady
    assert steady is not None
    assert steady.requests_per_s == pytest.approx(batch / period, rel=1e-9)
    assert steady.output_tokens_per_s == pytest.approx(21 * batch / period, rel=1e-9)
    assert steady.tpot == pytest.approx((period - alone.latency) / 20, rel=1e-9)
    assert steady.ttft == pytest.approx(alone.latency, rel=1e-9)
    dynamic = batch * sum(alone.placement.energy.values()) + served.step_energy.sum()
    static = served.machine.power * (period - served.step_latency.sum())
    assert steady.energy_per_token == pytest.approx((dynamic + static) / (21 * batch), rel=1e-9)


def test_mixed_contexts_lie_between_the_first_and_the_last_step() -> None:
    served = of.serve("gpt2", of.load("puma_asplos_2019"), prompt=40, generate=101, batch=5)
    steady = served.steady
    assert steady is not None
    assert served.first_tpot < steady.step_latency < served.last_tpot  # type: ignore[operator]


def digital_units() -> of.Accelerator:
    """PUMA with vector units and attention units that all layers share, and a slow memory off the chip."""
    units = {"kind": "simd", "ops_per_mac": 2, "lanes": 512, "units": 8, "shared": "chip"}
    found = of.replace(of.load("puma_asplos_2019"), "chip.vector.units", 4)
    found = of.replace(found, "chip.dram", {"bandwidth": "20 GB/s", "energy": "31 pJ/B"})
    return of.replace(of.replace(found, "attention.key", units), "attention.value", units)


@pytest.mark.parametrize(
    ("flow", "batch"), [(of.LayerSerial(), 1), (of.LayerOverlap(block=4), 1), (of.LayerSerial(batching="serial"), 3)]
)
def test_a_token_that_waits_for_no_other_needs_no_event_engine(flow: of.Dataflow, batch: int) -> None:
    hardware = digital_units()
    served = of.serve("gpt2", hardware, prompt=40, generate=5, batch=batch, dataflow=flow)
    assert served.decoding is not None
    assert served.decoding.one_recursion
    placements = [served.decoding.placement(index) for index in range(4)]
    events = [build_timeline(placement, flow).latency for placement in placements]
    assert served.step_latency == pytest.approx(events, rel=1e-12)
    explored = of.explore([(placements[2].workload, hardware, flow)])
    assert explored.latency[0] == pytest.approx(of.simulate(placements[2].workload, hardware, flow).latency, rel=1e-12)
    assert served.steady is not None


def test_tokens_of_several_requests_wait_for_units() -> None:
    served = of.serve("gpt2", digital_units(), prompt=40, generate=5, batch=3)
    assert served.decoding is not None
    assert not served.decoding.one_recursion
    assert served.steady is None
