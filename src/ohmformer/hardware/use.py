"""An accelerator after some hours of use: the age of its weights, and the writes that its K/V cells have seen."""

from __future__ import annotations

from collections.abc import Mapping

from ohmformer.array.spec import Crossbar
from ohmformer.device.families import WriteNoise
from ohmformer.device.kinds import NoDrift, NoNoise
from ohmformer.device.wear_kinds import NoWear
from ohmformer.errors import BadInput
from ohmformer.hardware.ages import HOUR
from ohmformer.hardware.rules import OrderedRules
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.registry import called
from ohmformer.schema import replace

FIELD = "simulation.hours"
KV_ROLES = ("attention.key", "attention.value")
NOT_IN_CELLS = "they are not in cells"


def used(hardware: Accelerator, hours: float, writes: Mapping[str, float]) -> Accelerator:
    """The accelerator after hours of use.

    Weights have been written once, so they are older by this time. Keys and values are as old as before, but their
    cells have seen more writes. `age` and `writes` of an array hold for the beginning.

    Args:
        hardware: the accelerator at the beginning.
        hours: time of use [h].
        writes: "attention.key" or "attention.value" -> writes that each cell of K or V has seen in this time; needed
            for the roles of `wearing`.

    Raises:
        BadInput: a role lacks its writes, or an array refuses its age or its writes.
    """
    if not hours:
        return hardware
    projection = hardware.projection
    if isinstance(projection, ArrayEngine):
        hardware = _changed(hardware, "projection", "age", projection.array.age + hours * HOUR)
    for role in wearing(hardware):
        engine = hardware.engines[role]
        assert isinstance(engine, ArrayEngine)
        if role not in writes:
            raise BadInput(
                f"hardware.{role}.array.cell: {FIELD} = {hours:g}: its wear counts in pulses, and write_pulses or "
                "endurance is not known; give both"
            )
        hardware = _changed(hardware, role, "writes", engine.array.writes + writes[role])
    return hardware


def wearing(hardware: Accelerator) -> list[str]:
    """The roles of attention whose cells wear."""
    engines = {role: hardware.engines[role] for role in KV_ROLES}
    return [role for role, each in engines.items() if isinstance(each, ArrayEngine) and _wears(each.array)]


def check_rules(rules: OrderedRules, hours: float) -> None:
    """Refuse rules whose own arrays change in hours of use, since it is not known what they hold.

    Raises:
        BadInput: the cells of such an array drift, wear, or are read with noise that depends on age.
    """
    for pattern, rule in rules:
        if hours and rule.array is not None and (_wears(rule.array) or _ages(rule.array)):
            raise BadInput(
                f"rules.{pattern}.array: {FIELD} = {hours:g} sets age and writes of the arrays of the hardware alone, "
                "and cells of this one change with them; move the rule's modules to an engine of the hardware, or "
                "leave hours out and state age and writes"
            )


def check_used(hardware: Accelerator, hours: float) -> None:
    """Refuse an accelerator that is still new after hours of use.

    Raises:
        BadInput: its weights are not as old.
    """
    projection = hardware.projection
    if hours and isinstance(projection, ArrayEngine) and projection.array.age < hours * HOUR:
        raise BadInput(
            f"{FIELD} = {hours:g}: needs the cost half of the study, which counts writes; take `ohmformer run`, "
            "`ohmformer accuracy` or `ohmformer compare`, or leave it out"
        )


def idle_notes(hardware: Accelerator, rules: OrderedRules, hours: float, *, timeline: bool = False) -> tuple[str, ...]:
    """What hours of use and ages of a timeline leave as it is, as sentences for readers of a result.

    Args:
        hardware: the accelerator.
        rules: those of the study. With rules there are no sentences, since a rule may name arrays of its own.
        hours: time of use [h].
        timeline: True if keys and values have ages from the cost half.
    """
    if rules:
        return ()
    found = []
    engines = hardware.engines
    projection, kv = engines["projection"], [engines[role] for role in KV_ROLES]
    arrays = [engine.array for engine in kv if isinstance(engine, ArrayEngine)]
    if hours and not (isinstance(projection, ArrayEngine) and _ages(projection.array)):
        found.append(f"{FIELD} = {hours:g} leaves static weights as they are: {_still(projection)}")
    if hours and not wearing(hardware):
        reason = "their cells have no wear" if arrays else NOT_IN_CELLS
        found.append(f"{FIELD} = {hours:g} leaves keys and values as they are: {reason}")
    if timeline and not any(map(_ages, arrays)):
        reason = "their cells do not change with age" if arrays else NOT_IN_CELLS
        found.append(f"simulation.age leaves keys and values as they are: {reason}")
    return tuple(found)


def _still(engine: object) -> str:
    """Why weights of an engine do not change with age."""
    in_cells = isinstance(engine, ArrayEngine)
    return "their cells have neither drift nor noise that changes with age" if in_cells else NOT_IN_CELLS


def _wears(array: Crossbar) -> bool:
    return not isinstance(array.cell.wear, NoWear)


def _ages(array: Crossbar) -> bool:
    """True if reads of the cells may depend on their age."""
    cell = array.cell
    still = isinstance(cell.drift, NoDrift) and isinstance(cell.read_noise, NoNoise)
    return not still or _noise_ages(cell.write_noise)


def _noise_ages(noise: WriteNoise) -> bool:
    """True if write noise has other parameters at another age."""
    try:
        return bool(called(noise, "at_age", HOUR) != noise)
    except BadInput:  # an age beyond those of its parameters
        return True


def _changed(hardware: Accelerator, role: str, name: str, value: float) -> Accelerator:
    try:
        return replace(hardware, f"{role}.array.{name}", value)
    except BadInput as error:
        raise BadInput(f"{FIELD}: hardware.{error}") from None
