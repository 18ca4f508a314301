"""Residual writing: what a file says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ohmformer.schema import Spec

if TYPE_CHECKING:
    from ohmformer.array.spec import Crossbar

MOST_CODES = 10_000
"""Largest code, in units of the least significant cell, for which a policy is computed."""
MOST_LEVELS, MOST_LEVELS_ALONE = 64, 256
"""Levels of a cell for which it is computed: if several cells hold a value, and if one cell does."""


class Residual(Spec):
    """Residual writing: the cells of a value are written one after the other, the most significant first, each once.

    After each cell but the last, the pair of cells is read back, and the next cell is written for what is still
    missing. One row is driven at a time, so the converter has a range of its own for it.
    """

    bits: Annotated[int, Field(ge=1, le=12)] | Literal["ideal"] = "ideal"
    """Resolution of the read-back; "ideal" reads without rounding. The cell's read noise acts in any case."""
    range: Annotated[float, Field(gt=0, le=16)] = 1.5
    """Full scale of the read-back as a share of G_max - G_min; what lies beyond saturates."""
    feedback: bool = False
    """Read back the last cell, too, and correct what is missing in weights that are written later, as the inputs of
    calibration are correlated (`ErrorFeedback`). For static weights alone."""

    def read_backs(self, cells: int) -> int:
        """Return how many of the cells of a value are read back."""
        return cells if self.feedback else cells - 1


def unsuited_for_residual(array: Crossbar) -> str:
    """Why an array cannot be written residually, as fault and remedy; empty if it can, or is not to be."""
    if array.residual is None:
        return ""
    if array.encoding != "differential":
        return (
            f"residual: an {array.encoding!r} array has no second half that corrects downward; use encoding = "
            "'differential', or leave residual out"
        )
    if array.write_verify is not None:
        return "residual: cells are written once, but write_verify writes them again; leave one of them out"
    if array.wires is not None:
        return "residual: a read-back through wires that lose voltage is not simulated; leave wires or residual out"
    parts = array.peripherals
    for name in ("input_noise", "output_noise", "gain_mismatch", "offset_mismatch"):
        if getattr(parts, name):
            return (
                f"residual: a read-back with peripherals.{name} = {getattr(parts, name):g} is not simulated; leave one "
                "of them out"
            )
    most = MOST_LEVELS if array.slices() > 1 else MOST_LEVELS_ALONE
    if array.used_levels > most:
        return f"residual: a cell has {array.used_levels} levels, above {most}; lower bits_per_cell, or set levels"
    if array.max_code * array.redundancy > MOST_CODES:
        return (
            f"residual: the largest code, {array.max_code}, times redundancy = {array.redundancy} is above "
            f"{MOST_CODES:,}; lower bits or redundancy"
        )
    if array.cell.at_age(array.age).write_noise != array.cell.at_age(0.0).write_noise:
        return (
            "residual: cells are read back at once, but write_noise has other parameters at the age of the array; "
            "leave residual out, or lower age"
        )
    return ""
