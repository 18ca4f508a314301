"""Lanes that are there although nothing lies on arrays."""

from __future__ import annotations

import pytest

from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

PUMA = load(Accelerator, "puma_asplos_2019")
CHIP = PUMA.chip
assert CHIP is not None
PER_TILE = CHIP.cores_per_tile * CHIP.vector.lanes_per_core


def on_lanes(count: int, batch: int = 1) -> Run:
    engine = {"kind": "simd", "ops_per_mac": 2.0, "lanes": count}
    hardware = replace(PUMA, "chip.dram", {"bandwidth": 1e12, "energy": 1e-12})
    for role in ("projection", "attention.key", "attention.value"):
        hardware = replace(hardware, role, engine)
    return simulate(shapes("bert-base", tokens=32, batch=batch), hardware)


def test_a_number_of_lanes_takes_the_tiles_that_have_them() -> None:
    for count, tiles in ((1, 1), (PER_TILE, 1), (PER_TILE + 1, 2), (10 * PER_TILE, 10)):
        run = on_lanes(count)
        assert run.placement.tiles == tiles
        assert CHIP is not None
        assert run.area == pytest.approx(tiles * (CHIP.tile_area + CHIP.cores_per_tile * CHIP.core_area))
        assert run.energy_by("component")["static"] == pytest.approx(tiles * CHIP.tile_power * run.latency)


def test_it_is_there_once_so_that_samples_take_turns() -> None:
    one, four = on_lanes(PER_TILE), on_lanes(PER_TILE, batch=4)
    assert four.latency == pytest.approx(4 * one.latency, rel=1e-3)


def test_more_lanes_than_the_tiles_of_the_weights_have_take_tiles_without_arrays() -> None:
    few, many = (
        simulate(shapes("bert-base", tokens=32), replace(PUMA, "attention.key.lanes", count))
        for count in (1, 1000 * PER_TILE)
    )
    assert few.area == simulate(shapes("bert-base", tokens=32), PUMA).area
    assert many.placement.tiles == 1000
    assert many.area > few.area
