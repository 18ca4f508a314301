"""The arrays of a study that a quantity acts on, and copies of the study in which they are changed. Free of torch.

Arrays may have the age and the writes that they have when the study reads them (see `conditions.py`). A changed study
has the age and the writes that its file states, since it is evaluated like any other study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ohmformer.array.spec import Crossbar
from ohmformer.changed_copy import with_values
from ohmformer.device.wear_kinds import NoWear
from ohmformer.errors import BadInput, shown, suggest
from ohmformer.hardware.rules import OrderedRules
from ohmformer.hardware.spec import Accelerator, ArrayEngine, SramEngine
from ohmformer.schema import Spec, replace
from ohmformer.study.spec import Common

S = TypeVar("S", bound=Spec)
C = TypeVar("C", bound=Common)

ROLES = {
    "all": ("projection", "attention.key", "attention.value"),
    "projection": ("projection",),
    "attention": ("attention.key", "attention.value"),
    "attention.key": ("attention.key",),
    "attention.value": ("attention.value",),
}
"""What a user may choose -> the roles of the engines whose arrays change."""

RULE = "rules: "
"""What precedes the pattern of a rule that names an array of its own."""


@dataclass(frozen=True)
class Arrays:
    """The arrays of memristive cells of a study, by the role of their engine or by the rule that names them.

    SRAM cells are left out: they hold one bit and are written without error.
    """

    by_role: Mapping[str, Crossbar]

    @classmethod
    def of(cls, settings: Common, on: str = "all") -> Arrays:
        """The arrays of some roles.

        Args:
            settings: of the study; of one half or of both.
            on: a key of `ROLES`.

        Raises:
            BadInput: there is no such choice; the study has no such arrays; or some roles are chosen although rules
                name arrays of their own, whose role is not known.
        """
        if on not in ROLES:
            raise BadInput(f"on = {shown(on)}: is not a choice of arrays; {suggest(str(on), list(ROLES))}")
        found: dict[str, Crossbar] = {}
        for role in ROLES[on]:
            if (array := array_of(settings.hardware, role)) is not None:
                found[role] = array
        for pattern, rule in settings.rules:
            if rule.array is None:
                continue
            if on != "all":
                raise BadInput(
                    f"on = {shown(on)}: the rule {shown(pattern)} names an array of its own, which may hold operands "
                    "of any role; take on = 'all', or remove the rule"
                )
            found[f"{RULE}{pattern}"] = rule.array
        if not found:
            roles = ", ".join(ROLES[on])
            raise BadInput(f"hardware: has no memristive arrays for {roles}; choose other hardware, or another on")
        return cls(found)

    def put(self, settings: C, changed: Mapping[str, Crossbar]) -> C:
        """A copy of the settings with other arrays for some roles and rules, but with the ages and writes of theirs."""
        hardware, rules = settings.hardware, settings.rules
        for place, array in changed.items():
            if place.startswith(RULE):
                rules = _with_rule(rules, place.removeprefix(RULE), array)
            else:
                hardware = _with_array(hardware, place, array)
        return settings.model_copy(update={"hardware": hardware, "rules": rules})


def array_of(hardware: Accelerator, role: str) -> Crossbar | None:
    """The array of memristive cells of a role; None if it has none."""
    engine = hardware.engines[role]
    return engine.array if isinstance(engine, ArrayEngine) and not isinstance(engine, SramEngine) else None


def _with_array(hardware: Accelerator, role: str, array: Crossbar) -> Accelerator:
    before = array_of(hardware, role)
    return hardware if before is None else replace(hardware, f"{role}.array", _as_stated(array, before))


def _with_rule(rules: OrderedRules, pattern: str, array: Crossbar) -> OrderedRules:
    return tuple(
        (
            name,
            rule.model_copy(update={"array": _as_stated(array, rule.array)})
            if name == pattern and rule.array
            else rule,
        )
        for name, rule in rules
    )


def _as_stated(array: Crossbar, before: Crossbar) -> Crossbar:
    """An array with the age and the writes of another one; without writes if its cells do not wear."""
    writes = 0.0 if isinstance(array.cell.wear, NoWear) else before.writes
    if (array.age, array.writes) == (before.age, writes):
        return array
    return with_array(array, age=before.age, writes=writes)


def with_cell(array: Crossbar, **values: Any) -> Crossbar:
    """A copy of an array with other values of its cell.

    Raises:
        BadInput: the cell or the array does not accept them.
    """
    return with_array(array, cell=_changed(array.cell, values, "array.cell"))


def with_array(array: Crossbar, **values: Any) -> Crossbar:
    """A copy of an array with other values.

    Raises:
        BadInput: the array does not accept them.
    """
    return _changed(array, values, "array")


def _changed(spec: S, values: Mapping[str, Any], where: str) -> S:
    try:
        return with_values(spec, values)
    except ValueError as error:
        said = str(error.errors()[0]["msg"]) if hasattr(error, "errors") else str(error)
        raise BadInput(f"{where}.{' and '.join(values)}: {said.removeprefix('Value error, ')}") from None
