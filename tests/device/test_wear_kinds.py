"""Wear: its formulas by hand, which cells are stuck as writes go on, and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ohmformer.device import faults
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.schema import validate
from tests.build import cell

WEIBULL: dict[str, Any] = {"kind": "weibull", "shape": 1.7, "stuck_at_g_max": 0.3}


def worn(writes: float, **fields: Any) -> Cell:
    wear = {**WEIBULL, **fields.pop("wear", {})}
    return cell(**{"endurance": 1e6, "wear": wear, **fields}).worn(writes)


def test_the_share_of_stuck_cells_is_a_weibull_distribution() -> None:
    """1 - exp(-(N / N_63)^k): 63 % at the endurance; pulses, not writes, count."""
    for writes in (1e3, 4e5, 1e6, 3e6):
        share = 1 - math.exp(-((writes / 1e6) ** 1.7))
        (_, low), (_, high) = worn(writes).faults.states()[2:]
        assert (low, high) == pytest.approx((0.7 * share, 0.3 * share), rel=1e-9)
        (_, low), (_, high) = worn(writes / 3, write_pulses=3).faults.states()[2:]
        assert (low, high) == pytest.approx((0.7 * share, 0.3 * share), rel=1e-9)
    assert sum(p for _, p in worn(1e6).faults.states()) == pytest.approx(1 - 1 / math.e)
    assert sum(p for _, p in worn(1e20, wear={"shape": 100}).faults.states()) == pytest.approx(1.0)
    assert cell(endurance=1e6, wear={"stuck_at_g_max": 0.5}).wear.shape == 2.0, "the shape that is assumed"


def test_cells_without_wear_writes_or_an_end_of_their_endurance_are_never_stuck() -> None:
    new = cell(endurance=1e6, wear=WEIBULL)
    assert new.worn(0.0) is new
    assert cell().worn(1e9) == cell()
    endless = cell(endurance=math.inf, wear=WEIBULL)
    assert endless.worn(1e19) is endless


@pytest.mark.parametrize("kind", [{}, {"stuck_at_g_min": 0.1, "stuck_at_g_max": 0.05}])
def test_a_cell_that_is_stuck_stays_stuck_at_the_same_end(kind: dict[str, float]) -> None:
    g, u = torch.full((200_000,), 5e-6), torch.rand(200_000, generator=torch.Generator().manual_seed(1))
    last = faults.apply_faults(g, cell(faults=kind), u)
    for writes in torch.logspace(3, 8, 30).tolist():
        held = faults.apply_faults(g, worn(writes, faults=kind), u)
        stuck = last != 5e-6
        assert torch.equal(held[stuck], last[stuck])
        share = float((held != 5e-6).double().mean())
        expected = 1 - (1 - sum(kind.values())) * math.exp(-((writes / 1e6) ** 1.7))
        assert abs(share - expected) < 5.5 * math.sqrt(expected * (1 - expected) / 200_000) + 1e-5  # 4e-8
        last = held
    assert bool((last != 5e-6).all())


def test_where_worn_cells_are_stuck_follows_the_faults_unless_it_is_given() -> None:
    of_faults = worn(1e6, wear={"stuck_at_g_max": None}, faults={"stuck_at_g_min": 0.03, "stuck_at_g_max": 0.01})
    (_, low), (_, high) = of_faults.faults.states()[2:]
    assert low / high == pytest.approx(3)
    (_, low), (_, high) = worn(1e6, faults={"stuck_at_g_min": 0.03, "stuck_at_g_max": 0.01}).faults.states()[2:]
    assert low / high == pytest.approx(7 / 3)


@pytest.mark.parametrize(("moves", "ends"), [("top", (0, 0.85)), ("bottom", (0.15, 1)), ("both", (0.075, 0.925))])
def test_the_window_shrinks_with_the_logarithm_of_writes(moves: str, ends: tuple[float, float]) -> None:
    """1 - w log10(1 + N / N_0) at N = 999 N_0 and w = 0.05."""
    found = cell(endurance=1e9, wear={**WEIBULL, "w": 0.05, "n0": 1e4, "moves": moves})
    assert found.window(999e4) == pytest.approx(ends, rel=1e-12)
    assert found.window(0.0) == (0.0, 1.0)
    assert worn(1e9).window(1e9) == (0.0, 1.0), "constant unless w and n0 are given"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"endurance": None}, "wear: 'weibull' needs the endurance of the cell; give endurance"),
        ({"wear": {"kind": "weibull"}}, "wear: nothing says whether worn cells are stuck .* give wear.stuck_at_g_max"),
        ({"wear": {**WEIBULL, "w": 0.1}}, "wear: w is given without n0; give both"),
        ({"wear": {**WEIBULL, "n0": 10.0}}, "wear: n0 is given without w; give both"),
        ({"wear": {**WEIBULL, "shape": 0.0}}, "wear.shape"),
        ({"wear": {**WEIBULL, "stuck_at_g_max": 1.5}}, "wear.stuck_at_g_max"),
        ({"wear": {**WEIBULL, "moves": "up"}}, "wear.moves"),
        ({"wear": {"kind": "weibull", "stuck_high": 0.5}}, "stuck_high: is now called stuck_at_g_max; rename it"),
        ({"wear": {**WEIBULL, "w": 0.1, "n0": 0.0}}, "wear.n0"),
        ({"wear": {**WEIBULL, "w": math.nan, "n0": 1.0}}, "wear.w"),
        ({"wear": {"kind": "worn"}}, "wear"),
        ({"faults": {"kind": "worn"}}, "faults"),
    ],
)
def test_wear_that_cannot_be_used_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        validate(Cell, {"g_min": "0.1 uS", "g_max": "10 uS", "endurance": 1e6, "wear": WEIBULL, **fields}, where="cell")


def test_the_endurance_decides_numbers_only_where_there_is_wear() -> None:
    assert "endurance" not in cell(endurance=1e6).physical()
    with_wear = cell(endurance=1e6, write_pulses=2, wear=WEIBULL).physical()
    assert (with_wear["endurance"], with_wear["write_pulses"]) == (1e6, 2)
