"""Drift against values computed by hand."""

import pytest
import torch

from ohmformer.array import program
from ohmformer.device import drift
from tests.build import PCM_DRIFT, array, cell

POWER_LAW = {"kind": "power_law", "t0": 1.0, "nu": 0.05}


def siemens(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_power_law() -> None:
    """100^-0.05 = 0.794328; nothing before t0."""
    rram, g = cell(drift=POWER_LAW), siemens(1e-5, 1e-6)
    eps = torch.zeros_like(g)
    torch.testing.assert_close(drift.drift(g, g, rram, eps, age=100.0), g * 0.7943282347)
    assert drift.drift(g, g, rram, eps, age=0.5) is g
    assert not drift.drifts(rram, 1.0)


def test_the_exponent_of_a_cell_is_never_negative() -> None:
    spread = cell(drift={**POWER_LAW, "nu_std": 0.02})
    found = spread.drift.exponent(siemens(1e-6, 1e-6), spread, siemens(1.0, -5.0))
    torch.testing.assert_close(found, siemens(0.07, 0.0))


def test_exponents_of_phase_change_memory() -> None:
    """At full scale both are held at their bounds: 0.049 and 0.008. At 1 %: 0.0155 * 4.60517 + 0.0244 = 0.0957801, and
    0.0125 * 4.60517 - 0.0059 = 0.0517, held at 0.045."""
    pcm = cell(g_min=0.0, g_max=25e-6, drift=PCM_DRIFT)
    target = siemens(25e-6, 0.25e-6, 0.25e-6)
    found = pcm.drift.exponent(target, pcm, siemens(1.0, 0.0, -3.0))
    torch.testing.assert_close(found, siemens(0.057, 0.0957801, 0.0392199), rtol=1e-5, atol=0)
    later = drift.drift(target, target, pcm, torch.zeros(3, dtype=torch.float64), age=2000.0)
    factors = siemens(100**-0.049, 100**-0.0957801, 100**-0.0957801)
    torch.testing.assert_close(later / target, factors, rtol=1e-5, atol=0)


def test_programmed_cells_have_drifted_by_the_age_of_the_array() -> None:
    hardware = array(cell=cell(g_min=0.0, drift=POWER_LAW), age=100.0)
    cells = program(torch.tensor([[1.0]], dtype=torch.float64), hardware).digits
    assert float(cells[0, 0, 0, 0]) == pytest.approx(3 * 0.7943282347)
    young = array(cell=cell(drift=POWER_LAW))
    assert torch.equal(program(torch.ones(1, 1), young).digits[0], torch.full((4, 1, 1), 3.0))
