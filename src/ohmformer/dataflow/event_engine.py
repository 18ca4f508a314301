"""The event engine: a job starts when the jobs that it waits for have ended and its unit has reached it.

A discrete-event simulation with a heap of job ends. Every unit is a queue: it runs one job at a time, in program order.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ohmformer.dataflow.job import Job


@dataclass(frozen=True)
class Schedule:
    """When every job starts and ends.

    Attributes:
        start: start of each job [s].
        end: end of each job [s].
        cause: position of the job whose end let each job start (-1: it started at time 0).
    """

    start: list[float]
    end: list[float]
    cause: list[int]


def run_jobs(jobs: Sequence[Job]) -> Schedule:
    """Run jobs through the event engine.

    Args:
        jobs: in program order: each unit takes its jobs in this order.

    Raises:
        ValueError: jobs wait for one another in a circle.
    """
    return _Engine(jobs).run()


class _Engine:
    """The state of one simulation.

    Attributes:
        waiting: for each job, how many of the jobs that it waits for have not ended.
        followers: for each job, the jobs that wait for it.
        queues: unit -> the jobs that it has not started.
        busy: the units that run a job.
        last: unit -> the job that it ran last.
        events: heap of (end [s], job) of the running jobs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.waiting = [len(job.after) for job in jobs]
        self.followers: list[list[int]] = [[] for _ in jobs]
        self.queues: dict[str, deque[int]] = {}
        for number, job in enumerate(jobs):
            self.queues.setdefault(job.unit, deque()).append(number)
            for other in job.after:
                self.followers[other].append(number)
        self.busy: set[str] = set()
        self.last: dict[str, int] = {}
        count = len(jobs)
        self.start, self.end, self.cause = [0.0] * count, [0.0] * count, [-1] * count
        self.events: list[tuple[float, int]] = []

    def run(self) -> Schedule:
        """Handle the ends of jobs in the order of time."""
        for unit in self.queues:
            self._start_next(unit, 0.0)
        ended = 0
        while self.events:
            now, number = heapq.heappop(self.events)
            ended += 1
            unit = self.jobs[number].unit
            self.busy.discard(unit)
            self.last[unit] = number
            units = [unit]
            for follower in self.followers[number]:
                self.waiting[follower] -= 1
                if not self.waiting[follower]:
                    units.append(self.jobs[follower].unit)
            for each in units:
                self._start_next(each, now)
        if ended != len(self.jobs):
            raise ValueError(
                f"{len(self.jobs) - ended} jobs wait for one another in a circle; correct the field after of these jobs"
            )
        return Schedule(self.start, self.end, self.cause)

    def _start_next(self, unit: str, now: float) -> None:
        """Start the next job of a unit, if the unit is free and the job waits for nothing more."""
        queue = self.queues[unit]
        if unit in self.busy or not queue or self.waiting[queue[0]]:
            return
        number = queue.popleft()
        job = self.jobs[number]
        self.busy.add(unit)
        self.start[number], self.end[number] = now, now + job.duration
        before = (*job.after, self.last[unit]) if unit in self.last else job.after
        self.cause[number] = max(before, key=lambda other: self.end[other], default=-1)
        heapq.heappush(self.events, (self.end[number], number))
