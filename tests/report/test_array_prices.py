"""Derived prices and models of converters as `ohmformer show` prints them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.table import Table

from ohmformer import units
from ohmformer.array.spec import Crossbar
from ohmformer.cost.array_costs import write_cost
from ohmformer.hardware.entries import load, load_crossbar
from ohmformer.mapping.planning import plan
from ohmformer.report.array_prices import price_tables
from ohmformer.report.library import show_tables
from ohmformer.schema import replace


def cells(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]


def derived(array: Crossbar) -> dict[str, list[str]]:
    """Field -> published, here, kind, source, where and how, for the prices that a law carried over."""
    table = next(table for table in price_tables(array, sources=True) if str(table.title).startswith("derived"))
    return {row[0]: row[1:] for row in cells(table)}


def test_a_derived_price_says_from_which_value_and_by_which_law() -> None:
    rows = derived(replace(replace(load_crossbar("isaac_2016"), "size", 256), "adc.bits", 10))
    read, adc = rows["cost.read_energy"], rows["cost.adc_energy"]
    assert read[:4] == ["30 pJ", "120 pJ", "derived", "isaac2016"]
    assert read[4].endswith("in 100 ns; 30 pJ, 256 x 256 instead of 128 x 128 by law 'lines'")
    assert adc[4].endswith("1.562 pJ, converters of 10 bits instead of 8 by adc_law 'sar'")
    assert "cost.sample_energy" not in rows


def test_converters_of_another_feature_size_say_so() -> None:
    rows = derived(replace(load_crossbar("puma_2019"), "cost.technology", 16.0))
    assert rows["cost.adc_energy"][4].endswith("; 812.5 fJ, 16 nm instead of 32 nm by law 'lines'")
    assert rows["cost.adc_energy"][1] == "406.2 fJ"


def test_derived_prices_of_a_write_are_listed() -> None:
    rows = derived(replace(load_crossbar("puma_2019"), "size", 256))
    published, here, kind, source, how = rows["cell.write_energy"]
    assert (kind, source) == ("derived", "pumasim")
    assert float(here.split()[0]) == pytest.approx(1.05 * float(published.split()[0]), rel=1e-3)
    assert how.endswith(f"{published}, 256 x 256 instead of 128 x 128 by law 'lines'")
    assert "cell.write_time" in rows


def test_a_published_array_has_no_derived_prices() -> None:
    array = load_crossbar("isaac_2016")
    assert [table.title for table in price_tables(array)] == [
        "converters of the array: published, and by models of others"
    ]


def test_converters_stand_side_by_side() -> None:
    (table,) = price_tables(load_crossbar("isaac_2016"))
    rows = {row[0]: row[1:] for row in cells(table)}
    assert rows["as priced"] == ["8", "1.562 pJ", "781.2 ps", "1200 um^2"]
    assert rows["bit_line_sar"] == ["8", "701.1 fJ", "11.81 ns", "2085 um^2"]
    assert set(rows) >= {"sar", "capacitor_sar", "flash", "survey", "linear"}


def test_show_lists_derived_prices_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[accelerator]\nbase = "xformer_tvlsi_2023"\n"projection.array.size" = 64\n', encoding="utf-8")
    spec, derived, *converters, at_full_load = show_tables(str(file), sources=True)
    assert "at full load" in str(at_full_load.title)
    assert derived.title == "derived prices of projection.array"
    assert {row[0] for row in cells(derived)} == {
        *("cost.read_time", "cost.read_energy", "cost.area", "cost.dac_area", "cost.shift_add_area"),
        *("cell.write_time", "cell.write_energy"),
    }
    assert len(converters) == 2
    rows = {row[0]: row[2] for row in cells(spec)}
    assert (rows["projection.array.rows"], rows["projection.array.cost.read_energy"]) == ("user", "derived")


def test_an_array_that_no_law_covers_says_so() -> None:
    array = replace(replace(load_crossbar("puma_2019"), "cost.law", {"kind": "none"}), "rows", 64)
    (table,) = price_tables(replace(load("xformer_tvlsi_2023"), "projection.array", array).projection)
    assert str(table.title).startswith("array has no price: array.rows = 64: the prices of the array hold for")


def test_the_price_of_a_write_with_other_pulses_is_what_a_write_costs() -> None:
    """PUMA's write is priced for two pulses."""
    array = replace(replace(load_crossbar("puma_2019"), "cell.write_pulses", 6), "size", 256)
    rows, cost = derived(array), write_cost(plan(64, 64, array), "projection")
    for field, found, unit in (("energy", cost.total / plan(64, 64, array).cells, "J"), ("time", cost.interval, "s")):
        published, here, kind, _, how = rows[f"cell.write_{field}"]
        assert here == units.show(found, unit)
        assert (kind, published) == ("derived", units.show(getattr(array.cell, f"write_{field}"), unit))
        assert how.endswith("by law 'lines', 6 pulses to a write instead of 2 by proportion")
    alone = derived(replace(load_crossbar("puma_2019"), "cell.write_pulses", 6))
    assert set(alone) == {"cell.write_energy", "cell.write_time"}
