"""Table of an accelerator at full load: peak rate, and power and area by part. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from ohmformer import units
from ohmformer.cost.power.full_load import FullLoad, full_load
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import Spec


def full_load_tables(spec: Spec) -> Iterator[Table]:
    """The parts of an accelerator whose tiles all work all the time; nothing if it has no priced arrays for weights."""
    if not isinstance(spec, Accelerator):
        return
    try:
        found = full_load(spec)
    except BadInput:
        return
    yield full_load_table(found)


def full_load_table(found: FullLoad) -> Table:
    """Power and area of every part, and their sums."""
    power, area = sum(found.power.values()), sum(found.area.values())
    tiles = "one tile" if found.tiles == 1 else f"{found.tiles} tiles"
    rates = [units.show(found.rate, "op/s"), f"{found.rate / power / 1e12:.3g} TOPS/W"]
    if area:
        rates.append(f"{found.rate / area / 1e18:.3g} TOPS/mm^2")
    title = f"{tiles} at full load: {', '.join(rates)}"
    table = Table(title=title, title_justify="left", caption="\n".join(found.notes) or None, caption_justify="left")
    for column in ("part", "power", "area"):
        table.add_column(column, overflow="fold")
    for part in dict.fromkeys((*found.power, *found.area)):
        watts, size = found.power.get(part), found.area.get(part)
        if watts or size:
            table.add_row(part, units.show(watts, "W") if watts else "", units.show(size, "m^2") if size else "")
    table.add_row("all", units.show(power, "W"), units.show(area, "m^2"))
    return table
