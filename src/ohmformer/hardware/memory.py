"""Specification of a memory: capacity, bandwidth and energy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ohmformer.quantities import Bytes, BytesPerSecond, JoulesPerByte
from ohmformer.schema import Spec


class Memory(Spec):
    """A memory outside the chip."""

    capacity: Annotated[Bytes, Field(gt=0)] | None = None
    """Capacity [byte]; None for as much as needed."""
    bandwidth: Annotated[BytesPerSecond, Field(gt=0)]
    """Peak bandwidth [byte/s]."""
    energy: Annotated[JoulesPerByte, Field(ge=0)]
    """Energy of moving one byte between the memory and the chip [J/byte]."""
