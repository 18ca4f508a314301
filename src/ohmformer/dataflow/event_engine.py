"""The event engine: tasks start when what they wait for has ended and their unit has come to them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ohmformer.dataflow.job import Task


@dataclass(frozen=True)
class Schedule:
    """When tasks start and end [s], and which task each waited for last (-1: none)."""

    start: list[float]
    end: list[float]
    cause: list[int]


def run_tasks(tasks: Sequence[Task]) -> Schedule:
    """Run tasks: a unit has one at a time and takes its tasks in program order.

    Raises:
        ValueError: tasks wait for one another in a circle.
    """
    return _Engine(tasks).run()


class _Engine:
    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.waiting = [len(task.after) for task in tasks]
        self.followers: list[list[int]] = [[] for _ in tasks]
        self.queues: dict[str, deque[int]] = {}
        for number, task in enumerate(tasks):
            self.queues.setdefault(task.unit, deque()).append(number)
            for other in task.after:
                self.followers[other].append(number)
        self.busy: set[str] = set()
        self.last: dict[str, int] = {}
        count = len(tasks)
        self.start, self.end, self.cause = [0.0] * count, [0.0] * count, [-1] * count
        self.events: list[tuple[float, int]] = []

    def run(self) -> Schedule:
        """Handle ends of tasks in the order of time."""
        for unit in self.queues:
            self._offer(unit, 0.0)
        ended = 0
        while self.events:
            now, number = heapq.heappop(self.events)
            ended += 1
            unit = self.tasks[number].unit
            self.busy.discard(unit)
            self.last[unit] = number
            units = [unit]
            for follower in self.followers[number]:
                self.waiting[follower] -= 1
                if not self.waiting[follower]:
                    units.append(self.tasks[follower].unit)
            for each in units:
                self._offer(each, now)
        if ended != len(self.tasks):
            raise ValueError(
                f"{len(self.tasks) - ended} tasks wait for one another in a circle; correct what they are after"
            )
        return Schedule(self.start, self.end, self.cause)

    def _offer(self, unit: str, now: float) -> None:
        """Start the next task of a unit if unit and task are free to."""
        queue = self.queues[unit]
        if unit in self.busy or not queue or self.waiting[queue[0]]:
            return
        number = queue.popleft()
        task = self.tasks[number]
        self.busy.add(unit)
        self.start[number], self.end[number] = now, now + task.duration
        before = (*task.after, self.last[unit]) if unit in self.last else task.after
        self.cause[number] = max(before, key=lambda other: self.end[other], default=-1)
        heapq.heappush(self.events, (self.end[number], number))
