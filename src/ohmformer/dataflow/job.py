"""A job: the work of one block of one sample in one stage of one layer. The event engine schedules jobs."""

from __future__ import annotations

from dataclasses import dataclass

from ohmformer.cost.stage import MEMORY, Stage


@dataclass(frozen=True, slots=True)
class Job:
    """One block of one sample in one stage of one layer, or a part of a block that one of several equal units takes.

    Attributes:
        layer: position of the layer in `Placement.layers`.
        stage: the stage.
        sample: number of the sample.
        block: number of the block.
        unit: name of the unit that the job occupies.
        duration: time for which it occupies its units [s].
        after: positions of the jobs that must end before this one starts.
        share: the part of the stage's energy that this job takes. The shares of all jobs of a stage add up to 1.
        lag: time from its end until its result has arrived [s]. Jobs that wait for it start no earlier; its units are
            free at its end.
        also: further units that it occupies, for the same time unless they are the memory off the chip.
        first: tokens of the sample before the block.
        memory: time for which it occupies the memory off the chip [s], at most `duration`.
        memory_unit: name of the memory off the chip, of which each of several chips has one.
        pool: number of equal units named `unit`, of which it takes any, first come, first served; 0 for a single unit,
            which takes its jobs in program order. Jobs of a unit must agree.
    """

    layer: int
    stage: Stage
    sample: int
    block: int
    unit: str
    duration: float
    after: tuple[int, ...]
    share: float
    lag: float = 0.0
    also: tuple[str, ...] = ()
    memory: float = 0.0
    first: int = 0
    memory_unit: str = MEMORY
    pool: int = 0

    def units(self) -> list[tuple[str, float]]:
        """The units that it occupies, each with the time from its start [s]."""
        further = [(unit, self.memory if unit == self.memory_unit else self.duration) for unit in self.also]
        return [(self.unit, self.duration), *further]
