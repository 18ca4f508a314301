"""The times of blocks: numbers for one design, or arrays with a last axis of D designs that are computed together.

Designs may cut a layer into different numbers of blocks. B is the largest of these numbers; designs with fewer blocks
have empty ones before their first, which take no time. So the last block of each design is at the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ohmformer.cost.designs.per_design import PerDesign
from ohmformer.cost.stage import Stage

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_KEPT = 200_000
"""Maximum number of times of blocks that are kept per stage."""


class Timed(Protocol):
    """The fields of `Stage` that decide its time: numbers, or arrays [D] with a value per design."""

    @property
    def name(self) -> str: ...

    @property
    def fixed(self) -> float | Array: ...

    @property
    def per_token(self) -> float | Array: ...

    @property
    def floor(self) -> float | Array: ...

    @property
    def cap(self) -> float | Array: ...

    @property
    def turn(self) -> float | Array: ...


class TimeFields(NamedTuple):
    """The fields of a stage for D designs, see `Timed`."""

    name: str
    fixed: float | Array
    per_token: float | Array
    floor: float | Array
    cap: float | Array
    turn: float | Array


def times_of_block(stage: Timed, size: IntArray) -> tuple[Array, Array]:
    """`Stage.occupancy` and `Stage.time` of a block of `size` tokens [D], for each design [s]."""
    last, before = (size, None) if stage.turn is inf else _turns(stage, size)
    work = stage.per_token * np.minimum(last, stage.cap)
    busy, time = np.maximum(stage.floor, work), np.maximum(stage.floor, stage.fixed + work)
    return (busy, time) if before is None else (busy + before, time + before)


def _turns(stage: Timed, size: IntArray) -> tuple[Array, Array]:
    """Tokens of the last turn of a block [D], and the time of the turns before it [D] [s]."""
    turn = np.minimum(stage.turn, size)
    turns = np.ceil(size / turn) - 1
    return size - turns * turn, turns * np.maximum(stage.floor, stage.per_token * np.minimum(turn, stage.cap))


class Cut(NamedTuple):
    """The B blocks into which designs cut a layer.

    Attributes:
        most: B.
        number: number of each block, from 0: [B] for one design, or [B, D]; 0 for empty blocks.
        filled: 1 for blocks with tokens, 0 for empty ones, as `number`.
        empty: for each design, the number of its empty blocks [D]; None if there are none.
    """

    most: int
    number: Array
    filled: Array
    empty: IntArray | None


class StageBlocks(NamedTuple):
    """The B blocks of each of N samples in a stage.

    An array is [B] for one design, [B, D] for several; a number may be [D].

    Attributes:
        before: for each block of each sample, the time for which those before it occupy the unit, [N, B] or [N, B, D]
            [s].
        delays: for each block, times [s] whose sum passes from its start until its result has arrived.
        last_busy: time for which the last block occupies the unit [s].
        rest: tokens of the last block.
    """

    before: Array
    delays: tuple[Array, ...]
    last_busy: float | Array
    rest: int | IntArray


class BlockTimes:
    """The times of the blocks of all stages.

    Attributes:
        sizes: tokens of a layer -> tokens per block: one number, or [D].
        places: for each design, its place among those that were priced at once [D]; None if all have the same prices.
        speed: stage name -> factor by which its times are multiplied: one number, or [D].
        designs: D; None for one design, whose times are numbers.
    """

    def __init__(
        self,
        sizes: Mapping[int, int | IntArray],
        places: IntArray | None,
        speed: Mapping[str, float | Array],
        designs: int | None,
    ) -> None:
        self.sizes, self.places, self.speed, self.designs = sizes, places, speed, designs
        self._blocks: dict[tuple[int, int, bool, int], StageBlocks] = {}
        self._cuts: dict[int, Cut] = {}
        self._single: dict[tuple[int, int], tuple[Any, Any]] = {}

    def cut(self, tokens: int) -> Cut:
        """The blocks of a layer."""
        if tokens not in self._cuts:
            counts = -(-tokens // np.asarray(self.sizes[tokens]))
            most = int(counts.max())
            number = np.arange(float(most))
            if self.designs is not None:
                number = number[:, None] - (most - counts)
            empty = most - counts if (counts < most).any() else None
            self._cuts[tokens] = Cut(most, np.maximum(number, 0.0), np.where(number < 0, 0.0, 1.0), empty)
        return self._cuts[tokens]

    def setup(self, stage: Stage) -> float | Array:
        """Time of a stage that prepares a layer [s]."""
        time: float | Array = self.of_block(stage, 1)[1]
        return time

    def of_block(self, stage: Stage, tokens: Any) -> tuple[Any, Any]:
        """Time of a block for which its unit is busy, and until its result has arrived [s]."""
        factor = self.speed.get(stage.name, 1.0)
        if self.designs is None:
            key = id(stage), tokens
            if key not in self._single:
                self._single[key] = stage.occupancy(tokens) * factor, stage.time(tokens) * factor
            return self._single[key]
        fields = (stage.fixed, stage.per_token, stage.floor, stage.cap, stage.turn)
        busy, time = times_of_block(TimeFields(stage.name, *map(self._chosen, fields)), tokens)
        return busy * factor, time * factor

    def blocks(self, stage: Stage, tokens: int, whole: bool, samples: int) -> StageBlocks:
        """The blocks of a stage.

        Args:
            stage: the stage.
            tokens: tokens of a sample in its layer.
            whole: True if the sample is one block.
            samples: number of samples.
        """
        key = id(stage), tokens, whole, samples
        if key in self._blocks:
            return self._blocks[key]
        count = 1 if whole else self.cut(tokens).most
        if stage.by_keys is not None and count > 1:
            found = self._unequal(stage, tokens, samples)
        else:
            found = self._equal(stage, tokens, whole, samples)
        if found.before.size <= MOST_KEPT:
            self._blocks[key] = found
        return found

    def size_and_rest(self, tokens: int, whole: bool) -> tuple[Any, Any]:
        """Tokens of each block of a layer but the last, and of the last one; see `blocks`."""
        size = self.sizes[tokens]
        if whole:
            size = tokens if self.designs is None else np.full(self.designs, tokens)
        return size, (tokens - 1) % size + 1

    def _equal(self, stage: Stage, tokens: int, whole: bool, samples: int) -> StageBlocks:
        """Blocks that take equal times, but for a smaller last one."""
        size, rest = self.size_and_rest(tokens, whole)
        (busy, time), (last_busy, last_time) = self.of_block(stage, size), self.of_block(stage, rest)
        if whole:
            before, late = np.zeros_like(last_busy)[None], np.array(last_time)[None]
        else:
            cut = self.cut(tokens)
            before, late = cut.number * busy, cut.filled * time
            late[-1] = last_time
        before = _of_samples(before, samples, (-(-tokens // size) - 1) * busy + last_busy)
        return StageBlocks(before, (late,), last_busy, rest)

    def _unequal(self, stage: Stage, tokens: int, samples: int) -> StageBlocks:
        """Blocks whose times depend on the keys that their tokens see."""
        size, rest = self.size_and_rest(tokens, False)
        busy, late = self._by_block(stage, size)
        ends = np.cumsum(busy, axis=0)
        before = _of_samples(np.concatenate([np.zeros_like(ends[:1]), ends[:-1]]), samples, ends[-1])
        return StageBlocks(before, (busy, late), busy[-1], rest)

    def _by_block(self, stage: Stage, size: Any) -> tuple[Array, Array]:
        """For each block of a stage whose later blocks see more keys, the time for which it occupies the unit, and the
        time from then until its result has arrived: [B] or [B, D] [s]."""
        assert stage.by_keys is not None
        floor, fixed = self._chosen(stage.floor), self._chosen(stage.fixed)
        if self.designs is None:
            work = stage.by_keys.by_block(size)
        else:
            work = stage.by_keys.by_blocks(size, self.places)
        factor = self.speed.get(stage.name, 1.0)
        busy = np.maximum(floor, work)
        late = np.maximum(floor, fixed + work) - busy
        filled = self.cut(stage.by_keys.seen.queries).filled * factor
        return busy * filled, late * filled

    def memory(self, stage: Stage, tokens: Any) -> Any:
        """Time for which a block may occupy the memory off the chip [s]; it never takes longer than the block."""
        return self._chosen(stage.off_chip) * tokens * self.speed.get(stage.name, 1.0)

    def _chosen(self, number: Any) -> Any:
        """The numbers of the designs, where `number` is one for all or one for each of those priced at once."""
        return number.values[self.places] if isinstance(number, PerDesign) else number


def _of_samples(before: Array, samples: int, all_busy: float | Array) -> Array:
    """`StageBlocks.before` of all samples, from that of the first and the time for which one occupies the unit [s]."""
    found: Array = before[None]
    if samples > 1:
        found = np.arange(samples).reshape(-1, *(1,) * before.ndim) * all_busy + before
    return found
