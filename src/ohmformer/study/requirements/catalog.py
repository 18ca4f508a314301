"""The quantities whose limits can be searched, by name. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from ohmformer.errors import BadInput, check_type, given, shown, suggest
from ohmformer.study.requirements.endurance import Endurance
from ohmformer.study.requirements.further_quantities import Levels, Retention, VerifyTolerance
from ohmformer.study.requirements.noises import DriftExponent, ReadNoiseStrength, WriteNoiseStrength
from ohmformer.study.requirements.peripheral_noises import InputNoise, OutputNoise
from ohmformer.study.requirements.quantity import Quantity

QUANTITIES: dict[str, Quantity] = {
    each.name: each
    for each in (
        *(WriteNoiseStrength(), ReadNoiseStrength(), DriftExponent(), VerifyTolerance()),
        *(Retention(), Endurance(), Levels()),
        *(OutputNoise(), InputNoise()),
    )
}
"""Name -> quantity, in the order of tables."""

SYNONYMS = {
    "tau": "retention",
    "wear": "endurance",
    "read_back_error": "verify_tolerance",
    "write_verify": "verify_tolerance",
}
"""Other names -> the name of the quantity."""


def quantity(name: Any) -> Quantity:
    """The quantity of a name.

    Raises:
        BadInput: there is none.
    """
    check_type("require", "quantities", name, str, "the name of a quantity, such as 'write_noise'")
    plain = name.strip().lower().replace("-", "_")
    plain = SYNONYMS.get(plain, plain)
    if plain not in QUANTITIES:
        known = [*QUANTITIES, *SYNONYMS]
        raise BadInput(f"quantity {shown(name)}: is not known; {suggest(plain, known)}")
    return QUANTITIES[plain]


def chosen_quantities(names: Any) -> tuple[Quantity, ...]:
    """The quantities of several names, each once; all of them for None.

    Raises:
        BadInput: one is not known, or there are none.
    """
    if names is None:
        return tuple(QUANTITIES.values())
    if isinstance(names, str) or not isinstance(names, (Sequence, Set)):
        raise BadInput(f"quantities is {given(names)}; give a list of names, such as ['write_noise'], or None for all")
    chosen = tuple(dict.fromkeys(map(quantity, names)))
    if not chosen:
        raise BadInput("quantities is empty; give a list of names, such as ['write_noise'], or None for all")
    return chosen


def chosen_kinds(kinds: Any) -> dict[str, str]:
    """Name of a quantity -> name of its kind.

    Args:
        kinds: a mapping from names of quantities to names of kinds; None for none.

    Raises:
        BadInput: it is something else.
    """
    if kinds is None:
        return {}
    if not isinstance(kinds, Mapping) or not all(isinstance(kind, str) for kind in kinds.values()):
        raise BadInput(f"kinds is {given(kinds)}; give a table such as {{'write_noise': 'sqrt_range'}}")
    return {quantity(name).name: kind for name, kind in kinds.items()}


def read_kinds(texts: Iterable[str]) -> dict[str, str]:
    """Options 'QUANTITY=KIND' -> name of a quantity and name of its kind.

    Raises:
        BadInput: one is written differently, or a quantity has two kinds.
    """
    kinds: dict[str, str] = {}
    for text in texts:
        name, equals, kind = (part.strip() for part in text.partition("="))
        if not equals or not name or not kind:
            raise BadInput(f"--kind {shown(text)}: write QUANTITY=KIND, such as --kind write_noise=sqrt_range")
        key = quantity(name).name
        if kinds.setdefault(key, kind) != kind:
            raise BadInput(
                f"--kind {shown(text)}: {key} has the kind {shown(kinds[key])} already; leave one of them out"
            )
    return kinds
