"""The event engine: a job starts when the jobs that it waits for have ended and its unit has reached it.

A discrete-event simulation with a heap of events. Every unit is a queue: it runs one job at a time, in program order. A
job that occupies several units starts when it is the next of all of them. Its units are free at its end; jobs that wait
for it start when its result has arrived, `lag` later.

Equal units may form a pool (`Job.pool`). Its jobs wait in the order in which they become ready, those that become ready
at the same time in program order, and the next one starts on the first unit that is free. So none of the units rests
while a job waits for it, and at most as many jobs run as there are units.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ohmformer.dataflow.job import Job


@dataclass(frozen=True)
class Schedule:
    """When every job starts and ends.

    Attributes:
        start: start of each job [s].
        end: end of each job [s].
        ready: arrival of the result of each job [s].
        cause: position of the job whose end or result let each job start (-1: it started at time 0).
        member: job in a pool -> name of the unit that did it.
    """

    start: list[float]
    end: list[float]
    ready: list[float]
    cause: list[int]
    member: dict[int, str] = field(default_factory=dict)


def run_jobs(jobs: Sequence[Job]) -> Schedule:
    """Run jobs through the event engine.

    Args:
        jobs: in program order: each unit takes its jobs in this order.

    Raises:
        ValueError: jobs wait for one another in a circle.
    """
    return _Engine(jobs).run()


class UnitPool:
    """Equal units whose jobs wait first come, first served.

    Attributes:
        waiting: heap of (time at which it became ready [s], job) of the jobs that have not started.
        fresh: number of units that have done nothing yet, which have the highest numbers.
    """

    def __init__(self, name: str, count: int) -> None:
        self.waiting: list[tuple[float, int]] = []
        self.fresh = count
        self._name, self._count = name, count
        self._freed: list[int] = []

    @property
    def idle(self) -> bool:
        """True if a unit is free."""
        return bool(self._freed or self.fresh)

    def take(self) -> str:
        """The name of the first unit that is free, which is free no longer; units count from 1."""
        if self._freed:
            return f"{self._name} {heapq.heappop(self._freed)}"
        self.fresh -= 1
        return f"{self._name} {self._count - self.fresh}"

    def free(self, unit: str) -> None:
        """Make a unit free again."""
        heapq.heappush(self._freed, int(unit.rpartition(" ")[2]))


class _Engine:
    """The state of one simulation.

    Attributes:
        waiting: for each job, how many of the jobs that it waits for have not ended; 1 for later members of a group.
        groups: first member of a group -> all members, in order. The parts of a block on equal units wait for the same
            jobs (`Job.after` is the same tuple), so only the first member counts them.
        group_cause: job of a group with several members -> arrival of the last result that it waits for [s], and the
            job that gives it.
        followers: for each job, the jobs that wait for it; of a group, the first member.
        queues: unit -> the jobs that it has not started.
        busy: the units that run a job.
        last: unit -> the job that it ran last.
        events: heap of (end [s], job) of the running jobs; of (arrival [s], job + number of jobs) of results that
            arrive later than their job ends; and of (time [s], job + 2 number of jobs) where a job frees the memory
            off the chip before its end.
        pools: name of a pool -> its units, and its jobs that are ready but have not started.
        crowded: those pools in which jobs wait for a unit of the pool.
        held: job of a pool that waits for another unit, such as the memory off the chip -> when it became ready [s].
        member: job in a pool -> name of the unit that does it, or did it.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.waiting = [len(job.after) for job in jobs]
        self.groups: dict[int, list[int]] = {}
        self.group_cause: dict[int, tuple[float, int]] = {}
        self.held: dict[int, float] = {}
        self.followers: list[list[int]] = [[] for _ in jobs]
        self.queues: dict[str, deque[int]] = {}
        self.pools: dict[str, UnitPool] = {}
        self.crowded: dict[str, UnitPool] = {}
        self.member: dict[int, str] = {}
        first, shared = 0, tuple[int, ...]()
        for number, job in enumerate(jobs):
            units = job.also
            if job.pool:
                self.pools.setdefault(job.unit, UnitPool(job.unit, job.pool))
            else:
                units = (job.unit, *units)
            for unit in units:
                self.queues.setdefault(unit, deque()).append(number)
            if job.after is shared and shared:
                self.waiting[number] = 1
                self.groups.setdefault(first, [first]).append(number)
                continue
            first, shared = number, job.after
            for other in shared:
                self.followers[other].append(number)
        self.busy: set[str] = set()
        self.last: dict[str, int] = {}
        count = len(jobs)
        self.start, self.end, self.ready = [0.0] * count, [0.0] * count, [0.0] * count
        self.cause = [-1] * count
        self.events: list[tuple[float, int]] = []

    def run(self) -> Schedule:
        """Handle the ends of jobs and the arrivals of results in the order of time."""
        for unit in self.queues:
            self._start_next(unit, 0.0)
        for number, count in enumerate(self.waiting if self.pools else ()):
            if not count and self.jobs[number].pool:
                self._wait(number, 0.0)
        self._start_in_pools(0.0)
        ended, count = 0, len(self.jobs)
        while self.events:
            now, event = heapq.heappop(self.events)
            if event < count:
                ended += 1
                job = self.jobs[event]
                units = [job.unit]
                if job.also:
                    units += [unit for unit in job.also if unit != job.memory_unit or job.memory == job.duration]
                if job.pool:
                    units[0] = self.member[event]
                    self.pools[job.unit].free(units[0])
                for unit in units:
                    self.busy.discard(unit)
                    self.last[unit] = event
                if job.lag:
                    heapq.heappush(self.events, (self.ready[event], event + count))
                else:
                    units += self._released(event, now)
            elif event < 2 * count:
                units = self._released(event - count, now)
            else:
                memory = self.jobs[event - 2 * count].memory_unit
                self.busy.discard(memory)
                self.last[memory] = event - 2 * count
                units = [memory]
            for each in units:
                self._start_next(each, now)
            if self.crowded and (not self.events or self.events[0][0] > now):
                self._start_in_pools(now)
        if ended != len(self.jobs):
            raise ValueError(
                f"{len(self.jobs) - ended} jobs wait for one another in a circle; correct the field after of these jobs"
            )
        return Schedule(self.start, self.end, self.ready, self.cause, self.member)

    def _released(self, number: int, now: float) -> list[str]:
        """The units of the jobs that wait for nothing more, now that the result of a job has arrived."""
        units, waiting, groups = [], self.waiting, self.groups
        for follower in self.followers[number]:
            waiting[follower] -= 1
            if waiting[follower]:
                continue
            for member in self._members(follower) if follower in groups else (follower,):
                job = self.jobs[member]
                if job.pool:
                    self._wait(member, now)
                else:
                    units.append(job.unit)
        return units

    def _members(self, first: int) -> list[int]:
        """The jobs of a group, none of which waits for any other job now."""
        latest = max(((self.ready[other], other) for other in self.jobs[first].after), key=lambda entry: entry[0])
        for member in self.groups[first]:
            self.waiting[member] = 0
            self.group_cause[member] = latest
        return self.groups[first]

    def _start_in_pools(self, now: float) -> None:
        """Start the jobs of pools that have a free unit; those that cannot have their other units are held."""
        for name in [name for name, pool in self.crowded.items() if pool.idle]:
            pool = self.crowded[name]
            while pool.waiting and pool.idle:
                since, number = heapq.heappop(pool.waiting)
                also = self.jobs[number].also
                if also and not self._are_next(also, number):
                    self.held[number] = since
                    continue
                unit = self.member[number] = pool.take()
                self._run(number, also, (unit, *also), now)
            if not pool.waiting:
                del self.crowded[name]

    def _are_next(self, units: Sequence[str], number: int) -> bool:
        """True if units are free, and a job is the next one of each."""
        return not any(each in self.busy or self.queues[each][0] != number for each in units)

    def _wait(self, number: int, since: float) -> None:
        """Let a job that is ready since a time [s] wait for a unit of its pool."""
        name = self.jobs[number].unit
        self.crowded[name] = self.pools[name]
        heapq.heappush(self.pools[name].waiting, (since, number))

    def _start_next(self, unit: str, now: float) -> None:
        """Start the next job of a unit, if the unit is free and the job waits for nothing more."""
        queue = self.queues.get(unit)
        if not queue or unit in self.busy or self.waiting[queue[0]]:
            return
        number = queue[0]
        job = self.jobs[number]
        units: tuple[str, ...] = (unit,)
        if job.also:
            if job.pool:
                if number in self.held and self._are_next(job.also, number):
                    self._wait(number, self.held.pop(number))
                return
            units = (job.unit, *job.also)
            if not self._are_next(units, number):
                return
        self._run(number, units, units, now)

    def _run(self, number: int, queued: tuple[str, ...], units: tuple[str, ...], now: float) -> None:
        """Start a job.

        Args:
            number: its position.
            queued: its units that take their jobs in program order.
            units: all its units.
            now: the time [s].
        """
        job = self.jobs[number]
        for each in queued:
            self.queues[each].popleft()
            self.busy.add(each)
        self.start[number], self.end[number] = now, now + job.duration
        self.ready[number] = self.end[number] + job.lag
        self.cause[number] = self._cause(number, units)
        heapq.heappush(self.events, (self.end[number], number))
        if job.also and job.memory_unit in job.also and job.memory < job.duration:
            heapq.heappush(self.events, (now + job.memory, number + 2 * len(self.jobs)))

    def _cause(self, number: int, units: tuple[str, ...]) -> int:
        """The job whose result came last or whose end freed a unit last; -1 if the job waited for none."""
        job = self.jobs[number]
        latest = self.group_cause.get(number) if self.groups else None
        came = [(self.ready[other], other) for other in job.after] if latest is None else [latest]
        came += [(self.end[self.last[unit]], self.last[unit]) for unit in units if unit in self.last]
        memory = job.memory_unit
        if memory in self.last and memory in units:  # some jobs free it before their end
            last = self.last[memory]
            if latest is not None and latest[1] == last:
                came[:1] = [(self.ready[other], other) for other in job.after]
            came.remove((self.end[last], last))
            came.append((self.start[last] + dict(self.jobs[last].units())[memory], last))
        return max(came, key=lambda entry: entry[0], default=(0.0, -1))[1]
