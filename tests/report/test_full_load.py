"""The table of an accelerator at full load."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ohmformer.hardware.entries import load, load_crossbar
from ohmformer.report.full_load import full_load_tables
from ohmformer.report.library import show_tables


def text(table: Table) -> str:
    console = Console(width=120, record=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_isaac_is_168_tiles_with_their_links() -> None:
    (table,) = full_load_tables(load("isaac_isca_2016"))
    shown = text(table)
    assert "168 tiles at full load: 41.29 Top/s" in shown
    assert "links" in shown
    assert "10.4 W" in shown
    assert "85.45 mm^2" in shown


def test_what_has_no_arrays_or_no_prices_has_no_table() -> None:
    assert not list(full_load_tables(load("gtx_1060")))
    assert not list(full_load_tables(load("generic_amplitude")))
    assert not list(full_load_tables(load_crossbar("isaac_2016")))


def test_show_ends_with_it() -> None:
    *_, last = show_tables("xformer_tvlsi_2023")
    assert "one tile at full load" in str(last.title)
