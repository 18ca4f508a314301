"""Refreshes in time, energy, wear, traces and ages: event engine, closed form and requests say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ohmformer as of
from ohmformer.dataflow.closed_form import latency

FLOWS = [
    of.LayerSerial(),
    of.LayerSerial(batching="serial"),
    of.SequenceBlocking(block=16),
    of.LayerOverlap(block=16),
]
INTERVAL = 50e-6


def hardware(interval: float = INTERVAL, name: str = "nvm_ideal", **changes: Any) -> of.Accelerator:
    found = of.replace(of.load(name), "attention.refresh", f"{interval} s")
    for path, value in changes.items():
        found = of.replace(found, path.replace("__", "."), value)
    return found


@pytest.mark.parametrize("flow", FLOWS, ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_closed_form_explore_and_event_engine_agree(flow: of.Dataflow, batch: int) -> None:
    work = of.shapes("bert-base", tokens=70, batch=batch)
    plain, run = of.simulate(work, of.load("nvm_ideal"), flow), of.simulate(work, hardware(), flow)
    refresh = run.placement.refresh
    assert refresh is not None
    assert run.timeline.work == plain.latency
    assert run.timeline.refreshes == int(np.ceil(plain.latency / (INTERVAL - refresh.seconds))) - 1 > 3
    assert run.latency == pytest.approx(plain.latency + run.timeline.refreshes * refresh.seconds, rel=1e-12)
    assert latency(run.placement, flow) == pytest.approx(run.latency, rel=1e-9)
    found = of.explore([(work, run.placement.hardware, flow)])
    assert found.latency[0] == pytest.approx(run.latency, rel=1e-9)
    assert found.energy[0] == pytest.approx(run.energy, rel=1e-9)
    static = run.placement.power * (run.latency - plain.latency)
    assert run.energy == pytest.approx(plain.energy + run.timeline.refreshes * refresh.joules + static, rel=1e-9)


def test_splits_of_energy_and_time_add_up() -> None:
    run = of.simulate(of.shapes("bert-base", tokens=70), hardware(), of.LayerOverlap(block=16))
    for kind in ("component", "operation", "engine"):
        assert sum(run.energy_by(kind).values()) == pytest.approx(run.energy, rel=1e-12)
    refresh = run.placement.refresh
    assert refresh is not None
    assert run.energy_by("operation")["refresh"] == pytest.approx(run.timeline.refreshes * refresh.joules)
    critical = run.timeline.critical_stages()
    assert sum(critical.values()) == pytest.approx(run.latency, rel=1e-9)
    assert critical["refresh"] == pytest.approx(run.timeline.refreshes * refresh.seconds)
    assert all(0 <= share <= 1 for share in run.utilization.values())


def test_wear_counts_refreshes() -> None:
    work = of.shapes("bert-base", tokens=70)
    once = of.simulate(work, hardware(1.0, attention__array__cell__endurance=1e6))
    often = of.simulate(work, hardware(attention__array__cell__endurance=1e6))
    count = often.timeline.refreshes
    assert once.timeline.refreshes == 0
    assert once.lifetime(1.0) == pytest.approx((1 + count) * often.lifetime(1.0))  # type: ignore[operator]
    assert {entry.most for entry in often.timeline.ages().writes} == {1 + count}


@pytest.mark.parametrize("flow", [of.LayerSerial(), of.SequenceBlocking(block=16)], ids=str)
def test_no_value_gets_older_than_the_interval(flow: of.Dataflow) -> None:
    work = of.shapes("gpt2", tokens=300)
    for interval in (12e-6, 20e-6, 50e-6):
        ages = of.simulate(work, hardware(interval), flow).timeline.ages()
        assert ages.longest <= interval * (1 + 1e-9)
    assert of.simulate(work, of.load("nvm_ideal"), flow).timeline.ages().longest > 50e-6


def test_a_trace_shows_refreshes_and_jobs_stop_meanwhile() -> None:
    run = of.simulate(of.shapes("bert-base", tokens=70), hardware())
    events = [event for event in run.timeline.chrome_trace()["traceEvents"] if event["ph"] == "X"]
    again = [event for event in events if event["name"] == "refresh"]
    assert len(again) == run.timeline.refreshes
    starts = [event["ts"] / 1e6 for event in again]
    assert np.diff(starts) == pytest.approx(INTERVAL, rel=1e-9)
    last = max(event["args"]["arrives"] for event in events if event["name"] != "refresh")
    assert last == pytest.approx(run.latency * 1e6, rel=1e-9)
    for event in events:
        inside = any(start < event["ts"] / 1e6 < start + again[0]["dur"] / 1e6 * (1 - 1e-9) for start in starts)
        assert event["name"] == "refresh" or not inside


@pytest.mark.slow
def test_a_request_goes_on_with_the_clock_of_its_prefill() -> None:
    machine, sizes = hardware(20e-3, attention__array__cell__write_time="5 us"), {"prompt": 40, "generate": 200}
    served = of.serve("gpt2", machine, **sizes)
    without = of.serve("gpt2", of.replace(machine, "attention.refresh", None), **sizes)
    refresh = served.refresh
    assert refresh is not None
    longest = max(kind.seconds for kind in refresh.kinds)
    assert longest == pytest.approx(128 * 5e-6)
    between = 20e-3 - longest
    assert refresh.count == int(np.ceil(without.latency / between)) - 1 > 1
    assert served.latency == pytest.approx(without.latency + refresh.seconds.sum(), rel=1e-12)
    assert served.ttft + served.step_latency.sum() == pytest.approx(served.latency, rel=1e-12)
    assert sum(served.energy_by("component").values()) == pytest.approx(served.energy, rel=1e-9)
    assert {wear.max_writes for wear in served.wear} == {1 + refresh.count}
    ages = served.ages()
    assert ages.longest <= 20e-3 * (1 + 1e-9) < without.ages().longest
    events = served.chrome_trace()["traceEvents"]
    assert sum(event["name"] == "refresh" for event in events) == refresh.count
    arrives = max(event["args"].get("arrives", 0) for event in events)
    assert arrives == pytest.approx(served.latency * 1e6, rel=1e-9)


def test_the_steady_state_is_slower_by_its_refreshes() -> None:
    machine = hardware(2e-3, attention__array__cell__write_time="5 us")
    served = of.serve("gpt2", machine, prompt=40, generate=20, batch=2)
    without = of.serve("gpt2", of.replace(machine, "attention.refresh", None), prompt=40, generate=20, batch=2)
    assert served.refresh is not None
    steady, faster = served.steady, without.steady
    assert steady is not None
    assert faster is not None
    mean = np.mean([kind.seconds for kind in served.refresh.kinds])
    between = 2e-3 - max(kind.seconds for kind in served.refresh.kinds)
    assert faster.requests_per_s / steady.requests_per_s == pytest.approx(1 + mean / between, rel=1e-9)
    assert steady.energy_per_token > faster.energy_per_token


def test_a_request_whose_cache_grows_too_large_for_the_interval_is_refused() -> None:
    machine = hardware(0.5e-3, attention__array__cell__write_time="5 us")
    assert of.serve("gpt2", machine, prompt=40, generate=20).ttft
    with pytest.raises(of.BadInput, match=r"hardware\.attention\.refresh = 500 us: writing all keys and values"):
        of.serve("gpt2", machine, prompt=40, generate=100)


def test_studies_count_refreshes() -> None:
    from ohmformer.study.cost import make_costs, price

    document = {"name": "x", "model": {"source": "shapes:bert-base", "seq_len": 70}, "hardware": {"base": "nvm_ideal"}}
    (never,), (often,) = (make_costs(document, sets).points for sets in ([], ["hardware.attention.refresh=50 us"]))
    one, other = price(never.settings), price(often.settings)
    assert other.latency_s > one.latency_s
    assert other.counts["cell_writes"] % one.counts["cell_writes"] == 0
    assert other.energy_by.operation["refresh"] > 0
