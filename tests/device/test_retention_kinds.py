"""Exponential decay, and drift and read noise in tables: by hand and by distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ohmformer.array import LEVELS, mvm, program
from ohmformer.device import drift, noise
from ohmformer.device.retention_kinds import Exponential
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.schema import validate
from ohmformer.streams import Stream
from tests.agreement.test_distribution import compare
from tests.build import array, cell

DECAY: dict[str, Any] = {"kind": "exponential", "tau": 2.0}
TABLE: dict[str, Any] = {
    "kind": "power_law_table", "t0": 10.0, "g": [0, 0.5, 1], "nu": [0.1, 0.06, 0.05], "nu_std": [0.04, 0.02, 0.01]
}  # fmt: skip
FLICKER: dict[str, Any] = {"kind": "flicker_table", "g": [0, 0.5, 1], "q": [0.04, 0.02, 0.01], "t_read": 1e-6}


def aged(g: float, age: float, eps: float = 0.0, **fields: Any) -> float:
    target = torch.tensor([g], dtype=torch.float64)
    return float(drift.drift(target, target, cell(**fields), torch.tensor([eps], dtype=torch.float64), age=age))


def test_a_charge_leaks_to_g_min_or_to_where_it_rests() -> None:
    assert aged(8e-6, 4.0, drift=DECAY) == pytest.approx(1e-7 + 7.9e-6 * math.exp(-2), rel=1e-12)
    assert aged(8e-6, 4.0, drift={**DECAY, "g_rest": 0.0}) == pytest.approx(8e-6 * math.exp(-2), rel=1e-12)
    assert aged(8e-6, 4.0, drift={**DECAY, "g_rest": 9e-6}) == pytest.approx(9e-6 - 1e-6 * math.exp(-2), rel=1e-12)
    stretched = {**DECAY, "g_rest": 0.0, "stretch": 0.5}
    assert aged(8e-6, 8.0, drift=stretched) == pytest.approx(8e-6 * math.exp(-2), rel=1e-12)
    spread = {**stretched, "tau_spread": 0.3}
    tau = 2.0 * math.exp(0.3 * 1.5)
    assert aged(8e-6, 8.0, 1.5, drift=spread) == pytest.approx(8e-6 * math.exp(-((8 / tau) ** 0.5)), rel=1e-12)
    assert aged(8e-6, 0.0, drift=spread) == 8e-6
    assert aged(8e-6, 1e9, drift=DECAY) == pytest.approx(1e-7, rel=1e-12)


def test_tau_follows_arrhenius_over_temperature() -> None:
    """tau exp(E_a / k (1 / T - 1 / T_ref)): 0.6 eV between 25 and 85 degC is a factor of 50.0."""
    leak = {**DECAY, "tau": "5 ms", "activation_energy": "600 meV", "tau_at": "25 degC"}
    cells = {
        at: validate(Cell, {"g_min": "0 S", "g_max": "10 uS", "drift": {**leak, "temperature": at}}, where="cell")
        for at in ("25 degC", "85 degC", "358.15 K", "0 degC")
    }
    tau = {at: each.drift.tau_now for at, each in cells.items() if isinstance(each.drift, Exponential)}
    assert tau["25 degC"] == 5e-3
    factor = math.exp(0.6 * 1.602176634e-19 / 1.380649e-23 * (1 / 298.15 - 1 / 358.15))
    assert tau["85 degC"] == pytest.approx(5e-3 / factor, rel=1e-8)
    assert tau["85 degC"] == tau["358.15 K"]
    assert factor == pytest.approx(50.0, rel=0.002)
    assert tau["0 degC"] > 5e-3
    target = torch.tensor([8e-6], dtype=torch.float64)
    left = drift.drift(target, target, cells["85 degC"], torch.zeros(1, dtype=torch.float64), age=1e-4)
    assert float(left) == pytest.approx(8e-6 * math.exp(-1e-4 * factor / 5e-3), rel=1e-8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "drift: g_rest = 12 uS is above g_max = 10 uS; correct one of them"),
        ({"g_ceiling": "11 uS"}, "drift: g_rest = 12 uS is above g_ceiling = 11 uS; correct one of them"),
        ({"g_ceiling": "12 uS"}, ""),
        ({"g_max": "12 uS"}, ""),
    ],
)
def test_a_conductance_in_the_end_beyond_the_range_is_refused(fields: dict[str, Any], message: str) -> None:
    table = {"g_min": "0 S", "g_max": "10 uS", **fields, "drift": {**DECAY, "tau": "2 s", "g_rest": "12 uS"}}
    if not message:
        assert validate(Cell, table, where="cell").drift.g_rest == 12e-6  # type: ignore[attr-defined]
        return
    with pytest.raises(BadInput, match=message) as caught:
        validate(Cell, table, where="cell")
    assert "\n" not in str(caught.value)


def test_hot_cells_lose_more_at_every_level() -> None:
    hot = {"activation_energy": 0.6, "tau_at": 298.15}
    held = []
    for temperature in (273.15, 298.15, 323.15, 358.15):
        kind = {**DECAY, **hot, "temperature": temperature}
        old = array(age=1.0, cell=cell(g_min=0.0, drift=kind))
        held.append([float(mvm(torch.ones(3), program(torch.ones(1, 3), old), level=level)) for level in LEVELS])
        assert max(held[-1]) - min(held[-1]) < 1e-5
    assert held == sorted(held, reverse=True)


@pytest.mark.parametrize(
    ("thermal", "message"),
    [
        ({"temperature": "85 degC"}, "temperature is given without activation_energy and tau_at; give all of"),
        ({"activation_energy": "1 eV", "tau_at": "300 K"}, "activation_energy is given without temperature; give all"),
        ({"activation_energy": "1 J", "tau_at": "300 K", "temperature": "300 K"}, "activation_energy"),
        ({"activation_energy": "1 eV", "tau_at": "-300 degC", "temperature": "300 K"}, "tau_at"),
        ({"activation_energy": "1 eV", "tau_at": 300, "temperature": "300 K"}, "tau_at = 300: has no unit"),
        (
            {"activation_energy": "9 eV", "tau_at": "1000 K", "temperature": "4 K"},
            "make tau .* s; correct them, or tau",
        ),
    ],
)
def test_a_temperature_that_cannot_be_used_is_refused_by_name(thermal: dict[str, Any], message: str) -> None:
    table = {"g_min": "0 S", "g_max": "10 uS", "drift": {**DECAY, "tau": "2 s", **thermal}}
    with pytest.raises(BadInput, match=message):
        validate(Cell, table, where="cell")


def test_ages_far_beyond_tau_leave_nothing_and_no_nan() -> None:
    steep = {**DECAY, "tau": 1e-15, "stretch": 10.0, "tau_spread": 1.0}
    assert aged(8e-6, 1e11, -3.0, drift=steep) == pytest.approx(1e-7, rel=1e-12)


def test_exponents_and_read_noise_are_linear_between_points_of_their_tables() -> None:
    assert aged(2.5e-6, 1000.0, 2.0, drift=TABLE) == pytest.approx(2.5e-6 * 100 ** -(0.08 + 2 * 0.03), rel=1e-12)
    assert aged(2.5e-6, 1000.0, -9.0, drift=TABLE) == pytest.approx(2.5e-6 * 100 ** -(9 * 0.03 - 0.08), rel=1e-12)
    assert aged(2.5e-6, 10.0, drift=TABLE) == 2.5e-6
    g, before = torch.tensor([2e-6], dtype=torch.float64), torch.tensor([2.5e-6], dtype=torch.float64)
    found = float(noise.read_std(g, cell(read_noise=FLICKER), age=86400.0, written=before))
    assert found == pytest.approx(2e-6 * 0.03 * math.sqrt(math.log(86400.000001 / 2e-6)), rel=1e-12)
    above = torch.tensor([2e-5], dtype=torch.float64)
    assert float(noise.read_std(above, cell(read_noise=FLICKER), age=1.0)) > 0, "beyond G_max the last value holds"


@pytest.mark.parametrize("bits", ["ideal", 6])
@pytest.mark.parametrize("kind", [{**DECAY, "tau_spread": 0.4, "stretch": 0.8}, TABLE])
def test_levels_cell_and_array_agree(kind: dict[str, Any], bits: Any) -> None:
    """Mean, variance and distribution: each comparison rejects a true hypothesis with probability 1e-4."""
    age = 3.0 if kind["kind"] == "exponential" else 86400.0
    hardware = array(rows=16, adc={"bits": bits}, age=age, cell=cell(g_min=0.0, drift=kind, read_noise=FLICKER))
    w = torch.randn(5, 22, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    programmed = program(w, hardware, stream=2)
    x = torch.linspace(-1, 1, 22, dtype=torch.float64).expand(2000, 1, 22)
    found = [mvm(x, programmed, level=level, stream=Stream(7, level)).squeeze(1) for level in ("array", "cell")]  # type: ignore[arg-type]
    compare(*(y.numpy().round(9) for y in found))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"drift": {**TABLE, "g": [0, 0.5]}}, "g must begin with 0 and end with 1"),
        ({"drift": {**TABLE, "g": [0, 1, 0.5]}}, "g must rise"),
        ({"drift": {**TABLE, "nu": [0.1, 0.2]}}, "nu has 2 values for 3 of g; give one for each"),
        ({"read_noise": {**FLICKER, "q": [0.1]}}, "q has 1 values for 3 of g"),
        ({"drift": {**DECAY, "stretch": 0.0}}, "stretch"),
        ({"drift": {**DECAY, "tau": -1.0}}, "tau"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Cell(g_min=1e-7, g_max=1e-5, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
