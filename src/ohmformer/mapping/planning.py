"""Geometry of a matrix on arrays, and the events that using it causes. Free of torch; both halves read it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput


@dataclass(frozen=True)
class Plan:
    """`matrices` equal matrices of `inputs` rows and `outputs` columns, cut onto arrays.

    Every row block, column block, slice (copies are slices) and polarity of every matrix has an array of its own;
    blocks at the ragged edge fill theirs only in part.
    """

    array: Crossbar
    inputs: int
    outputs: int
    matrices: int
    slices: int

    @property
    def row_blocks(self) -> int:
        """Arrays above one another."""
        return ceil(self.inputs / self.array.rows)

    @property
    def column_blocks(self) -> int:
        """Arrays side by side."""
        return ceil(self.outputs / self.array.columns)

    @property
    def arrays_per_polarity(self) -> int:
        """Arrays, counting a differential pair once."""
        return self.matrices * self.row_blocks * self.column_blocks * self.slices

    @property
    def arrays(self) -> int:
        """Arrays, counting both of a differential pair."""
        return self.arrays_per_polarity * self.array.polarities

    @property
    def reference_columns(self) -> int:
        """Columns of all matrices and slices that hold the shift of `offset` arrays, per row block."""
        return self.matrices * self.slices * self.column_blocks if self.array.encoding == "offset" else 0

    @property
    def cells(self) -> int:
        """Cells that hold something, reference columns included."""
        return self.inputs * (
            self.matrices * self.outputs * self.slices * self.array.polarities + self.reference_columns
        )

    @property
    def cells_allocated(self) -> int:
        """Cells of all arrays, used or not (each `offset` array has one column more, for its reference)."""
        columns = self.array.columns + (1 if self.array.encoding == "offset" else 0)
        return self.arrays * self.array.rows * columns

    @property
    def utilization(self) -> float:
        """Used share of the allocated cells."""
        return self.cells / self.cells_allocated

    def writes(self, times: int = 1) -> Counts:
        """Events of writing the matrices that many times."""
        return Counts(cell_writes=times * self.cells)

    def reads(self, vectors: int) -> Counts:
        """Events of multiplying that many input vectors with each of the matrices."""
        reads = vectors * self.array.cycles()
        columns = self.matrices * self.outputs * self.slices
        converted = columns * (2 if self.array.encoding == "differential" else 1) + self.reference_columns
        if self.array.subtract == "analog":
            converted = columns
        return Counts(
            cell_reads=reads * self.cells,
            activations=reads * self.arrays,
            adc_conversions=reads * self.row_blocks * converted,
        )


def plan(outputs: int, inputs: int, array: Crossbar, *, matrices: int = 1, max_code: int | None = None) -> Plan:
    """Cut matrices w[outputs, inputs] onto arrays.

    Args:
        outputs: columns of each matrix (rows of w).
        inputs: rows of each matrix (columns of w).
        array: the hardware.
        matrices: how many such matrices there are, such as heads.
        max_code: the largest code in use; slices above it are not mapped (see `KVClip.max_code`).

    Raises:
        BadInput: a size is not positive.
    """
    for name, size in (("outputs", outputs), ("inputs", inputs), ("matrices", matrices)):
        if size < 1:
            raise BadInput(f"plan: {name} = {size}: must be 1 or more")
    return Plan(array, inputs, outputs, matrices, array.slices(max_code))
