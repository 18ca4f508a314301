"""Partial sums: where the row blocks of a matrix lie, and how far their results travel until they are added.

Arrays fill cores, and cores fill tiles, from the start of a tile: column block by column block, in each of them row
block by row block, then slice by slice, both polarities side by side. So the row blocks of a column block are
neighbors. The slices and polarities of a row block are added where its first array is. Then the lanes of every core
add the row blocks of the core, one core of every tile adds the sums of its cores, and one tile adds the sums of all
tiles. With R row blocks in C cores of T tiles, R - C sums stay in their core, C - T pass through the memory of their
tile, and T - 1 also pass the network. If all layers share vector units, these add all row blocks, so that R - 1 sums
pass the network.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log2
from typing import NamedTuple

from ohmformer.cost.attention.seen_keys import KeysPerQuery
from ohmformer.cost.engine_choice import PlacedOp
from ohmformer.cost.operands import array_matrices, block_sums_by_keys
from ohmformer.hardware.chip import Chip
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import StaticMatMul


class Crossing(NamedTuple):
    """Shares of the partial sums that do not stay where they arise.

    Attributes:
        cores: share that goes to another core, of the same tile or of another one.
        tiles: share that goes to another tile.
    """

    cores: float
    tiles: float


class PartialSums(NamedTuple):
    """The partial sums of a product that are added to another one; the last sum is the result, which is not among them.

    Attributes:
        bytes: bytes of all of them, for all samples.
        width: bytes of one of them.
        crossing: which shares go to another core, and to another tile.
    """

    bytes: float
    width: int
    crossing: Crossing

    @property
    def through_memories(self) -> float:
        """Bytes that the memories of tiles take in and give out."""
        return 2 * self.bytes * self.crossing.cores

    @property
    def over_network(self) -> float:
        """Bytes that tiles send to other tiles."""
        return self.bytes * self.crossing.tiles

    @property
    def through_registers(self) -> float:
        """Bytes that the registers of cores take in: of all sums, and once more of those that come from elsewhere."""
        return self.bytes * (1 + self.crossing.cores)


NO_SUMS = PartialSums(0.0, 0, Crossing(0.0, 0.0))


def partial_sums_of(placed: PlacedOp, chip: Chip) -> PartialSums:
    """The partial sums of the row blocks of a product on arrays; none if one row block holds all rows."""
    op = placed.op
    matrices = array_matrices(placed)
    if matrices.row_blocks == 1:
        return NO_SUMS
    if isinstance(op, StaticMatMul):
        count: float = (matrices.row_blocks - 1) * op.vectors * op.outputs
    else:
        count = op.batch * op.heads * block_sums_by_keys(placed).total(KeysPerQuery.of(op))
    width = sum_bytes(matrices, chip)
    return PartialSums(count * width, width, crossing(matrices, chip))


def sum_bytes(matrices: Plan, chip: Chip) -> int:
    """Bytes of a partial sum: those of the chip's registers, or as many as the exact sum over all rows needs."""
    array = matrices.array
    bits = chip.partial_sum_bits or array.bits + array.inputs.bits + ceil(log2(matrices.inputs))
    return ceil(bits / 8)


def crossing(matrices: Plan, chip: Chip) -> Crossing:
    """Which shares of the partial sums of matrices with several row blocks leave their core and their tile."""
    if chip.vector.units is not None:
        return Crossing(1.0, 1.0)
    stride = matrices.slices * matrices.array.polarities
    columns = matrices.matrices * matrices.column_blocks
    cores, tiles = chip.arrays_per_core, chip.arrays_per_core * chip.cores_per_tile
    return _crossing(matrices.row_blocks, stride, columns, cores, tiles)


@lru_cache(maxsize=4096)
def _crossing(rows: int, stride: int, columns: int, core: int, tile: int) -> Crossing:
    """The shares, for `rows` row blocks of `stride` arrays in each of `columns` column blocks."""
    sums = columns * (rows - 1)
    return Crossing(*(_boundaries(rows, stride, columns, size) / sums for size in (core, tile)))


def _boundaries(rows: int, stride: int, columns: int, size: int) -> int:
    """How often two neighboring row blocks of a column block lie in different groups of `size` arrays."""
    if stride >= size:
        return columns * (rows - 1)
    step = rows * stride
    return _sum_of_floors(columns, size, step, step - stride) - _sum_of_floors(columns, size, step, 0)


def _sum_of_floors(count: int, divisor: int, slope: int, offset: int) -> int:
    """Sum of floor((slope i + offset) / divisor) for i from 0 to count - 1, in as many steps as Euclid's algorithm."""
    total = 0
    while True:
        whole, slope = divmod(slope, divisor)
        total += whole * count * (count - 1) // 2
        whole, offset = divmod(offset, divisor)
        total += whole * count
        count, offset = divmod(slope * count + offset, divisor)
        if not count:
            return total
        divisor, slope = slope, divisor
