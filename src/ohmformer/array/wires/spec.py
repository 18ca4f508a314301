"""Specification of the wires of an array."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ohmformer.quantities import Ohms
from ohmformer.schema import Spec

Resistance = Annotated[Ohms, Field(ge=0)]
IRDrop = Literal["exact", "sweeps", "first_order"]
MAX_LOSS = {"first_order": 1.0, "sweeps": 4.0, "exact": 1e6}
"""Solution -> the `largest_loss` up to which it may be used. Relative errors of results at these losses, as norms:

- `first_order`: 3 % on random cells, 7 % whatever the cells hold (worst: all at G_max, in few long lines);
- `sweeps`: 3 % for inputs of one sign, 15 % for inputs of both signs.

At a loss of a quarter `first_order` errs by 0.3 % and 0.7 %, at a loss of 1 `sweeps` by 0.6 % and 2 %. The exact
solution in float64 loses digits in proportion to the loss: it is within 1e-9 of the largest current up to its limit,
and wrong beyond 1e12."""


class Wires(Spec):
    """Resistances between the drivers of the rows, the cells, and the converters of the columns.

    Row 0 is the row next to the converters, column 0 the column next to the drivers. A weight matrix fills an array
    from there; cells beyond it are at G_min, and rows beyond it are driven with 0 V.
    """

    row: Resistance
    """Resistance of a row's wire from one cell to the next [ohm]."""
    column: Resistance
    """Resistance of a column's wire from one cell to the next [ohm]."""
    driver: Resistance = 0.0
    """Resistance of a row's driver, in series with the row [ohm]."""
    sense: Resistance = 0.0
    """Input resistance of what senses the current of a column, in series with the column [ohm]."""
    ir_drop: IRDrop = "exact"
    """`exact`: all voltages of the array are solved for every input. `sweeps`: they are solved for equal voltages on
    all rows, and other inputs lose the same share in each cell. `first_order`: each cell loses voltage as if the
    currents of all cells were those without loss. The last two are faster; all three are refused beyond `MAX_LOSS`.
    `exact` takes about 5 C R^3 operations for each array that is written (R rows, C columns, R the smaller number): a
    second for 128 x 128 cells on one core, minutes for 512 x 512, half an hour for 1024 x 1024."""


def largest_loss(wires: Wires, rows: int, columns: int, g_max: float) -> float:
    """Return the first-order loss of the cell farthest from drivers and converters if all cells are at g_max [S].

    It is the share of its voltage that it would lose if all cells had the currents that they have without wires.
    """
    row = columns * wires.driver + wires.row * columns * (columns + 1) / 2
    return g_max * (row + rows * wires.sense + wires.column * rows * (rows + 1) / 2)
