"""Endurance in measurements over cycles: noise is no wear, and worn cells say nothing of write noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ohmformer as of
from ohmformer.fitting.fit import fit_cell


@pytest.mark.parametrize("wears", [True, False])
def test_endurance_is_where_the_window_is_half(wears: bool) -> None:
    rng, rows = np.random.default_rng(6), []
    for cycle in (1, 10, 100, 1000):
        window = 10e-6 / (1 + (cycle / 300 if wears else 0))
        rows += [
            (cycle, t, (1e-6 if t == 1e-6 else 1e-6 + window) + 1e-8 * rng.standard_normal()) for t in (1e-6, 11e-6) * 8
        ]
    fit = fit_cell(dict(zip(("cycle", "target", "measured"), map(list, zip(*rows, strict=True)), strict=True)))
    assert fit.endurance == (1000.0, wears)


def cycled(cycles: list[int], cells: int, deviation: float, worn_from: float = math.inf) -> dict[str, list[float]]:
    """Targets of 1 and 10 uS with proportional noise; from a cycle on, a tenth of the window is left."""
    rng, rows = np.random.default_rng(8), []
    for cycle in cycles:
        for target in (1e-6, 10e-6) * cells:
            held = 1e-6 + (target - 1e-6) * (0.1 if cycle >= worn_from else 1.0)
            rows.append((cycle, target, held * (1 + deviation * rng.standard_normal())))
    return dict(zip(("cycle", "target", "measured"), map(list, zip(*rows, strict=True)), strict=True))


def test_noise_does_not_look_like_wear() -> None:
    """One cell at a time: the noise of a single window of 1,000 reached half of the first one."""
    for deviation in (0.15, 0.2):
        assert fit_cell(cycled(list(range(1, 1001)), 1, deviation)).endurance == (1000.0, False)
    worn, is_worn = fit_cell(cycled(list(range(1, 1001)), 1, 0.15, worn_from=700)).endurance or (0.0, False)
    assert is_worn
    assert abs(worn - 700) <= 3


def test_worn_cells_do_not_count_as_write_noise() -> None:
    fit = fit_cell(cycled([1, 10, 100, 1000, 10_000], 30, 0.1, worn_from=1000))
    assert fit.endurance == (1000.0, True)
    assert len(fit.measured.target) == 180
    assert fit.chosen.kind == "proportional"
    assert fit.chosen.values["sigma"] == pytest.approx(0.1, abs=4 * 0.1 / math.sqrt(2 * 180))
    with pytest.raises(of.BadInput, match="has 4 measurements just after a write of cells that are not worn out, "):
        fit_cell(cycled([1, 10, 100, 1000, 10_000], 1, 0.01, worn_from=100))


def test_a_window_that_is_never_open_has_no_endurance() -> None:
    table = cycled([1, 10], 20, 0.1)
    table["measured"] = [11e-6 - g for g in table["measured"]]
    assert fit_cell(table).endurance is None
