"""What an array refuses of the wear of its cells."""

from __future__ import annotations

from ohmformer.device.spec import Cell
from ohmformer.device.wear_kinds import NoWear
from ohmformer.errors import BadInput


def check_wear(cell: Cell, writes: float, *, verified: bool) -> None:
    """Refuse writes that the wear of the cell does not allow for.

    Args:
        cell: the cell.
        writes: writes that it has seen.
        verified: True if its writes are verified.

    Raises:
        ValueError: the cell has no wear, its window is closed, or verified writes meet a smaller window.
    """
    if not writes:
        return
    if isinstance(cell.wear, NoWear):
        raise ValueError(
            f"writes = {writes:g}: change nothing, since the cell has no wear; give cell.wear, or leave it out"
        )
    try:
        cell.worn(writes)
        window = cell.window(writes)
    except BadInput as error:
        raise ValueError(str(error)) from None
    if verified and window != (0.0, 1.0):
        raise ValueError(
            f"write_verify: after writes = {writes:g} a cell reaches a part of its range only, and verified writes to "
            "targets beyond that part are not simulated; leave out write_verify, or w and n0 of cell.wear"
        )
