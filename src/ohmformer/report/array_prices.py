"""Tables of the prices of arrays: which are derived, from which published values and by which law; converter models.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError
from rich.table import Table

from ohmformer import units
from ohmformer.array.prices.converter_laws import AdcLaw, Converter
from ohmformer.array.prices.differences import check_laws, converter_bits, differences
from ohmformer.array.prices.spec import ArrayCost
from ohmformer.array.spec import Crossbar
from ohmformer.cost.scaled_array_prices import ArrayPrices, priced
from ohmformer.errors import BadInput
from ohmformer.provenance import Source
from ohmformer.schema import Spec
from ohmformer.study.record.written import friendly

PRICES = {
    "read_time": "read_time", "read_energy": "read_energy", "dac_energy": "dac_energy", "adc_energy": "adc_energy",
    "adc_time": "adc_time", "area": "cell_area", "dac_area": "dac_area", "adc_area": "adc_area",
    "shift_add_area": "shift_add_area",
}  # fmt: skip
"""Field of `ArrayCost` -> field of `ArrayPrices`, for the prices that laws carry over."""


def price_tables(spec: Spec, *, sources: bool = False) -> Iterator[Table]:
    """For each different array of a specification: its derived prices, if there are any, and a table of converters."""
    seen: set[Crossbar] = set()
    for path, array in _arrays(spec):
        if array.cost is None or array in seen:
            continue
        seen.add(array)
        name, role = path or "the array", path.removesuffix("array").removesuffix(".")
        try:
            check_laws(array, path or "array")
            if differences(array):
                yield _derived_table(array, name, role, sources=sources)
            yield converter_table(array, role, f"converters of {name}: published, and by models of others")
        except BadInput as error:
            yield Table(title=f"{name} has no price: {error}", title_justify="left")


def _derived_table(array: Crossbar, name: str, role: str, *, sources: bool) -> Table:
    """The prices of an array and of writing its cells that a law carried over: published, derived, and how."""
    assert array.cost is not None
    table = Table(title=f"derived prices of {name}", title_justify="left")
    for column in ("field", "published", "here", "kind", "source", *(["where, how"] if sources else [])):
        table.add_column(column, overflow="fold")
    prices = priced(array, role)
    rows: list[tuple[str, Spec, str, float]] = [
        ("cost", array.cost, field, value) for field, value in _carried_over(array.cost, prices).items()
    ]
    if prices.write_time is not None and prices.write_time != array.cell.write_time:
        rows.append(("cell", array.cell, "write_time", prices.write_time))
    if array.cell.write_energy is not None and prices.write_energy_ratio != 1:
        rows.append(("cell", array.cell, "write_energy", array.cell.write_energy * prices.write_energy_ratio))
    for part, spec, field, value in rows:
        origin = _derived_source(array, spec, field)
        where = "; ".join(text for text in (origin.where, origin.how) if text)
        values = friendly(spec, field, getattr(spec, field)), friendly(spec, field, value)
        table.add_row(f"{part}.{field}", *values, origin.kind, origin.source, *([where] if sources else []))
    return table


def _carried_over(cost: ArrayCost, prices: ArrayPrices) -> dict[str, float]:
    """The prices that differ from the published ones."""
    found = {name: getattr(prices, attribute) for name, attribute in PRICES.items()}
    return {
        name: value
        for name, value in found.items()
        if not isinstance(getattr(cost, name), str) and value != getattr(cost, name)
    }


def _derived_source(array: Crossbar, spec: Spec, name: str) -> Source:
    """The source of a price of an array or its cell that a law carried over: the published value and the law."""
    old = dict(spec.provenance).get(name, Source())
    part = "cell" if spec is array.cell else "adc" if name.startswith("adc") else "array"
    found = [each for each in differences(array) if part in each.prices]
    laws = ", ".join(f"{each.what} by {each.law}" for each in found)
    how = "; ".join(text for text in (old.how, f"{friendly(spec, name, getattr(spec, name))}, {laws}") if text)
    return Source(source=old.source, where=old.where, how=how, kind="derived")


def _arrays(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Crossbar]]:
    """(dotted path, array) of every array in a specification."""
    if isinstance(spec, Crossbar):
        yield prefix, spec
        return
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from _arrays(value, f"{prefix}.{name}" if prefix else name)


def converter_table(array: Crossbar, role: str, title: str) -> Table:
    """Energy, time and area of a converter with the bits of the array: as it is priced, and by every law's own figures.

    `role` is the role of the array's engine, for messages.
    The spread between the rows is the uncertainty of the price. A law that cannot be made without values, or
    that gives no figures, is left out.

    Raises:
        BadInput: the array has no prices.
    """
    table = Table(title=title, title_justify="left")
    for column in ("model", "bits", "energy", "time", "area"):
        table.add_column(column, overflow="fold")
    prices, bits = priced(array, role), converter_bits(array)
    _row(table, "as priced", bits, Converter(prices.adc_energy, prices.adc_time, prices.adc_area))
    for kind, cls in AdcLaw.kinds().items():
        try:
            figures = cls().checked("figures", bits)
        except (BadInput, ValidationError, ArithmeticError):
            continue
        _row(table, kind, bits, figures)
    return table


def _row(table: Table, name: str, bits: int, found: Converter) -> None:
    shown = (units.show(found.energy, "J"), units.show(found.time, "s"), units.show(found.area, "m^2"))
    table.add_row(name, str(bits), *shown)
