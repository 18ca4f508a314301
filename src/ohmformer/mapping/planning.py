"""How matrices are cut onto arrays, and the events that writing and reading them cause.

Free of torch; the accuracy half and the cost half both use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mapping.write_effort import Effort, effort


@dataclass(frozen=True)
class Plan:
    """Matrices of one size, cut onto arrays.

    Every row block, column block, slice and polarity of every matrix has an array of its own. Blocks at the edge of a
    matrix fill their arrays only in part.

    Attributes:
        array: the hardware.
        inputs: rows of each matrix as it lies on the arrays.
        outputs: columns of each matrix.
        matrices: number of matrices, such as heads.
        slices: slices of each value, copies included.
    """

    array: Crossbar
    inputs: int
    outputs: int
    matrices: int
    slices: int

    @property
    def row_blocks(self) -> int:
        """Arrays along the rows of one matrix."""
        return ceil(self.inputs / self.array.rows)

    @property
    def column_blocks(self) -> int:
        """Arrays along the columns of one matrix."""
        return ceil(self.outputs / self.array.columns)

    @property
    def arrays_per_polarity(self) -> int:
        """Arrays of all matrices, where a differential pair counts once."""
        return self.matrices * self.row_blocks * self.column_blocks * self.slices

    @property
    def arrays(self) -> int:
        """Arrays of all matrices, where a differential pair counts twice."""
        return self.arrays_per_polarity * self.array.polarities

    @property
    def reference_columns(self) -> int:
        """Reference columns of `offset` arrays, over all matrices and slices, per row block."""
        return self.matrices * self.slices * self.column_blocks if self.array.encoding == "offset" else 0

    @property
    def cells(self) -> int:
        """Cells in use, reference columns included."""
        return self.inputs * (
            self.matrices * self.outputs * self.slices * self.array.polarities + self.reference_columns
        )

    @property
    def cells_allocated(self) -> int:
        """Cells of all arrays, used or not. An `offset` array has one more column, its reference."""
        columns = self.array.columns + (1 if self.array.encoding == "offset" else 0)
        return self.arrays * self.array.rows * columns

    @property
    def utilization(self) -> float:
        """Share of the allocated cells that is in use."""
        return self.cells / self.cells_allocated

    @cached_property
    def effort(self) -> Effort:
        """Mean numbers of writes and read-backs of a cell and of a row, for writing all matrices once.

        It is computed when it is first read, since that of verified writes needs torch.
        """
        return effort(self.array, self.slices)

    def writes(self, times: int = 1) -> Counts:
        """Events of writing all matrices `times` times."""
        return Counts(cell_writes=times * self.cells)

    def reads(self, vectors: int) -> Counts:
        """Events of multiplying `vectors` input vectors by each matrix."""
        cycles = vectors * self.array.cycles()
        columns = self.matrices * self.outputs * self.slices
        converted = columns * (2 if self.array.encoding == "differential" else 1) + self.reference_columns
        if self.array.subtract == "analog":
            converted = columns
        return Counts(
            cell_reads=cycles * self.cells,
            activations=cycles * self.arrays,
            adc_conversions=vectors * self.array.conversions() * self.row_blocks * converted,
        )


def plan(outputs: int, inputs: int, array: Crossbar, *, matrices: int = 1, max_code: int | None = None) -> Plan:
    """Cut matrices w[outputs, inputs] onto arrays.

    Args:
        outputs: columns of each matrix on the arrays (rows of w).
        inputs: rows of each matrix on the arrays (columns of w).
        array: the hardware.
        matrices: number of such matrices, such as heads.
        max_code: the largest code in use; slices above it are not mapped (see `KVClip.max_code`). None for all codes.

    Raises:
        BadInput: a size is not positive.
    """
    for name, size in (("outputs", outputs), ("inputs", inputs), ("matrices", matrices)):
        if size < 1:
            raise BadInput(f"plan: {name} = {size}: must be 1 or more")
    return Plan(array, inputs, outputs, matrices, array.slices(max_code))
