"""What prices hold for that are stated together with changes of their array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ohmformer.array.prices.spec import ArrayCost, used_array
from ohmformer.errors import Misplaced

if TYPE_CHECKING:
    from ohmformer.array.spec import Crossbar


def prices_of_changed(array: Crossbar, cost: ArrayCost, old: Crossbar, old_cost: ArrayCost) -> ArrayCost:
    """The prices of a changed array, with the array and the converter that they hold for.

    Prices that are stated together with a new size, cell, encoding, input or converter hold for the new array if all
    that depend on the change are stated. If only some are, they may belong to the old array or to the new one, and are
    refused. Prices that are stated later hold for `priced_at`, as the others do.

    Args:
        array: the changed array.
        cost: its prices.
        old: the array before the changes.
        old_cost: its prices.

    Raises:
        Misplaced: only some prices are stated anew, and neither `priced_at` nor `adc_bits` tells what they hold for.
    """
    return _for_converter(_for_array(cost, array, old, old_cost), array, old, old_cost)


def _for_array(cost: ArrayCost, array: Crossbar, old: Crossbar, old_cost: ArrayCost) -> ArrayCost:
    """The prices with `priced_at` of the changed array, if they were stated for it."""
    if cost.priced_at is not old_cost.priced_at:
        return cost
    at = cost.priced_at
    before, here = used_array(old), used_array(array)
    before["technology"], here["technology"] = old_cost.technology or at.technology, cost.technology or at.technology
    found: dict[str, Any] = {}
    for group in cost.groups:
        changed = [name for name in group.fields if before[name] != here[name]]
        if not changed or all(here[name] == getattr(at, name) for name in group.fields):
            continue
        stated, missing = cost.stated(old_cost, group.prices), cost.not_stated(old_cost, group.prices)
        if stated and (missing or any(before[name] != getattr(at, name) for name in group.fields)):
            names = [f"priced_at.{name}" for name in group.fields]
            raise Misplaced(
                ("cost", stated[0]),
                getattr(cost, stated[0]),
                f"is stated for an array with {_values(here, group.fields)}, while the prices of this table hold for "
                f"{_values(at.model_dump(), group.fields)}; say for which one it holds with cost.{', '.join(names)}",
            )
        if stated:
            found |= {name: here[name] for name in group.fields}
    return cost.model_copy(update={"priced_at": at.model_copy(update=found)}) if found else cost


def _for_converter(cost: ArrayCost, array: Crossbar, old: Crossbar, old_cost: ArrayCost) -> ArrayCost:
    """The prices with `adc_bits` of the changed converter, if they were stated for it."""
    bits, group = array.adc.bits, cost.converter
    said = dict(cost.provenance).get("adc_bits") != dict(old_cost.provenance).get("adc_bits")
    if bits == "ideal" or bits in (old.adc.bits, cost.adc_bits) or said:
        return cost
    stated, missing = cost.stated(old_cost, group.prices), cost.not_stated(old_cost, group.prices)
    if stated and (missing or old.adc.bits not in ("ideal", cost.adc_bits)):
        raise Misplaced(
            ("cost", stated[0]),
            getattr(cost, stated[0]),
            f"is stated for a converter of {bits} bits, while the prices of this table hold for {cost.adc_bits}; say "
            "for which one it holds with cost.adc_bits",
        )
    return cost.model_copy(update={"adc_bits": bits}) if stated else cost


def _values(values: dict[str, object], names: tuple[str, ...]) -> str:
    if names == ("rows", "columns"):
        return f"{values['rows']} x {values['columns']} cells"
    return ", ".join(f"{name} = {values[name]}" for name in names)
