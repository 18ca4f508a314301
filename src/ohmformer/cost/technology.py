"""Technology scaling: converts the prices of a chip from the technology of their source to that of the chip.

Two rules. `linear`: energies, areas and standing power are proportional to the feature size, as PUMA's simulator scales
its arithmetic units from 45 to 32 nm (include/constants.py: `2.4 * 32/45`). `dennard`: constant-field scaling (Dennard
et al., IEEE Journal of Solid-State Circuits 9(5), 1974, Table I): energy per operation scales with the third power of
the ratio, area and power with the second. Since about 65 nm, supply voltages have fallen less than this rule assumes,
so it is an upper bound of what a smaller technology saves.

Neither rule holds for analog parts: arrays, converters and cells keep the figures of their source. Off-chip memory, the
links of a node and all times also stay: the clock is that of the chip.
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
"""Rule -> quantity -> exponent of the ratio of feature sizes."""

CHIP = {
    **dict.fromkeys(("register_energy", "buffer_energy", "bus_energy", "network_energy"), "energy"),
    **dict.fromkeys(("core_area", "tile_area"), "area"),
    "tile_power": "power",
}
VECTOR = {"energy_per_op": "energy"}
SOFTMAX = {"energy_per_element": "energy", "area_per_head": "area"}
"""Prices that scale with the technology: field -> quantity."""


def at_technology(chip: Chip) -> Chip:
    """The chip with all prices at its own feature size; the chip itself if they already are."""
    unscaled = (None, chip.technology)
    priced = (chip.priced_at, chip.vector.priced_at, chip.softmax.priced_at if chip.softmax else None)
    same = priced[0] in unscaled and priced[1] in unscaled and priced[2] in unscaled
    return chip if same else _scaled(chip)


@lru_cache(maxsize=64)
def _scaled(chip: Chip) -> Chip:
    priced_at = chip.priced_at or chip.technology
    vector, softmax = chip.vector, chip.softmax
    changes: dict[str, Any] = _prices(chip, CHIP, priced_at, chip)
    changes["vector"] = vector.model_copy(update=_prices(vector, VECTOR, vector.priced_at or priced_at, chip))
    if softmax is not None:
        changes["softmax"] = softmax.model_copy(update=_prices(softmax, SOFTMAX, softmax.priced_at or priced_at, chip))
    return chip.model_copy(update=changes)


def _prices(
    holder: Chip | VectorUnit | SoftmaxUnit, fields: Mapping[str, str], priced_at: float, chip: Chip
) -> dict[str, Any]:
    """Prices of a unit, converted from `priced_at` [nm] to the feature size of the chip; "included" stays as it is."""
    ratio = chip.technology / priced_at
    powers = POWERS[chip.scaling]
    values = {name: getattr(holder, name) for name in fields}
    return {
        name: value if isinstance(value, str) else value * ratio ** powers[fields[name]]
        for name, value in values.items()
    }
