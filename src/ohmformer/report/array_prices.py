"""Tables of the prices of arrays: which are derived, from which published values and by which law; converter models.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError
from rich.table import Table

from ohmformer import units
from ohmformer.array.prices.converter_laws import Converter, ConverterLaw
from ohmformer.array.prices.spec import ArrayCost
from ohmformer.array.spec import Crossbar
from ohmformer.cost.array_prices import ArrayPrices, converter_bits, differences, priced
from ohmformer.errors import BadInput
from ohmformer.provenance import Source, as_provenance
from ohmformer.report.describe import friendly
from ohmformer.schema import Spec

PRICES = {
    "read_time": "read_time", "read_energy": "read_energy", "dac_energy": "dac_energy", "adc_energy": "adc_energy",
    "adc_time": "adc_time", "area": "cell_area", "dac_area": "dac_area", "adc_area": "adc_area",
    "shift_add_area": "shift_add_area",
}  # fmt: skip
"""Field of `ArrayCost` -> field of `ArrayPrices`, for the prices that laws carry over."""


def derived_cost(array: Crossbar, role: str) -> ArrayCost:
    """The prices of an array at its own size and converter, each with its source.

    A price that a law carried over is marked as derived; its source says from which published value and by which law.

    Args:
        array: an array with prices.
        role: role of its engine, for messages.

    Raises:
        BadInput: a price has no law for what differs.
    """
    cost, prices = array.cost, priced(array, role)
    assert cost is not None
    sources, values = dict(cost.provenance), _carried_over(cost, prices)
    found = differences(array)
    for name in values:
        old = sources.get(name, Source())
        part = "adc" if name.startswith("adc") else "array"
        laws = ", ".join(f"{what} by {law}" for what, law in found if _concerns(part, law))
        how = "; ".join(text for text in (old.how, f"{friendly(cost, name, getattr(cost, name))}, {laws}") if text)
        sources[name] = Source(source=old.source, where=old.where, how=how, kind="derived")
    return cost.model_copy(update={**values, "provenance": as_provenance(sources)})


def _concerns(part: str, law: str) -> bool:
    """True if a law carries over the prices of a converter ("adc") or of the array around it ("array")."""
    return law.startswith("adc_law") == (part == "adc")


def _carried_over(cost: ArrayCost, prices: ArrayPrices) -> dict[str, float]:
    """The prices that differ from the published ones."""
    found = {name: getattr(prices, attribute) for name, attribute in PRICES.items()}
    return {
        name: value
        for name, value in found.items()
        if not isinstance(getattr(cost, name), str) and value != getattr(cost, name)
    }


def price_tables(spec: Spec, *, sources: bool = False) -> Iterator[Table]:
    """For each different array of a specification: its derived prices, if there are any, and a table of converters."""
    seen: set[Crossbar] = set()
    for path, array in _arrays(spec):
        if array.cost is None or array in seen:
            continue
        seen.add(array)
        name = path or "the array"
        try:
            if differences(array):
                yield _derived_table(array, name, sources=sources)
            yield converter_table(array, f"converters of {name}: published, and by models of others")
        except BadInput as error:
            yield Table(title=f"{name} has no price: {error}", title_justify="left")


def _derived_table(array: Crossbar, name: str, *, sources: bool) -> Table:
    """The prices of an array that a law carried over: published, derived, and how."""
    assert array.cost is not None
    table = Table(title=f"derived prices of {name}", title_justify="left")
    for column in ("field", "published", "here", "kind", "source", *(["where, how"] if sources else [])):
        table.add_column(column, overflow="fold")
    cost = derived_cost(array, name)
    origins = dict(cost.provenance)
    for field in _carried_over(array.cost, priced(array, name)):
        origin = origins[field]
        where = "; ".join(part for part in (origin.where, origin.how) if part)
        values = (friendly(array.cost, field, getattr(array.cost, field)), friendly(cost, field, getattr(cost, field)))
        table.add_row(f"cost.{field}", *values, origin.kind, origin.source, *([where] if sources else []))
    return table


def _arrays(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Crossbar]]:
    """(dotted path, array) of every array in a specification."""
    if isinstance(spec, Crossbar):
        yield prefix, spec
        return
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from _arrays(value, f"{prefix}.{name}" if prefix else name)


def converter_table(array: Crossbar, title: str) -> Table:
    """Energy, time and area of a converter with the bits of the array: as it is priced, and by every law's own figures.

    The spread between the rows is the uncertainty of the price. A law that cannot be made without values is left out.
    """
    table = Table(title=title, title_justify="left")
    for column in ("model", "bits", "energy", "time", "area"):
        table.add_column(column, overflow="fold")
    prices, bits = priced(array, "projection"), converter_bits(array)
    _row(table, "as priced", bits, Converter(prices.adc_energy, prices.adc_time, prices.adc_area))
    for kind, cls in ConverterLaw.kinds().items():
        try:
            law = cls()
        except (BadInput, ValidationError):
            continue
        _row(table, kind, bits, law.figures(bits))
    return table


def _row(table: Table, name: str, bits: int, found: Converter) -> None:
    shown = (units.show(found.energy, "J"), units.show(found.time, "s"), units.show(found.area, "m^2"))
    table.add_row(name, str(bits), *shown)
