"""Prices carried over to the technology of a chip."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer import catalog
from ohmformer.cost.technology import CHIP, at_technology
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

DIGITAL = ("bus", "network", "register", "buffer", "vector")
ANALOG = ("array", "adc", "shift_add", "write")
WORK = shapes("bert-base", tokens=64)


def run(name: str = "nvm_ideal", **chip: Any) -> Run:
    hardware = load(Accelerator, name)
    for field, value in chip.items():
        hardware = replace(hardware, f"chip.{field.replace('__', '.')}", value)
    return simulate(WORK, hardware)


@pytest.mark.parametrize("name", catalog.entries("accelerator"))
def test_the_library_stands_where_its_prices_are(name: str) -> None:
    chip = load(Accelerator, name).chip
    if chip is not None:
        assert at_technology(chip) is chip


def test_a_smaller_technology_carries_digital_prices_and_leaves_analog_ones() -> None:
    """From 32 to 16 nm: half of everything digital, as the simulator of PUMA has it, and the same times."""
    old, new = run(), run(technology=16.0)
    before, after = old.energy_by("component"), new.energy_by("component")
    for name in DIGITAL:
        assert after[name] == pytest.approx(before[name] / 2)
    for name in ANALOG:
        assert after[name] == before[name]
    assert after["softmax"] == pytest.approx(before["softmax"] / 2)
    assert after["static"] == pytest.approx(before["static"] / 2)
    assert new.latency == old.latency
    assert new.area < old.area


def test_constant_field_saves_more() -> None:
    before, after = (run(**chip).energy_by("component") for chip in ({}, {"technology": 16.0, "scaling": "dennard"}))
    for name in DIGITAL:
        assert after[name] == pytest.approx(before[name] / 8)
    assert after["static"] == pytest.approx(before["static"] / 4)


def test_areas_of_cores_and_tiles_shrink_around_arrays_that_do_not() -> None:
    hardware = load(Accelerator, "nvm_ideal")
    chip = hardware.chip
    assert chip is not None
    old, new = run(), run(technology=16.0, scaling="dennard")
    shell = old.placement.tiles * (chip.tile_area + chip.cores_per_tile * chip.core_area)
    assert chip.softmax is not None
    saved = 0.75 * (shell + 12 * chip.softmax.area_per_head)
    assert old.area - new.area == pytest.approx(saved)


def test_a_unit_may_have_prices_of_another_technology() -> None:
    """An arithmetic unit of 45 nm in a chip of 32 nm: 2.4 mW become 1.7 mW."""
    before, after = (run(**chip).energy_by("component") for chip in ({}, {"vector__priced_at": 45.0}))
    assert after == {**before, "vector": pytest.approx(before["vector"] * 32 / 45)}
    before, after = (run(**chip).energy_by("component") for chip in ({}, {"softmax__priced_at": 64.0}))
    assert after == {**before, "softmax": pytest.approx(before["softmax"] / 2)}


def test_what_another_price_includes_stays_included() -> None:
    chip = load(Accelerator, "nvm_ideal").chip
    assert chip is not None
    scaled = at_technology(chip.model_copy(update={"technology": 16.0, "bus_energy": "included"}))
    assert scaled.bus_energy == "included"
    assert {name for name in CHIP if getattr(scaled, name) != getattr(chip, name)} == set(CHIP)


@pytest.mark.parametrize("field", ["technology", "priced_at", "vector.priced_at"])
def test_a_size_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(BadInput, match=rf"chip.{field} = 0.0: must be > 0"):
        replace(load(Accelerator, "nvm_ideal"), f"chip.{field}", 0.0)
