"""Systems of several chips for tests."""

from __future__ import annotations

from typing import Any

from ohmformer.hardware.spec import Accelerator
from ohmformer.hardware.system import Link, System
from ohmformer.schema import load

LINK = {"bandwidth": 6.4e9, "energy": 406e-12, "latency": 50e-9}
FREE = {"bandwidth": 1e15, "energy": 0.0, "latency": 0.0}
"""A link that costs nothing but the time of the widest bandwidth that a spec may have."""


def several(
    base: str | Accelerator, tiles: int | None = None, link: dict[str, float] = LINK, **system: Any
) -> Accelerator:
    """An accelerator as a system of several chips, of `tiles` tiles each."""
    hardware = load(Accelerator, base) if isinstance(base, str) else base
    chip = hardware.chip.model_copy(update={"tiles": tiles}) if hardware.chip else None
    return hardware.model_copy(update={"chip": chip, "system": System(link=Link(**link), **system)})
