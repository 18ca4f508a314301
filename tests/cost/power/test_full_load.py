"""Peak rate, power and area by part, against hand calculations from the tables of ISAAC."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.cost.power.full_load import full_load
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import replace


def test_isaac_by_hand() -> None:
    """A tile: 96 arrays hold 12 matrices of 16 bits; a vector takes 16 accesses of 100 ns."""
    load_of_one = full_load(load("isaac_isca_2016"), tiles=1)
    vectors = 12 / 1.6e-6
    assert load_of_one.rate == pytest.approx(2 * 128 * 128 * vectors, rel=1e-12)
    power = {
        "array": 96 * 30e-12 / 100e-9,
        "adc": 96 * 128 * 1.5625e-12 / 100e-9 * 129 / 128,  # 128 columns and the unit column
        "register": 512 * vectors * 5.03e-12,
        "network": 256 * vectors * 5.47e-12,
        "vector": 48 * 1.2e9 * 2.185e-12,
        "static": 9.06e-3,
    }
    assert {name: load_of_one.power[name] for name in power} == pytest.approx(power, rel=1e-9)
    assert sum(load_of_one.area.values()) == pytest.approx(22.88e-6 + 0.372e-6, rel=2e-3)


def test_a_chip_is_its_tiles_and_its_links() -> None:
    hardware = load("isaac_isca_2016")
    one, chip = full_load(hardware, tiles=1), full_load(hardware)
    assert chip.tiles == 168
    assert chip.rate == pytest.approx(168 * one.rate, rel=1e-12)
    tiles = 168 * (sum(one.power.values()) - 10.4)
    assert sum(chip.power.values()) == pytest.approx(tiles + 10.4, rel=1e-12)
    assert chip.power["links"] == 10.4
    assert full_load(hardware, tiles=169).power["links"] == 20.8


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([16, 32, 64, 128]), st.sampled_from(["xformer_tvlsi_2023_bit_serial", "isaac_isca_2016"]))
def test_the_peak_is_what_converters_and_accesses_allow(shared: int, name: str) -> None:
    hardware = replace(load(name), "projection.array.adc.columns_per_adc", shared)
    array, chip = hardware.projection.array, hardware.chip  # type: ignore[attr-defined]
    assert chip is not None
    assert array.cost is not None
    found = full_load(hardware, tiles=1)
    arrays = chip.arrays_per_core * chip.cores_per_tile
    conversions = arrays * (array.columns / shared) / array.cost.adc_time
    per_operation = array.cycles() * array.slices() / (2 * array.rows)
    assert found.rate <= conversions / per_operation * (1 + 1e-9)
    assert found.rate <= arrays / array.cost.read_time * array.columns / per_operation * (1 + 1e-9)


def test_what_has_no_arrays_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"^full_load: hardware\.projection\.kind = 'simd': .* take 'crossbar' or 'sram'"
    ):
        full_load(_without_arrays())
    with pytest.raises(BadInput, match=r"^full_load: tiles = 0: must be 1 or more"):
        full_load(load("isaac_isca_2016"), tiles=0)


def _without_arrays() -> Accelerator:
    hardware = load("puma_asplos_2019")
    return hardware.model_copy(update={"projection": hardware.attention.key})
