"""A task: what one block of one sample does in one stage of one layer."""

from __future__ import annotations

from dataclasses import dataclass

from ohmformer.cost.stage import Stage


@dataclass(frozen=True, slots=True)
class Task:
    """A block of one sample in one stage of one layer.

    Attributes:
        layer: position of the layer in the placement.
        stage: what is done.
        sample: number of the sample.
        block: number of the block.
        unit: what it occupies.
        duration: for how long [s].
        after: positions of the tasks that have to end before it starts.
        share: of the stage's energy, over all samples and blocks.
    """

    layer: int
    stage: Stage
    sample: int
    block: int
    unit: str
    duration: float
    after: tuple[int, ...]
    share: float
