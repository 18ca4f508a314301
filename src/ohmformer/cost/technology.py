"""Carrying the prices of a chip from the technology that they are for to that of the chip.

Two rules. `linear`: energies, areas and standing power times the ratio of feature sizes, as the simulator of PUMA takes
its arithmetic units from 45 to 32 nm (include/constants.py: `2.4 * 32/45`). `dennard`: scaling at constant field
(Dennard et al., IEEE Journal of Solid-State Circuits 9(5), 1974, Table I): energy of an operation with the third power
of the ratio, area and power with the second. Supply voltages have fallen less than that since about 65 nm, so that it
is the most that a smaller technology could save.

Neither holds for analog parts: arrays, converters and cells keep the figures of their source. So does what leads off
the chip (memory, and the links of a node), and so do all times: the clock is that of the chip.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ohmformer.hardware.chip import Chip, Scaling, SoftmaxUnit, VectorUnit

POWERS: dict[Scaling, dict[str, int]] = {
    "linear": {"energy": 1, "area": 1, "power": 1},
    "dennard": {"energy": 3, "area": 2, "power": 2},
}
"""Rule -> quantity -> the power of the ratio of feature sizes."""

CHIP = {
    **dict.fromkeys(("register_energy", "buffer_energy", "bus_energy", "network_energy"), "energy"),
    **dict.fromkeys(("core_area", "tile_area"), "area"),
    "tile_power": "power",
}
VECTOR = {"energy_per_op": "energy"}
SOFTMAX = {"energy_per_element": "energy", "area_per_head": "area"}
"""Prices that follow the technology: field -> quantity."""


def at_technology(chip: Chip) -> Chip:
    """A chip with all its prices at its own feature size; itself, where they are there already."""
    there = (None, chip.technology)
    priced = (chip.priced_at, chip.vector.priced_at, chip.softmax.priced_at if chip.softmax else None)
    return chip if priced[0] in there and priced[1] in there and priced[2] in there else _scaled(chip)


@lru_cache(maxsize=64)
def _scaled(chip: Chip) -> Chip:
    known = chip.priced_at or chip.technology
    vector, softmax = chip.vector, chip.softmax
    changes: dict[str, Any] = _prices(chip, CHIP, known, chip)
    changes["vector"] = vector.model_copy(update=_prices(vector, VECTOR, vector.priced_at or known, chip))
    if softmax is not None:
        changes["softmax"] = softmax.model_copy(update=_prices(softmax, SOFTMAX, softmax.priced_at or known, chip))
    return chip.model_copy(update=changes)


def _prices(
    holder: Chip | VectorUnit | SoftmaxUnit, fields: Mapping[str, str], known: float, chip: Chip
) -> dict[str, Any]:
    """Prices that are for `known` nm, at the feature size of the chip; what another includes stays included."""
    ratio = chip.technology / known
    powers = POWERS[chip.scaling]
    values = {name: getattr(holder, name) for name in fields}
    return {
        name: value if isinstance(value, str) else value * ratio ** powers[fields[name]]
        for name, value in values.items()
    }
