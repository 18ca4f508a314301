"""Read noise behind wires that lose voltage, against networks in which the conductance of every cell is drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ohmformer.array.crossbar import write
from ohmformer.array.folded import fold
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.multiply import mvm
from ohmformer.array.wires.effective import exact
from ohmformer.array.wires.spec import Wires
from ohmformer.device.spec import Cell
from tests.build import FLICKER, array

G_MAX, DRAWS, ROWS, COLUMNS = 30e-6, 4000, 12, 4
STRONG = FLICKER | {"q_scale": 0.02, "q_max": 0.3}
READS: dict[str, dict[str, Any]] = {
    "proportional": {"kind": "proportional", "sigma": 0.05},
    "uniform": {"kind": "uniform", "sigma": 0.007},
    "flicker": STRONG,
}


def hardware(read: dict[str, Any], wires: dict[str, float], low: float, **fields: Any) -> Any:
    cell = {"g_min": low, "g_max": G_MAX, "read_noise": read, **fields.pop("cell", {})}
    return array(
        rows=ROWS, columns=COLUMNS, cell=Cell.model_validate(cell), bits=2, wires=wires, age=50.0,
        inputs={"kind": "amplitude", "bits": 4}, **fields,
    )  # fmt: skip


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("low", [1e-6, 0.0])
@pytest.mark.slow
def test_read_noise_is_lost_in_wires_like_conductance(kind: str, low: float) -> None:
    """At a loss of 0.2: within 8 %, since a draw varies by 1.1 % and columns lose a few percent more when driven.

    Noise that does not shrink with the conductance was 15 to 25 % too strong.
    """
    wires = {"row": 100.0, "column": 30.0, "driver": 200.0}
    crossbar = hardware(READS[kind], wires, low)
    codes = torch.randint(-3, 4, (COLUMNS, ROWS), generator=torch.Generator().manual_seed(1)).double()
    x = torch.randint(0, 16, (1, ROWS), generator=torch.Generator().manual_seed(2)).double()
    numbers = torch.Generator().manual_seed(3)
    total = torch.zeros(DRAWS, COLUMNS, dtype=torch.double)
    for sign in (1, -1):
        g = low + crossbar.step * (sign * codes).clamp(min=0)
        std = crossbar.cell.read_noise.read_std(g, crossbar.cell, age=50.0, written=None)
        drawn = g + std * torch.randn(DRAWS, COLUMNS, ROWS, dtype=torch.double, generator=numbers)
        currents = exact(drawn.clamp(min=0), Wires(**wires)) - low  # type: ignore[arg-type]
        total += sign * (currents / crossbar.step) @ x[0]
    programmed = write(codes, crossbar)
    for level in ("cell", "array"):
        y = mvm(x.expand(DRAWS, -1), programmed, level=level, x_range=15.0, signed=False, stream=7)  # type: ignore[arg-type]
        y = y / float(programmed.unit.flatten()[0])
        if low > 0:  # else half of the draws of unused cells are below zero, which no network has
            torch.testing.assert_close(y.std(0), total.std(0), rtol=0.08, atol=0)
        assert bool((y.std(0) < 1.5 * total.std(0) + 1e-9).all())


def test_folded_reads_are_those_of_whole_cells() -> None:
    drift = {"drift": {"kind": "power_law", "t0": 1.0, "nu": 0.1, "nu_std": 0.02}}
    crossbar = hardware(STRONG, {"row": 400.0, "column": 300.0, "ir_drop": "sweeps"}, 1e-6, cell=drift)  # type: ignore[dict-item]
    codes = torch.randint(-3, 4, (9, 17), generator=torch.Generator().manual_seed(4)).double()
    programmed, folded = write(codes, crossbar, stream=5), write_folded(codes, crossbar, stream=5)
    assert programmed.read_std is not None
    assert folded.variance is not None
    torch.testing.assert_close(fold(programmed).variance, folded.variance)
    stds = programmed.read_std[:, 0].square().sum(0) * programmed.unit**2
    torch.testing.assert_close(folded.variance, stds)


def test_wires_without_resistance_change_no_read() -> None:
    wires = {"row": 0.0, "column": 0.0}
    codes = torch.arange(-3.0, 4.0).double()[:, None].expand(-1, 5)
    with_wires = fold(write(codes, hardware(STRONG, wires, 0.0)))
    without = fold(write(codes, array(
        rows=ROWS, columns=COLUMNS, bits=2, age=50.0, inputs={"kind": "amplitude", "bits": 4},
        cell=Cell.model_validate({"g_min": 0.0, "g_max": G_MAX, "read_noise": STRONG}),
    )))  # fmt: skip
    torch.testing.assert_close(with_wires.values, without.values)
    torch.testing.assert_close(with_wires.variance, without.variance)
