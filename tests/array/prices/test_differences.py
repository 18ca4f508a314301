"""Which changes of an array and its cells change prices, by hand, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ohmformer.array.prices.array_laws import LineLaw
from ohmformer.array.prices.differences import differences
from ohmformer.array.spec import Crossbar
from ohmformer.cost.array_costs import write_cost
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load_crossbar
from ohmformer.mapping.planning import plan
from ohmformer.schema import replace

UNSCALED = {"kind": "none"}


def changed(array: Crossbar, **changes: Any) -> Crossbar:
    for path, value in changes.items():
        array = replace(array, path.replace("__", "."), value)
    return array


@pytest.mark.parametrize("name", ["isaac_2016", "puma_2019", "clipformer_2024"])
def test_read_and_write_energies_follow_conductances_by_hand(name: str) -> None:
    """The share that cells conduct follows their mean conductance: half of the range with an offset, a quarter in
    pairs, of which one half is unused. Lines, drivers, converters, times and areas stay."""
    array = load_crossbar(name)
    cell, cost, published = array.cell, array.cost, priced(array, "p")
    assert cost is not None
    assert isinstance(cost.law, LineLaw)
    assert cost.law.conduction_share is not None
    used, share = (0.25 if array.encoding == "differential" else 0.5), cost.law.conduction_share
    low, high = 2 * cell.g_min, cell.g_max / 4
    found = priced(changed(array, cell__g_min=low, cell__g_max=high), "p")
    ratio = (low + used * (high - low)) / (cell.g_min + used * (cell.g_max - cell.g_min))
    assert found.read_energy == pytest.approx(published.read_energy * (1 - share + share * ratio), rel=1e-12)
    written = 0.05 + 0.95 * (low + high) / (cell.g_min + cell.g_max)
    assert found.write_energy_ratio == pytest.approx(written, rel=1e-12)
    others = [field for field in vars(found) if field not in ("read_energy", "write_energy_ratio")]
    assert [getattr(found, field) for field in others] == [getattr(published, field) for field in others]


def test_the_encoding_decides_how_many_cells_conduct() -> None:
    """One half of each differential pair stays at `g_min`; a write ends at either end of the range."""
    array = load_crossbar("isaac_2016")
    pairs, offset = priced(replace(array, "encoding", "differential"), "p"), priced(array, "p")
    low, high = array.cell.g_min, array.cell.g_max
    ratio = (low + (high - low) / 4) / (low + (high - low) / 2)
    assert pairs.read_energy == pytest.approx(offset.read_energy * (0.02 + 0.98 * ratio), rel=1e-12)
    assert (pairs.write_energy_ratio, pairs.write_time) == (offset.write_energy_ratio, offset.write_time)


@pytest.mark.parametrize(
    "change",
    [{"bits_per_cell": 1}, {"bits": 8}, {"redundancy": 2}, {"cell__levels": 4}, {"cell__endurance": 1e6}, {"age": 1.0}],
)
def test_what_leaves_the_mean_current_of_a_cell_leaves_its_prices(change: dict[str, Any]) -> None:
    """Digits of one or two bits are equally likely, so their mean is half of the range."""
    array = load_crossbar("isaac_2016")
    assert priced(changed(array, **change), "p") == priced(array, "p")


CONDUCTANCE_ALONE = [
    (
        "xformer_2023_sram",
        {"cell__g_max": 1e-4},
        r"cell.g_max = '100 uS': the prices of the array hold for g_max = '50 uS'",
    ),
    (
        "neurram_2022",
        {"cell__g_min": 5e-6},
        r"cell.g_min = '5 uS': the prices of the array hold for g_min = '1 uS' and no",
    ),
    (
        "sram_jia_2020",
        {"encoding": "differential"},
        r"encoding = 'differential': the prices .* hold for encoding = 'offset'",
    ),
    (
        "gain_cell_leroux_2025",
        {"cell__g_max": 2e-5},
        r"or say what share of read_energy cells conduct, with cost.law.cond",
    ),
    ("sram_wang_2022", {"cell__g_max": 2e-5}, r"state the new prices with cost.priced_at.g_max = '20 uS', or say what"),
]


@pytest.mark.parametrize(("name", "change", "message"), CONDUCTANCE_ALONE)
def test_conductances_without_a_law_are_refused(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        priced(changed(load_crossbar(name), **change), "p")


def test_tables_of_puma_know_no_conductances() -> None:
    array = changed(load_crossbar("puma_2019"), cost__law={"kind": "puma_tables"}, cell__g_max=50e-6)
    with pytest.raises(BadInput, match=r"cost.law.conduction_share of cost.law.kind = 'lines'$"):
        priced(array, "p")


def test_a_price_stated_with_new_conductances_holds_for_them(tmp_path: Path) -> None:
    def written(text: str) -> Crossbar:
        file = tmp_path / "own.toml"
        file.write_text(f'[array]\nbase = "isaac_2016"\n{text}\n', encoding="utf-8")
        return load_crossbar(str(file))

    own = written('"cell.g_max" = "50 uS"\n"cell.write_energy" = "0.4 pJ"\n"cost.read_energy" = "11 pJ"')
    assert priced(own, "p").read_energy == 11e-12
    assert (own.cell.write_energy, priced(own, "p").write_energy_ratio) == (0.4e-12, 1)
    assert differences(own) == []
    derived = written('"cell.g_max" = "50 uS"')
    assert [each.what for each in differences(derived)] == [
        "25.56 uS instead of 83.89 uS in a cell",
        "25.56 uS instead of 83.89 uS in a written cell",
    ]
    later = replace(derived, "cost.read_energy", 30e-12)
    assert priced(later, "p").read_energy == priced(derived, "p").read_energy, "it holds for the published cell"


def test_another_cell_brings_the_price_of_its_own_write() -> None:
    """The write energy of a cell holds for that cell, the read energy of an array for the cell it was given for."""
    array = load_crossbar("puma_2019")
    other = replace(array, "cell", "rram_clipformer_2024")
    assert priced(other, "p").write_energy_ratio == 1
    assert priced(other, "p").read_energy < array.cost.read_energy  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cost__law": UNSCALED, "cost__priced_at": {"g_max": 5e-5}, "cell__g_max": 5e-5},
            r"array.cell.g_max = '50 uS': cell.write_energy holds for g_max = '166.67 uS', which no law carries ove",
        ),
    ],
)
def test_a_write_of_another_cell_is_refused_where_it_is_priced(change: dict[str, Any], message: str) -> None:
    array = load_crossbar("puma_2019")
    cost = array.cost
    assert cost is not None
    if "cost__priced_at" in change:
        at = cost.priced_at.model_copy(update=change.pop("cost__priced_at"))
        array = array.model_copy(update={"cost": cost.model_copy(update={"priced_at": at})})
    array = changed(array, **change)
    assert priced(array, "p").read_energy == cost.read_energy
    with pytest.raises(BadInput, match=message):
        write_cost(plan(64, 64, array), "p")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "cost.priced_at.rows",
            256,
            r"priced_at.rows = 256: the prices were given for 128; state read_time, read_energy",
        ),
        (
            "cost.priced_at.dac_bits",
            8,
            r"the prices were given for 1; state read_time, read_energy, dac_energy and dac_",
        ),
        ("cost.priced_at.technology", 16.0, r"the prices were given for 32.0; state .* adc_energy and adc_area anew"),
        (
            "cost.priced_at.g_max",
            1e-5,
            r"the prices were given for 0.00016667; state read_energy anew with it, or leave",
        ),
        (
            "cost.priced_at.encoding",
            "differential",
            r"the prices were given for offset; state read_energy anew with it",
        ),
        (
            "cost.adc_bits",
            6,
            r"cost.adc_bits = 6: the prices were given for 8; state adc_energy, adc_time and adc_area",
        ),
        ("cell.priced_at.g_max", 1e-5, r"the prices of a write were given for 0.00016667; state write_energy anew"),
        ("cell.priced_at.write_pulses", 1, r"given for 2; state write_energy and write_time anew with it, or leave it"),
        ("cost.priced_at", {"rows": 256}, r"cost.priced_at.rows = 256: the prices were given for 128; state read_time"),
    ],
)
def test_old_prices_are_not_those_of_another_array(path: str, value: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(load_crossbar("isaac_2016"), path, value)


def test_prices_stated_with_another_converter_or_driver_hold_for_it(tmp_path: Path) -> None:
    def written(text: str) -> Crossbar:
        file = tmp_path / "own.toml"
        file.write_text(f'[array]\nbase = "isaac_2016"\n{text}\n', encoding="utf-8")
        return load_crossbar(str(file))

    six = '"adc.bits" = 6\n[array.cost]\nadc_energy = "1 pJ"\n'
    whole = written(six + 'adc_time = "1 ns"\nadc_area = "900 um^2"')
    assert (priced(whole, "p").adc_energy, priced(whole, "p").adc_area) == (1e-12, 900e-12)
    for text in (
        six,
        '"inputs.kind" = "amplitude"\n"cost.dac_energy" = "1 pJ"',
        '"cost.technology" = 16\n"cost.area" = "9 um^2"',
    ):
        with pytest.raises(
            BadInput, match=r"own.toml: array.cost.\w+ = .*: is stated for .*; say for which one it holds"
        ):
            written(text)
    said = written(six + "adc_bits = 8\n")
    assert priced(said, "p").adc_energy == pytest.approx(1e-12 * (600 + 4.096) / (800 + 65.536))


def test_both_halves_of_an_analog_pair_share_converters() -> None:
    array = load_crossbar("clipformer_2024")
    digital, analog = (priced(replace(array, "subtract", way), "p") for way in ("digital", "analog"))
    prices, cost = analog, array.cost
    assert cost is not None
    columns = 64 * prices.sample_area + 64 * prices.adc_area + prices.shift_add_area
    assert prices.area == pytest.approx(prices.cell_area + 64 * prices.dac_area + columns / 2, rel=1e-12)
    assert digital.area > analog.area


def test_time_and_energy_of_a_write_are_in_proportion_to_its_pulses() -> None:
    array = load_crossbar("puma_2019")
    two, four = (write_cost(plan(64, 64, replace(array, "cell.write_pulses", pulses)), "p") for pulses in (2, 4))
    assert (four.total, four.interval) == (2 * two.total, 2 * two.interval)
