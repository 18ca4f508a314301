"""The effort of verified writes, against simulated rows of cells that are written until all cells are accepted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ohmformer.array.spec import Crossbar
from ohmformer.device.write_verify import miss_probability
from ohmformer.mapping.write_effort import Effort, effort
from tests.build import SQRT_RANGE, UNIFORM, array, cell

ROWS = 4000


def digits_of_rows(hardware: Crossbar, index: int, numbers: torch.Generator) -> torch.Tensor:
    """Digits [rows, columns] of a slice: codes equally likely, of either sign where there are pairs."""
    top = (1 << hardware.bits) - 1
    codes = torch.randint(0, top + 1, (ROWS, hardware.columns), generator=numbers)
    if hardware.polarities == 2:
        codes *= torch.randint(0, 2, codes.shape, generator=numbers)
    return (codes >> (index * hardware.bits_per_cell)) & hardware.max_digit


def written(hardware: Crossbar, index: int, numbers: torch.Generator) -> torch.Tensor:
    """Writes [rows, columns] of the cells of a slice."""
    assert hardware.write_verify is not None
    targets = hardware.cell.g_min + hardware.step * digits_of_rows(hardware, index, numbers).double()
    q = miss_probability(targets, hardware.cell, hardware.write_verify.tolerance)
    faults = hardware.cell.faults
    stuck = torch.rand(q.shape, generator=numbers, dtype=torch.float64)
    margin = hardware.write_verify.tolerance * (hardware.cell.g_max - hardware.cell.g_min)
    for low, high, held in (
        (0.0, faults.stuck_at_g_min, hardware.cell.g_min),
        (faults.stuck_at_g_min, faults.stuck_at_g_min + faults.stuck_at_g_max, hardware.cell.g_max),
    ):
        q = torch.where((stuck >= low) & (stuck < high), ((targets - held).abs() > margin).double(), q)
    limit, count = hardware.write_verify.max_writes(index), torch.ones_like(q)
    going_on = torch.ones_like(q, dtype=torch.bool)
    for _ in range(limit - 1):
        going_on &= torch.rand(q.shape, generator=numbers, dtype=torch.float64) < q
        count += going_on
    return count


CASES: dict[str, dict[str, Any]] = {
    "pairs": {"cell": cell(write_noise=SQRT_RANGE), "write_verify": {"writes": 6, "tolerance": 0.1}},
    "by slice": {"cell": cell(write_noise=UNIFORM), "write_verify": {"writes": [1, 2, 3, 9], "tolerance": 0.05}},
    "a ragged top slice": {
        "cell": cell(write_noise=SQRT_RANGE),
        "bits_per_cell": 3,
        "write_verify": {"writes": 4, "tolerance": 0.1},
    },
    "offset": {
        "cell": cell(write_noise=SQRT_RANGE),
        "encoding": "offset",
        "write_verify": {"writes": 5, "tolerance": 0.1},
    },
    "stuck cells": {
        "cell": cell(write_noise=SQRT_RANGE, faults={"stuck_at_g_min": 0.05, "stuck_at_g_max": 0.02}),
        "write_verify": {"writes": 6, "tolerance": 0.1},
    },
}


@pytest.mark.parametrize("name", list(CASES))
def test_effort_is_that_of_rows_of_cells(name: str) -> None:
    """Ten means of 4,000 rows within 5 standard errors: a false alarm once in 30,000 seeds."""
    hardware, numbers = array(rows=8, columns=8, **CASES[name]), torch.Generator().manual_seed(3)
    found = effort(hardware, hardware.slices())
    made = [written(hardware, index, numbers) for index in range(hardware.slices())]
    limits = [hardware.write_verify.max_writes(index) for index in range(hardware.slices())]  # type: ignore[union-attr]
    cells = torch.stack(made)
    error = 5 * float(cells.std()) / math.sqrt(ROWS)
    assert found.writes == pytest.approx(float(cells.mean()), abs=error)
    assert found.worn == pytest.approx(max(float(each.mean()) for each in made), abs=error)
    reads = torch.stack([each.clamp(max=limit - 1) for each, limit in zip(made, limits, strict=True)])
    assert found.reads == pytest.approx(float(reads.mean()), abs=error)
    rows = [each.amax(dim=1) for each in made]
    error = 5 * max(float(each.std()) for each in rows) / math.sqrt(ROWS)
    assert found.row_writes == pytest.approx(max(float(each.mean()) for each in rows), abs=error)
    capped = [each.clamp(max=limit - 1) for each, limit in zip(rows, limits, strict=True)]
    assert found.row_reads == pytest.approx(max(float(each.mean()) for each in capped), abs=error)


def test_without_verification_a_write_is_one() -> None:
    assert effort(array(cell=cell(write_noise=SQRT_RANGE)), 4) == Effort(1, 0, 1, 0, 1)
    once = array(cell=cell(write_noise=SQRT_RANGE), write_verify={"writes": 1, "tolerance": 0.1})
    assert effort(once, 4) == Effort(1, 0, 1, 0, 1)


def test_slices_that_are_left_out_cost_nothing() -> None:
    hardware = array(cell=cell(write_noise=UNIFORM), write_verify={"writes": [1, 1, 1, 9], "tolerance": 0.02})
    assert effort(hardware, 3) == Effort(1, 0, 1, 0, 1)
    assert effort(hardware, 4).row_writes > 8
