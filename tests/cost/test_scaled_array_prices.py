"""Prices of arrays at another size, converter or technology than the published one: by hand, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer import catalog
from ohmformer.array.prices.array_laws import ArraySize, LineLaw
from ohmformer.array.prices.differences import differences
from ohmformer.array.spec import Crossbar
from ohmformer.cost.array_costs import mvm_cost, write_cost
from ohmformer.cost.placement import place
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.dataflow.simulate import simulate
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load, load_crossbar
from ohmformer.mapping.planning import plan
from ohmformer.registry import _kinds, register
from ohmformer.schema import replace
from ohmformer.study.cost import make_costs, price_notes, study_costs
from ohmformer.workload.shapes import shapes

PRICED = ("puma_2019", "isaac_2016", "clipformer_2024", "xformer_2023_sram")
UNSCALED = {"kind": "none"}
LINES = {"cost__law": {"kind": "lines"}}
AMPLITUDE = {"kind": "amplitude"}
ONE_ACCESS = (
    "cost.timing = 'one_access' of projection and attention arrays: up to 8 times faster than reads and conversions "
    "allow"
)


def changed(array: Crossbar, **changes: Any) -> Crossbar:
    for path, value in changes.items():
        array = replace(array, path.replace("__", "."), value)
    return array


@pytest.mark.parametrize("name", PRICED)
def test_published_prices_are_exact_to_the_bit(name: str) -> None:
    array = load_crossbar(name)
    cost, prices = array.cost, priced(array, "projection")
    assert cost is not None
    assert differences(array) == []
    for field in ("read_energy", "dac_energy", "sample_energy", "shift_add_energy", "adc_energy"):
        published = getattr(cost, field)
        assert getattr(prices, field) == (0.0 if published == "included" else published)
    assert (prices.read_time, prices.adc_time) == (cost.read_time, cost.adc_time)
    assert (prices.cell_area, prices.adc_area, prices.dac_area) == (cost.area, cost.adc_area, cost.dac_area)
    assert (prices.write_energy_ratio, prices.write_time) == (1.0, array.cell.write_time)


def test_isaac_at_twice_the_size_by_hand() -> None:
    """Cells by 4, drivers by 2 each, one sample-and-hold per column, two converters of the same kind."""
    array = replace(load_crossbar("isaac_2016"), "size", 256)
    prices = priced(array, "projection")
    step = 2 * log(2) * 4.4 * 0.134e-15 / 2 * 2 * (256**2 - 128**2)
    assert prices.read_energy == pytest.approx(4 * 30e-12)
    assert prices.dac_energy == pytest.approx(2 * 0.39e-12)
    assert prices.sample_energy == 0.98e-15
    assert prices.adc_energy == 1.5625e-12
    assert prices.read_time == pytest.approx(100e-9 + step)
    assert prices.access_time == max(prices.read_time, 128 * 0.78125e-9)
    by_hand = 4 * 25 + 256 * 2 * 0.166 + 256 * 0.0391 + 2 * 1200 + 2 * 30
    assert prices.area == pytest.approx(by_hand * 1e-12)
    assert prices.write_energy_ratio == pytest.approx(1.05)
    assert prices.write_time == pytest.approx(85.7e-9 + step)


@pytest.mark.parametrize("name", PRICED)
def test_energy_of_a_product_follows_physics(name: str) -> None:
    """With rows and columns doubled, an array does 4 times as much: cells and drivers cost the same for each product,
    and converters half as much if they keep their bits."""
    array = replace(load_crossbar(name), "adc.bits", 8)
    macs, found = {}, {}
    for size in (128, 256):
        sized = replace(array, "size", size)
        found[size], macs[size] = mvm_cost(plan(size, size, sized), 1, "projection").energy, size * size
    each = {size: {part: value / macs[size] for part, value in found[size].items()} for size in found}
    reference = 1 if array.encoding == "offset" else 0
    for part in ("array", "dac"):
        assert each[256].get(part, 0) == pytest.approx(each[128].get(part, 0))
    for part in ("adc", "shift_add", "sample"):
        ratio = (256 + reference) / 256 / ((128 + reference) / 128) / 2
        assert each[256].get(part, 0) == pytest.approx(each[128].get(part, 0) * ratio)


@given(size=st.integers(16, 1024), sharing=st.integers(1, 1024), name=st.sampled_from(PRICED))
def test_no_array_is_faster_than_its_reads_and_conversions(size: int, sharing: int, name: str) -> None:
    array = changed(load_crossbar(name), size=size, adc__columns_per_adc=sharing, cost__timing="bit_serial")
    prices, cost = priced(array, "projection"), mvm_cost(plan(size, size, array), 1, "projection")
    assert cost.interval >= array.cycles() * prices.read_time * (1 - 1e-12)
    converters = -(-size // sharing)
    assert cost.interval * converters >= array.cycles() * size * prices.adc_time * (1 - 1e-12)


@given(rows=st.integers(1, 2048), columns=st.integers(1, 2048), more=st.integers(1, 2048))
def test_larger_arrays_are_larger_slower_and_dearer_to_read(rows: int, columns: int, more: int) -> None:
    array = changed(load_crossbar("isaac_2016"), rows=rows, columns=columns)
    small = priced(array, "projection")
    for field, count in (("rows", rows), ("columns", columns)):
        large = priced(replace(array, field, count + more), "projection")
        assert large.area > small.area
        assert large.read_energy > small.read_energy
        assert large.access_time >= small.access_time


def test_an_ideal_converter_grows_with_the_rows() -> None:
    """64 rows of 2-bit cells need 8 bits, 256 rows 10: noise and capacitors cost."""
    array = load_crossbar("clipformer_2024")
    small, large = (priced(replace(array, "size", size), "projection") for size in (64, 256))
    assert large.adc_energy / small.adc_energy == pytest.approx((1000 + 1048.576) / (800 + 65.536))
    assert large.adc_time / small.adc_time == pytest.approx(10 / 8)
    assert large.adc_area / small.adc_area == pytest.approx((817 + 2.134 * 1024) / (653.6 + 2.134 * 256))
    amplitude = replace(changed(array, bits_per_cell=8, cost__dac_law={"kind": "ladder"}), "inputs.kind", "amplitude")
    with pytest.raises(BadInput, match=r"array.adc.bits = 'ideal': a converter that loses nothing would have \d+ bits"):
        priced(amplitude, "projection")


def test_the_rate_of_a_converter() -> None:
    """Twice the rate: half the time, two converters that take turns; the survey charges energy instead."""
    array = load_crossbar("isaac_2016")
    published, fast = priced(array, "p"), priced(replace(array, "adc.rate", 2.56e9), "p")
    assert fast.adc_time == published.adc_time / 2
    assert (fast.adc_energy, fast.adc_area) == (published.adc_energy, pytest.approx(2 * published.adc_area))
    survey = priced(changed(array, cost__adc_law={"kind": "survey"}, adc__rate=2.56e9), "p")
    assert survey.adc_energy > published.adc_energy
    assert survey.adc_time == published.adc_time / 2


def test_technology_of_an_array() -> None:
    array = load_crossbar("isaac_2016")
    old, new = priced(array, "p"), priced(replace(array, "cost.technology", 16.0), "p")
    assert new.cell_area == pytest.approx(old.cell_area / 4)
    assert new.dac_energy == pytest.approx(old.dac_energy / 2)
    assert new.adc_energy == pytest.approx(old.adc_energy / 2)
    assert new.adc_area == pytest.approx(old.adc_area / 2)
    assert (new.read_energy, new.read_time) == (old.read_energy, old.read_time)


def test_dacs_by_bits() -> None:
    """Bits become 8-bit amplitudes: a ladder of 8 rungs, and cells at a mean square of a third."""
    array = changed(load_crossbar("clipformer_2024"), adc__bits=8)
    old, new = priced(array, "p"), priced(replace(array, "inputs.kind", "amplitude"), "p")
    assert new.dac_energy == pytest.approx(8 * old.dac_energy)
    assert new.dac_area == pytest.approx(8 * old.dac_area)
    assert new.read_energy == pytest.approx(old.read_energy * 511 / (6 * 255) / 0.5)
    six = changed(array, inputs__kind="amplitude", inputs__bits=6)
    assert priced(six, "p").dac_energy == pytest.approx(6 * old.dac_energy)


def test_writes_follow_rows() -> None:
    array = load_crossbar("puma_2019")
    small, large = (write_cost(plan(64, 64, replace(array, "size", size)), "p") for size in (128, 512))
    assert large.total == pytest.approx(small.total * (1 + 0.05 * 3))
    assert large.interval > small.interval


def test_one_conversion_for_all_input_bits() -> None:
    """8-bit codes are 7 pulses; every pulse is sampled, and one conversion and one addition follow."""
    serial = changed(load_crossbar("isaac_2016"), inputs__bits=8)
    array = replace(serial, "inputs.kind", "integrated")
    prices = priced(array, "p")
    once, eight = (mvm_cost(plan(128, 128, each), 1, "p") for each in (array, serial))
    assert once.energy["adc"] == pytest.approx(eight.energy["adc"] / 8)
    assert once.energy["shift_add"] == pytest.approx(eight.energy["shift_add"] / 8)
    for part in ("array", "dac", "sample"):
        assert once.energy[part] == pytest.approx(eight.energy[part] * 7 / 8)
    assert once.interval == pytest.approx(7 * prices.read_time + 128 * prices.adc_time)
    assert plan(128, 128, array).reads(1).adc_conversions * 8 == plan(128, 128, serial).reads(1).adc_conversions


def test_pulses_of_a_code_are_those_of_a_measured_chip() -> None:
    """NeuRRAM, 4 to 6 input bits: word lines 21.76 to 37.22 fJ a MAC, inputs 11.51 to 19.24; 3 to 5 pulses."""
    array = replace(load_crossbar("isaac_2016"), "inputs.kind", "integrated")
    four, six = (mvm_cost(plan(128, 128, replace(array, "inputs.bits", bits)), 1, "p").energy for bits in (4, 6))
    assert six["array"] / four["array"] == pytest.approx(37.22 / 21.76, rel=0.03)
    assert six["dac"] / four["dac"] == pytest.approx(19.24 / 11.51, rel=0.03)
    assert six["adc"] == four["adc"], "one conversion, whatever the number of input bits"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rows": 256},
            r"^hardware.projection.array.rows = 256: the prices of the array hold for 128 x 128 and no law",
        ),
        ({"columns": 64}, r"^hardware.projection.array.columns = 64: .*cost.priced_at.columns = 64, or choose a law"),
        (
            {"size": 64},
            r"^hardware.projection.array.rows = 64, columns = 64: the prices of the array hold for 128 x 128 and no "
            r"law carries them over; state the new prices with cost.priced_at.rows = 64 and cost.priced_at.columns = "
            r"64, or choose a law such as cost.law.kind = 'lines'",
        ),
        (
            {"rows": 64, "cost__technology": 16.0, "cell__g_max": 5e-5, "cost__dac_law": UNSCALED, "inputs": AMPLITUDE},
            r"^hardware.projection.array.rows = 64, cost.technology = 16, cell.g_max = '50 uS', inputs.kind = "
            r"'amplitude': the prices of the array hold for 128 x 128, 32 nm, g_max = '166.67 uS', row drivers of 1 b",
        ),
        ({"cost__technology": 16.0}, r"array.cost.technology = 16: the prices of the array hold for 32 nm and no law"),
        (
            {"cost__dac_law": UNSCALED, "inputs__kind": "amplitude"},
            r"array.inputs.kind = 'amplitude': the prices of the array hold for row drivers of 1 bit and no law .*"
            r"state the new prices with cost.priced_at.dac_bits = 8, or choose a law such as cost.dac_law.kind",
        ),
        ({"inputs__kind": "amplitude"}, r"array.cost.dac_energy = 'included': another price contains row drivers"),
        (
            {"cost__law": {"kind": "lines", "resistance": 1e6}, "size": 256},
            r"array.cost.read_time = 1e-08 s: is shorter than the .* s in which the lines of the published",
        ),
        ({"cost__adc_energy": "included", "adc__bits": 6}, r"array.cost.adc_energy = 'included': another price"),
        ({"cost__adc_area": "included", "adc__bits": 6}, r"array.cost.adc_area = 'included': another price"),
        ({"cost__adc_area": "included", "adc__rate": 1e9}, r"array.cost.adc_area = 'included': another price"),
        ({**LINES, "cost__area": "included", "size": 64}, r"array.cost.area = 'included': another price contains it"),
        ({**LINES, "cost__read_energy": "included", "size": 64}, r"array.cost.read_energy = 'included': another price"),
    ],
)
def test_what_no_law_covers_is_refused(changes: dict[str, Any], message: str) -> None:
    array = changed(load_crossbar("puma_2019"), **{"cost__law": UNSCALED, **changes})
    hardware = replace(load("xformer_tvlsi_2023"), "projection.array", array)
    with pytest.raises(BadInput, match=message):
        place(shapes("bert-base", tokens=64), hardware)


def test_prices_of_a_new_size_are_taken_as_stated() -> None:
    """Prices first, then the size that they hold for."""
    prices = {f"cost__{name}": 1e-9 for name in ("read_time", "area", "dac_area", "shift_add_area")}
    array = changed(load_crossbar("puma_2019"), cost__law=UNSCALED, **prices, cost__read_energy=680e-12)
    stated = changed(array, cost__priced_at__rows=256, cost__priced_at__columns=256, size=256)
    assert priced(stated, "p").read_energy == 680e-12
    later = changed(load_crossbar("puma_2019"), size=256, cost__read_energy=100e-12)
    assert priced(later, "p").read_energy == pytest.approx(400e-12), "as the other prices, it holds for 128 x 128"


def test_a_table_without_a_size_holds_for_the_array_around_it(tmp_path: Path) -> None:
    text = (catalog.SHIPPED / "arrays" / "clipformer_2024.toml").read_text(encoding="utf-8")
    plain = text[: text.index("[array.cost.priced_at]")]
    (tmp_path / "own.toml").write_text(plain, encoding="utf-8")
    own = load_crossbar(str(tmp_path / "own.toml"))
    assert own.cost is not None
    assert (own.cost.priced_at.rows, own.cost.priced_at.columns, own.cost.priced_at.dac_bits) == (64, 64, 1)
    assert priced(own, "p").read_energy == 7.5e-12
    (tmp_path / "larger.toml").write_text('[array]\nbase = "own.toml"\nrows = 128\n', encoding="utf-8")
    larger = load_crossbar(str(tmp_path / "larger.toml"))
    with pytest.raises(BadInput, match=r"rows = 128: the prices of the array hold for 64 x 64 and no law carries"):
        priced(larger, "p")


def test_all_prices_stated_with_a_new_size_hold_for_it(tmp_path: Path) -> None:
    prices = {
        "read_time": "12 ns", "read_energy": "600 pJ", "dac_energy": "1 pJ", "area": "99 um^2", "dac_area": "1 um^2",
        "shift_add_area": "90 um^2",
    }  # fmt: skip

    def written(names: list[str]) -> Crossbar:
        rows = "\n".join(f'{name} = "{prices[name]}"' for name in names)
        file = tmp_path / "derived.toml"
        file.write_text(f'[array]\nbase = "puma_2019"\nsize = 256\n[array.cost]\n{rows}\n', encoding="utf-8")
        return load_crossbar(str(file))

    whole = written(list(prices))
    assert priced(whole, "p").read_energy == 600e-12
    assert differences(whole) == []
    with pytest.raises(BadInput, match=r"derived.toml: array.cost.read_energy = 6e-10: is stated for"):
        written(["read_energy"])


def test_a_write_takes_the_same_time_whatever_the_inputs() -> None:
    """A write drives a row with two levels, so it does not settle to half a step of a DAC."""
    plain = changed(load_crossbar("puma_2019"), cost__dac_energy=0.0, size=512)
    amplitude = replace(plain, "inputs.kind", "amplitude")
    assert priced(amplitude, "p").write_time == priced(plain, "p").write_time
    assert priced(amplitude, "p").read_time > priced(plain, "p").read_time


@pytest.mark.parametrize("price", [lambda: float("nan"), lambda: float("inf"), lambda: -1.0, lambda: 1 / 0])
def test_a_law_that_gives_no_price_is_named(price: Callable[[], float]) -> None:
    """Laws of the package give prices above zero; one that a user defines may not."""

    @register
    class Broken(LineLaw):
        kind: Literal["broken"] = "broken"  # type: ignore[assignment]

        def read_energy_ratio(self, old: ArraySize, new: ArraySize) -> float:
            return price()

    try:
        array = changed(load_crossbar("puma_2019"), cost__law={"kind": "broken"}, size=64)
        with pytest.raises(BadInput, match=r"^hardware.p.array.cost: law 'broken', .* gives a price below zero"):
            priced(array, "p")
    finally:
        del _kinds["array_law"]["broken"]


def test_square_arrays_need_one_axis() -> None:
    """One axis sets rows and columns of all arrays, and the notes say by which law prices follow."""
    study = {
        "name": "sizes",
        "model": {"source": "shapes:bert-base", "seq_len": 128},
        "hardware": {"base": "nvm_ideal", "chip.network_max_load": 1000, "chip.buffer_bandwidth": "1000 TB/s"},
        "sweep": {"hardware.array.size": [64, 128, 256, 512, 1024]},
    }
    found = study_costs(make_costs(study))
    areas = [point.cost.area_m2 for point in found.points]
    assert areas == sorted(areas, reverse=True)
    latencies = [point.cost.latency_s for point in found.points]
    assert latencies == sorted(latencies)
    assert found.notes == (
        "prices of projection arrays are derived by law 'lines': 64 x 64 instead of 128 x 128, 256 x 256 instead of "
        "128 x 128, 512 x 512 instead of 128 x 128 and 1 more",
        "prices of attention arrays are derived by law 'lines': 64 x 64 instead of 128 x 128, 256 x 256 instead of "
        "128 x 128, 512 x 512 instead of 128 x 128 and 1 more",
        ONE_ACCESS,
        "power and area of cores and tiles (without their arrays) are those published for arrays of 128 x 128, 6 in a "
        "core and 8 cores in a tile, while there are 64 x 64 (projection, attention), 256 x 256 (projection, "
        "attention), 512 x 512 (projection, attention) and 1 more: see chip.priced_with",
    )


def test_notes_name_arrays_of_rules() -> None:
    study = {
        "name": "rules",
        "model": {"source": "bundled:fashion-vit"},
        "task": {"source": "bundled:fashion-mnist"},
        "hardware": {"base": "nvm_ideal"},
        "rules": {"*mlp*": {"array": {"base": "puma_2019", "size": 256}}},
    }
    (point,) = make_costs(study).points
    assert price_notes([point.settings]) == [
        "prices of rules['*mlp*'] arrays are derived by law 'lines': 256 x 256 instead of 128 x 128",
        ONE_ACCESS,
        "power and area of cores and tiles (without their arrays) are those published for arrays of 128 x 128, 6 in a "
        "core and 8 cores in a tile, while there are 256 x 256 (rules['*mlp*']): see chip.priced_with",
    ]


def test_the_best_array_is_not_the_largest_with_the_fewest_bits() -> None:
    """Cells that no weight fills are read too, and loss-free converters of many rows are dear."""
    work, base = shapes("bert-base", tokens=512), load("clipformer_tcad_2024")
    energy = {size: simulate(work, replace(base, "array.size", size)).energy for size in (64, 128, 256, 512, 1024)}
    assert min(energy, key=energy.__getitem__) == 256


@pytest.mark.parametrize("name", ["xformer_tvlsi_2023", "nvm_ideal", "clipformer_tcad_2024"])
def test_one_key_sets_the_arrays_of_all_engines(name: str) -> None:
    hardware = replace(load(name), "array.size", 64)
    arrays = [engine.array for engine in (hardware.projection, hardware.attention.key, hardware.attention.value)]  # type: ignore[union-attr]
    assert {(array.rows, array.columns) for array in arrays} == {(64, 64)}
    assert dict(arrays[0].provenance)["rows"].kind == "user"


def test_an_array_with_included_prices_is_not_told_to_take_a_law() -> None:
    """A law would be refused, too, since the price of its converters is part of another."""
    hardware = replace(load("gain_cell_leroux_2025"), "attention.array.size", 128)
    with pytest.raises(BadInput, match=r"priced_at.columns = 128, or keep 64 x 64, since prices that others include"):
        simulate(shapes("gpt2", tokens=16), hardware)


@given(
    name=st.sampled_from(PRICED),
    law=st.sampled_from(["lines", "puma_tables"]),
    kind=st.sampled_from(["bit_serial", "amplitude", "integrated"]),
    size=st.integers(8, 512),
    sharing=st.sampled_from([1, 8, 128]),
)
def test_twice_the_rows_and_columns_by_physics(name: str, law: str, kind: str, size: int, sharing: int) -> None:
    """Four times the cells, twice the drivers, each for a line twice as long, and twice the columns.

    Cells of `puma_tables` conduct twice as long.
    """
    array = changed(
        load_crossbar(name), cost__law={"kind": law}, cost__dac_energy=1e-12, cost__dac_law={"kind": "ladder"},
        adc__bits=8, adc__columns_per_adc=sharing, inputs__kind=kind, cost__read_time=1e-6,
    )  # fmt: skip
    small, large = (priced(replace(array, "size", n), "p") for n in (size, 2 * size))
    longer = 2 if law == "puma_tables" else 1
    assert large.read_energy == pytest.approx(4 * longer * small.read_energy, rel=1e-9)
    assert 2 * size * large.dac_energy == pytest.approx(4 * size * small.dac_energy, rel=1e-9)
    assert (large.adc_energy, large.sample_energy) == (small.adc_energy, small.sample_energy)
    parts = {
        "cells": (large.cell_area, 4 * small.cell_area),
        "drivers": (2 * large.dac_area, 4 * small.dac_area),
        "adders": (large.shift_add_area, 2 * small.shift_add_area),
        "converter": (large.adc_area, small.adc_area),
    }
    for part, (found, expected) in parts.items():
        assert found == pytest.approx(expected, rel=1e-9), part
    assert large.read_time >= longer * small.read_time * (1 - 1e-9)
    assert large.access_time >= max(large.read_time, min(sharing, 2 * size) * large.adc_time) * (1 - 1e-12)
