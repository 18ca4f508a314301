"""Equal units that take tokens of all layers first come, first served, against hand calculations and a scheduler."""

from __future__ import annotations

import random
from dataclasses import replace
from math import ceil

import numpy as np
import pytest

from ohmformer.cost.stage import Stage
from ohmformer.dataflow.closed_form import Designs, latencies, latency
from ohmformer.dataflow.event_engine import Schedule, run_jobs
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.jobs import count_jobs, jobs_of
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.dataflow.timeline import Timeline, build_timeline
from ohmformer.errors import BadInput
from tests.dataflow.build import placement, stage

POOL = "vector unit"


def pooled(name: str, count: int, **fields: float) -> Stage:
    return Stage(name, "projection", POOL, True, count, **fields)


def jobs_at_once(timeline: Timeline) -> int:
    """Largest number of jobs of the pool that run at the same time."""
    pairs = [(job, n) for n, job in enumerate(timeline.jobs) if job.pool and job.duration]
    starts = [(timeline.schedule.start[n], 1) for _, n in pairs]
    ends = [(timeline.schedule.end[n], -1) for _, n in pairs]
    most = running = 0
    for _, change in sorted([*starts, *ends]):
        running += change
        most = max(most, running)
    return most


def first_come(jobs: list[Job]) -> list[float]:
    """Start of each job, from the rules alone: step by step to the next moment at which something changes."""
    start: dict[int, float] = {}
    now = 0.0
    while True:
        for number in _ready(jobs, start, now):
            start[number] = now
        later = [
            t
            for n, at in start.items()
            for t in (at + jobs[n].duration, at + jobs[n].duration + jobs[n].lag)
            if t > now
        ]
        if not later:
            return [start[n] for n in range(len(jobs))]
        now = min(later)


def _ready(jobs: list[Job], start: dict[int, float], now: float) -> list[int]:
    """The jobs that start now; those of no time are taken up again."""
    found: list[int] = []
    while True:
        begun = {**start, **dict.fromkeys(found, now)}
        ended = {n: at + jobs[n].duration for n, at in begun.items()}
        arrived = {n: end + jobs[n].lag for n, end in ended.items()}
        came = {
            n: max((arrived[o] for o in job.after), default=0.0)
            for n, job in enumerate(jobs)
            if n not in begun and all(arrived.get(o, now + 1) <= now for o in job.after)
        }
        queue = sorted(came, key=lambda n: (came[n], n))
        for number in [n for n in queue if not jobs[n].pool] + [n for n in queue if jobs[n].pool]:
            job = jobs[number]
            running = sum(jobs[n].unit == job.unit and ended[n] > now for n in begun)
            earlier = any(jobs[n].unit == job.unit and n not in begun for n in range(number))
            if (running < job.pool) if job.pool else (not running and not earlier):
                found.append(number)
                break
        else:
            return found


@pytest.mark.parametrize("seed", range(40))
def test_the_event_engine_is_an_independent_scheduler(seed: int) -> None:
    draw = random.Random(seed)
    found: list[Stage] = []
    for name in ("qkv", "key", "output", "ffn1")[: draw.randint(2, 4)]:
        fields = {"per_token": draw.randint(0, 4) / 4, "fixed": draw.randint(0, 3) / 4}
        found.append(stage(name, shared=False, **fields))
        found.append(pooled(f"{name}_vector", 3, per_token=draw.randint(1, 5) / 4, fixed=draw.randint(0, 2) / 4))
    made = placement(found, tokens=5, batch=draw.randint(1, 2), layers=3, barrier=draw.choice([None, 2]))
    flow = draw.choice([LayerOverlap(block=1), LayerOverlap(block=2), LayerSerial(), SequenceBlocking(block=2)])
    jobs = jobs_of(made, flow)
    assert len(jobs) == count_jobs(made, flow)
    timeline = build_timeline(made, flow)
    assert timeline.schedule.start == first_come(list(jobs))
    assert latency(made, flow) == timeline.latency == max(timeline.schedule.ready)
    assert jobs_at_once(timeline) <= 3
    assert sum(job.share for job in jobs) == pytest.approx(sum(len(layer.stages) for layer in made.layers))


@pytest.mark.parametrize("seed", range(20))
def test_whole_sequences_and_units_of_one_layer_in_the_event_engine(seed: int) -> None:
    """Random stages of which some take a whole sequence, in a pool or alone, in shared units or those of a layer."""
    draw = random.Random(seed)
    found: list[Stage] = []
    for name in ("qkv", "key", "output"):
        found.append(stage(name, shared=draw.random() < 0.3, per_token=draw.randint(0, 4) / 4, fixed=0.25))
        one = pooled(f"{name}_vector", draw.choice([2, 3]), per_token=draw.randint(1, 5) / 4)
        one = replace(one, unit=f"{name} unit", whole=draw.random() < 0.5, shared=draw.random() < 0.6)
        found.append(one)
    made = placement(
        found, tokens=draw.randint(2, 6), batch=draw.randint(1, 2), layers=2, barrier=draw.choice([None, 2])
    )
    flow = draw.choice([LayerOverlap(block=1), LayerOverlap(block=3), LayerSerial(), SequenceBlocking(block=2)])
    jobs = jobs_of(made, flow)
    assert len(jobs) == count_jobs(made, flow)
    timeline = build_timeline(made, flow)
    assert timeline.schedule.start == first_come(list(jobs))
    assert latency(made, flow) == timeline.latency


@pytest.mark.parametrize(("units", "tokens", "layers"), [(1, 6, 2), (3, 7, 1), (4, 8, 3), (16, 5, 2)])
def test_tokens_that_come_at_once_take_turns(units: int, tokens: int, layers: int) -> None:
    made = placement([pooled("ffn1", units, per_token=2.0)], tokens=tokens, layers=layers)
    assert build_timeline(made, LayerOverlap(block=1)).latency == 2.0 * max(layers, ceil(tokens * layers / units))


def test_by_hand_a_token_that_came_first_goes_first() -> None:
    """Two layers, arrays of 1 s and two units of 3 s for both: a third job waits, and overtakes no earlier one."""
    made = placement([stage("qkv", shared=False, per_token=1.0), pooled("qkv_vector", 2, per_token=3.0)], tokens=3)
    timeline = build_timeline(made, LayerOverlap(block=1))
    starts = [timeline.schedule.start[n] for n, job in enumerate(timeline.jobs) if job.pool]
    # layer 0 comes at 1, 2, 3; layer 1 at 4 + 1, 5 + 1, 7 + 1
    assert starts == [1.0, 2.0, 4.0, 5.0, 7.0, 8.0]
    assert timeline.latency == 11.0
    assert [timeline.schedule.member[n] for n, job in enumerate(timeline.jobs) if job.pool] == [
        *(f"{POOL} {number}" for number in (1, 2, 1, 2, 1, 2)),
    ]


def test_units_share_a_block() -> None:
    """Seven tokens on three units: 3, 2 and 2 of them, so the block takes the time of three."""
    found = placement(
        [pooled("ffn1", 3, per_token=2.0), stage("output", shared=False, per_token=1.0)], tokens=7, layers=1
    )
    timeline = build_timeline(found, LayerSerial())
    assert [job.duration for job in timeline.jobs if job.pool] == [6.0, 4.0, 4.0]
    assert timeline.latency == 6.0 + 7.0
    assert timeline.busy == {f"{POOL} 1": 6.0, f"{POOL} 2": 4.0, f"{POOL} 3": 4.0, "layer 0: projection.output": 7.0}


def test_one_unit_without_a_pool_keeps_the_order_of_layers() -> None:
    alone = placement([replace(pooled("ffn1", 1, per_token=2.0), pool=0)], tokens=4)
    assert build_timeline(alone, LayerOverlap(block=1)).schedule.member == {}


def test_the_critical_path_goes_through_the_pool() -> None:
    made = placement([stage("qkv", shared=False, per_token=1.0), pooled("qkv_vector", 2, per_token=3.0)], tokens=3)
    timeline = build_timeline(made, LayerOverlap(block=1))
    assert sum(timeline.critical_stages().values()) == pytest.approx(timeline.latency, rel=1e-12)
    tracks = {
        event["args"]["name"] for event in timeline.chrome_trace()["traceEvents"] if event["name"] == "thread_name"
    }
    assert {f"{POOL} 1", f"{POOL} 2"} <= tracks


def test_many_designs_at_once_have_no_closed_form() -> None:
    made = placement([pooled("ffn1", 2, per_token=2.0)])
    with pytest.raises(BadInput, match=r"no closed form; take of\.simulate"):
        latencies(made, LayerSerial(), Designs(np.array([1]), {}))


def test_a_memory_and_a_pool_at_once() -> None:
    """Jobs of a pool that also use the memory off the chip take it in program order, and none waits forever."""
    made = placement(
        [pooled("key", 2, per_token=2.0, off_chip=2.0), stage("ffn1", per_token=1.0, off_chip=0.5)], layers=3
    )
    timeline = build_timeline(made, LayerOverlap(block=1))
    assert timeline.latency >= 3 * 10 * 2.0
    found: Schedule = run_jobs(timeline.jobs)
    assert found.start == timeline.schedule.start


@pytest.mark.parametrize("flow", [LayerOverlap(block=4), SequenceBlocking(block=4), SequenceBlocking(block=3)])
def test_a_small_last_block_that_ends_early_hides_no_other_block(flow: SequenceBlocking) -> None:
    """9 or 10 tokens on two units: the last block is smaller, and ends before the one before it."""
    two = [pooled("qkv", 2, per_token=1.0), stage("output", shared=False, per_token=0.0625)]
    for tokens in (9, 10, 13):
        made = placement(two, tokens=tokens, layers=2, barrier=1)
        timeline = build_timeline(made, flow)
        for layer in range(2):
            jobs = [(job, n) for n, job in enumerate(timeline.jobs) if job.layer == layer]
            written = max(timeline.schedule.ready[n] for job, n in jobs if job.pool)
            assert min(timeline.schedule.start[n] for job, n in jobs if not job.pool) >= written
