"""The vector lanes of a stage: how many work on it at the same time, and which unit they belong to.

Lanes belong to the cores of a layer, or to units: `Chip.vector.units` for all digital work beside products, and
`SimdEngine.units` for products. A unit takes one token of one layer at a time. Units of the same name form a pool: any
of them takes the token that came first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ohmformer.cost.operands import LayerContext
from ohmformer.cost.stage import Stage
from ohmformer.cost.vector.units import has_units, owner
from ohmformer.hardware.spec import SimdEngine

VECTOR_UNITS = "vector unit"
"""Name of the vector units that all layers of a chip share."""


class Lanes(NamedTuple):
    """Lanes that work on a stage.

    Attributes:
        number: number of lanes of a unit; 0 if the layer has none.
        unit: name of the unit.
        shared: True if all layers use the same unit, or the same pool of units.
        pool: number of equal units (see `Stage.pool`).
        whole: True if they take whole sequences.
    """

    number: int
    unit: str
    shared: bool
    pool: int = 0
    whole: bool = False

    def stage(
        self, name: str, engine: str, *, fixed: float = 0.0, per_token: float, energy: Mapping[str, float]
    ) -> Stage:
        """A stage that they do; see `Stage`."""
        work: dict[str, Any] = {"fixed": fixed, "per_token": per_token, "energy": energy}
        return Stage(name, engine, self.unit, self.shared, self.pool, self.whole, **work)


def vector_units(context: LayerContext) -> Lanes | None:
    """The vector units that all layers of a chip share; None if lanes belong to the layers."""
    chip = context.hardware.chip
    if chip is None or chip.vector.units is None:
        return None
    return Lanes(chip.vector.lanes_per_core, VECTOR_UNITS, True, chip.vector.units)


def lanes_of_engine(engine: SimdEngine, context: LayerContext) -> Lanes:
    """The lanes with which an engine computes products."""
    whole = engine.results == "by_sequence"
    if engine.lanes == "of_layer":
        return (vector_units(context) or Lanes(context.lanes, "lanes", False))._replace(whole=whole)
    if not has_units(engine):
        return Lanes(engine.lanes, "lanes", True, whole=whole)
    name = f"{owner(engine, context.hardware)} unit"
    return Lanes(engine.lanes, name, engine.shared == "chip", engine.units or 0, whole)
