"""Digital units: groups of vector lanes that take one token of one layer at a time, for all layers or for each."""

from __future__ import annotations

from typing import Literal

LaneOwner = Literal["chip", "layer"]
"""Who has a given number of lanes: all layers of a chip together, or each layer."""


def check_units(lanes: int | str, units: int | None, shared: LaneOwner) -> None:
    """Refuse units of an engine whose lanes are those of its layers.

    Raises:
        ValueError: `units` or `shared` is given without a number of lanes.
    """
    if lanes != "of_layer":
        return
    if units is not None:
        raise ValueError(
            f"units = {units}: needs a number of lanes for each unit, not lanes = 'of_layer'; give lanes, or give the "
            "chip vector units (chip.vector.units)"
        )
    if shared != "chip":
        raise ValueError("shared = 'layer': lanes = 'of_layer' already belong to a layer; give a number of lanes")
