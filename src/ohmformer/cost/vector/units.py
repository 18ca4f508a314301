"""Which units compute the products of an accelerator's engines, and how many lanes do they have in all?"""

from __future__ import annotations

from ohmformer.hardware.spec import Accelerator, SimdEngine


def unit_owners(hardware: Accelerator) -> tuple[str, ...]:
    """For each role, the first role with an equal engine, whose units it uses; "" for a role without such units.

    It is empty if no role has units. The names of units follow from it, so it belongs to all that decides a price.
    """
    engines = [engine for engine in hardware.engines.values() if isinstance(engine, SimdEngine)]
    if not any(has_units(engine) for engine in engines):
        return ()
    return tuple(
        owner(engine, hardware) if isinstance(engine, SimdEngine) and has_units(engine) else ""
        for engine in hardware.engines.values()
    )


def lanes_for_all(hardware: Accelerator) -> int:
    """Number of vector lanes of the engines that all layers of a chip share; 0 if lanes belong to layers.

    Units of different engines work at the same time, so their lanes add. Engines without units take turns with the
    lanes of the largest of them.
    """
    engines = [engine for engine in hardware.engines.values() if isinstance(engine, SimdEngine)]
    shared = [engine for engine in engines if engine.shared == "chip"]
    in_turn = (_count(engine) for engine in shared if engine.units is None)
    at_once: list[SimdEngine] = []
    for engine in shared:
        if engine.units is not None and engine not in at_once:
            at_once.append(engine)
    return max(in_turn, default=0) + sum(_count(engine) for engine in at_once)


def lanes_of_a_layer(engine: SimdEngine) -> int:
    """Number of vector lanes that an engine has in each layer for itself; 0 if all layers share them."""
    return _count(engine) if engine.shared == "layer" else 0


def _count(engine: SimdEngine) -> int:
    """Number of lanes of all units of an engine; 0 if they are those of its layers."""
    return 0 if engine.lanes == "of_layer" else engine.lanes * (engine.units or 1)


def has_units(engine: SimdEngine) -> bool:
    """True if an engine has units of its own: several of the chip, or some in each layer."""
    return engine.lanes != "of_layer" and (engine.units is not None or engine.shared == "layer")


def owner(engine: SimdEngine, hardware: Accelerator) -> str:
    """The first role of an accelerator that an equal engine computes: roles with equal engines share units."""
    return next((role for role, other in hardware.engines.items() if other == engine), "rule")
