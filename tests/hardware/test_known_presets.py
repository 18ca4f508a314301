"""Settings that users of other programs know, under their names: the numbers of the originals, by hand."""

from __future__ import annotations

import math

import pytest
import torch

import ohmformer as of
from ohmformer.array import mvm, program
from ohmformer.array.converters import full_scale
from ohmformer.schema import replace


def test_aihwkit_units() -> None:
    """254 steps from -1 to 1 and from -10 to 10, noise 0.04, for weights up to 1."""
    array = of.load_crossbar("aihwkit_standard_preset")
    unit = array.max_code * array.max_input(signed=True)
    top = full_scale(array, signed=True)[1]
    assert array.max_input(signed=True) == 127
    assert array.adc.range.kind == "given"
    assert array.adc.range.high * top / unit == pytest.approx(10)
    assert array.peripherals.output_noise * 2 * array.adc.range.high * top / unit == pytest.approx(0.04)


def test_aihwkit_read_noise_follows_the_conductance() -> None:
    """w_noise 0.0175 of type PCM_READ: standard deviation 0.0175 sqrt(sum of |w| x^2)."""
    array = of.load_crossbar("aihwkit_standard_preset")
    for path, value in (("wires", None), ("cell.write_noise", {"kind": "none"}), ("peripherals", {})):
        array = replace(array, path, value)
    array = replace(array, "adc", {"bits": "ideal"})
    torch.manual_seed(0)
    w, x = torch.rand(1, 60) * 2 - 1, (torch.randint(-127, 128, (60,)) / 127)
    y = mvm(x.expand(20_000, -1), program(w, array, w_range=1.0), x_range=1.0, stream=1)
    expected = 0.0175 * math.sqrt(float(w.abs()[0] @ x.square()))
    assert float(y.std()) == pytest.approx(expected, rel=0.025)  # five standard errors of 0.5 %


def test_aihwkit_wires_have_the_ratio_of_the_original() -> None:
    """Conductance of a segment over G_max: 1 / 0.35 ohm / 5 uS."""
    array = of.load_crossbar("aihwkit_standard_preset")
    assert array.wires is not None
    assert 1 / array.wires.column / array.cell.g_max == pytest.approx(1 / 0.35 / 5e-6)


def test_aihwkit_drift_is_compensated() -> None:
    """GlobalDriftCompensation: after a year of uncompensated drift, half of a product would be left."""
    array = replace(of.load_crossbar("aihwkit_standard_preset"), "age", 365 * 86400.0)
    torch.manual_seed(0)
    w, x = torch.rand(40, 200) * 2 - 1, torch.randint(-127, 128, (60, 200)) / 127
    exact, left = x @ w.T, []
    for how in ("global", "none"):
        aged = replace(array, "drift_compensation", how) if how == "none" else array
        y = mvm(x, program(w, aged, w_range=1.0, stream=1), x_range=1.0, stream=2)
        left.append(float((y * exact).sum() / exact.square().sum()))
    assert left[0] == pytest.approx(1, abs=0.05)
    assert left[1] < 0.6


def test_crosssim_independent_errors_are_shares_of_g_max() -> None:
    """Conductances are over G_max there, so a magnitude of 0.05 of NormalIndependent is sigma = 0.05 / 0.9 here."""
    array = of.load_crossbar("crosssim_default")
    noise = {"kind": "uniform", "sigma": 0.05 / (1 - 1000 / 10_000)}
    array = replace(replace(array, "cell.write_noise", noise), "cell.read_noise", noise)
    g = torch.linspace(array.cell.g_min, array.cell.g_max, 5, dtype=torch.float64)
    assert (1 / array.cell.g_max, 1 / array.cell.g_min) == pytest.approx((1000, 10_000))
    written, read = array.cell.write_noise, array.cell.read_noise
    assert written.write_std(g, array.cell).tolist() == pytest.approx([0.05 * array.cell.g_max] * 5)
    assert read.read_std(g, array.cell, age=1.0, written=None).tolist() == pytest.approx([0.05 * array.cell.g_max] * 5)


@pytest.mark.parametrize("name", ["aihwkit_standard_preset", "crosssim_default"])
def test_a_model_runs_with_weights_in_arrays_and_attention_digital(name: str) -> None:
    torch.manual_seed(0)
    x, model = torch.randn(4, 20), torch.nn.Sequential(torch.nn.Linear(20, 5))
    exact = model(x)
    converted = of.convert(model, of.load(name), sample=x, level="array")
    with of.samples(range(4)), torch.no_grad():
        error = float((converted(x) - exact).norm() / exact.norm())
    assert error < (0.2 if name == "aihwkit_standard_preset" else 1e-3)
