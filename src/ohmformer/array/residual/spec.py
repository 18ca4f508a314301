"""Residual writing: what a file says about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ohmformer.array.prices.spec import Bits
from ohmformer.schema import Spec


class Residual(Spec):
    """Residual writing: the cells of a value are written one after the other, the most significant first, each once.

    After each cell but the last, the pair of cells is read back, and the next cell is written for what is still
    missing. One row is driven at a time, so the converter has a range of its own for it.
    """

    bits: Bits | Literal["ideal"] = "ideal"
    """Resolution of the read-back; "ideal" reads without rounding."""
    range: Annotated[float, Field(gt=0, le=16)] = 1.5
    """Full scale of the read-back as a share of G_max - G_min; what lies beyond saturates."""
