"""Pools of many units, and pools whose jobs also need the memory off the chip: the order of work, and its effort."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from ohmformer.cost.stage import Stage
from ohmformer.dataflow.event_engine import _Engine
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.jobs import jobs_of
from ohmformer.dataflow.spec import LayerSerial
from tests.dataflow.build import placement, stage

POOL, MEMORY = "vector unit", "memory"


def starts_of(jobs: list[Job]) -> list[float]:
    """Start of each job by the rules alone: at each moment, the first job that may start does, until none may."""
    start: dict[int, float] = {}
    now = 0.0
    while len(start) < len(jobs):
        while (number := _first_that_may_start(jobs, start, now)) is not None:
            start[number] = now
        ends = [at + time for n, at in start.items() for time in (jobs[n].duration, jobs[n].memory)]
        ends += [at + jobs[n].duration + jobs[n].lag for n, at in start.items()]
        now = min((end for end in ends if end > now), default=now)
    return [start[number] for number in range(len(jobs))]


def _first_that_may_start(jobs: list[Job], start: dict[int, float], now: float) -> int | None:
    came: dict[int, float] = {}
    for number, job in enumerate(jobs):
        arrivals = [start[o] + jobs[o].duration + jobs[o].lag if o in start else now + 1 for o in job.after]
        if number not in start and all(arrival <= now for arrival in arrivals):
            came[number] = max(arrivals, default=0.0)
    for number in sorted(came, key=lambda each: (bool(jobs[each].pool), came[each], each)):
        job = jobs[number]
        alike = [n for n in range(len(jobs)) if jobs[n].unit == job.unit]
        running = sum(n in start and start[n] + jobs[n].duration > now for n in alike)
        free = running < job.pool if job.pool else not running and all(n in start for n in alike if n < number)
        users = [n for n in range(len(jobs)) if MEMORY in jobs[n].also]
        used = any(n in start and start[n] + jobs[n].memory > now for n in users)
        if free and (MEMORY not in job.also or (not used and all(n in start for n in users if n < number))):
            return number
    return None


def random_jobs(seed: int) -> list[Job]:
    """Layers of an array stage and two stages of a pool, whose parts wait for all parts before; some use the memory."""
    draw = random.Random(seed)
    some, jobs = placement([stage("qkv", shared=False)], tokens=1), list[Job]()
    entry, before = some.layers[0].stages[0], tuple[int, ...]()
    for layer in range(draw.randint(2, 4)):
        for unit, pool, parts in (
            (f"arrays {layer}", 0, 1),
            (POOL, 3, draw.randint(1, 5)),
            (POOL, 3, draw.randint(1, 5)),
        ):
            first = len(jobs)
            also = (MEMORY,) if draw.random() < 0.6 else ()
            for _ in range(parts):
                busy, lag = draw.randint(1, 6) / 4, draw.randint(0, 2) / 4
                memory = min(busy, draw.randint(1, 6) / 4) if also else 0.0
                jobs.append(Job(0, entry, 0, 0, unit, busy, before, 0.0, lag, also, memory, pool=pool))
            before = before[-2:] if draw.random() < 0.3 else tuple(range(first, len(jobs)))
    return jobs


@pytest.mark.parametrize("seed", range(40))
def test_pools_and_the_memory_against_the_rules_alone(seed: int) -> None:
    jobs = random_jobs(seed)
    assert _Engine(jobs).run().start == pytest.approx(starts_of(jobs), abs=1e-12)


def test_the_cause_of_a_part_is_the_last_result_before_it() -> None:
    for seed in range(40):
        jobs = random_jobs(seed)
        schedule = _Engine(jobs).run()
        for number, cause in enumerate(schedule.cause):
            if cause < 0:
                assert schedule.start[number] == 0.0
            else:
                memory = schedule.start[cause] + jobs[cause].memory
                assert schedule.start[number] in (schedule.ready[cause], schedule.end[cause], memory)


def test_parts_of_a_block_cost_no_square_of_the_units() -> None:
    """A stage in 500 parts behind one of 500 parts waits for 500 results, not for 250,000."""
    pools = [Stage(name, "projection", f"{name} unit", True, 500, per_token=1.0) for name in ("qkv", "ffn1")]
    engine = _Engine(jobs_of(placement(pools, tokens=500, layers=1), LayerSerial()))
    assert len(engine.jobs) == 1_000
    assert sum(map(len, engine.followers)) == 500
    schedule = engine.run()
    assert max(schedule.end) == 2.0
    assert schedule.cause[500:] == [0] * 500


def test_jobs_that_wait_for_the_memory_are_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """800 jobs that need a pool and the memory are looked at a few times each, not once per event."""
    some = placement([stage("qkv", shared=False)], tokens=1).layers[0].stages[0]
    jobs = [
        Job(0, some, n, 0, POOL, 1.0, (), 0.0, also=(MEMORY,), memory=0.5, memory_unit=MEMORY, pool=4)
        for n in range(800)
    ]
    looks = 0
    plain = _Engine._are_next

    def counted(engine: _Engine, units: Sequence[str], number: int) -> bool:
        nonlocal looks
        looks += 1
        return plain(engine, units, number)

    monkeypatch.setattr(_Engine, "_are_next", counted)
    assert _Engine(jobs).run().start == [number / 2 for number in range(800)]
    assert looks < 4_000
