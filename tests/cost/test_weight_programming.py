"""Readings that compensate drift, by hand."""

from __future__ import annotations

import pytest

import ohmformer as of
from ohmformer.cost.cost import Cost
from ohmformer.cost.weight_programming import compensation_reading, programming
from tests.cost.test_residual_writing import HARDWARE, WORK

COMPENSATED = of.replace(HARDWARE, "projection.array.drift_compensation", "column")


def test_a_reading_drives_each_row_of_each_array_alone() -> None:
    """Arrays of 64 x 64 cells, 10 ns an access; all weights of 12 layers and the head, 4 slices, 2 halves."""
    found = compensation_reading(WORK, COMPENSATED)
    one_read = (7.5e-12 / 64 + 0.39e-12) / 64 + 0.98e-15 + 1.5625e-12
    cell = COMPENSATED.projection.array.cell
    assert cell.write_energy is not None
    cells = programming(WORK, COMPENSATED).energy["write"] / (cell.write_energy * cell.pulse_ratio)
    assert found.energy == {"drift reading": pytest.approx(cells * one_read)}
    assert found.latency == found.interval == pytest.approx(64 * 10e-9)


@pytest.mark.parametrize("subtract", ["digital", "analog"])
def test_a_row_is_read_as_in_residual_writing(subtract: str) -> None:
    """There three of four slices are read back."""
    pair = of.replace(COMPENSATED, "projection.array.subtract", subtract)
    once = compensation_reading(WORK, pair).energy["drift reading"]
    written = programming(WORK, of.replace(pair, "projection.array.residual", {})).energy["read back"]
    assert once == pytest.approx(written * 4 / 3)


def test_without_compensation_there_is_no_reading_and_without_prices_it_is_refused() -> None:
    assert compensation_reading(WORK, HARDWARE) == Cost()
    with pytest.raises(of.BadInput, match=r"hardware.projection.array"):
        compensation_reading(WORK, of.replace(COMPENSATED, "projection.array.cost", None))
