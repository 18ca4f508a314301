"""What cells really hold after a write, against closed forms; and the formulas against numbers worked out by hand.

Measured moments lie within 5 standard errors: a false alarm once in 1.7 million comparisons; seeds are fixed.
"""

from math import erf, exp, isinf, log, pi, sqrt
from typing import Any

import numpy as np
import pytest
import torch

from ohmformer.array import program
from ohmformer.device import noise
from tests.build import FLICKER, LOGNORMAL, POLYNOMIAL, SQRT_RANGE, array, cell

CEILING = 1.05e-5


def censored(mu: float, s: float, low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of a normal that is clamped at two bounds."""
    if s == 0:
        return min(max(mu, low), high), 0.0
    a, b = (low - mu) / s, (high - mu) / s
    below, above = cumulative(a), 1 - cumulative(b)
    inside, pa, pb = 1 - below - above, density(a), density(b)
    top, top2 = (0.0, 0.0) if isinf(high) else (high * above, high**2 * above)
    mean = low * below + top + mu * inside + s * (pa - pb)
    bpb = 0.0 if isinf(high) else b * pb
    second = low**2 * below + top2 + (mu**2 + s**2) * inside + 2 * mu * s * (pa - pb) + s**2 * (a * pa - bpb)
    return mean, sqrt(second - mean**2)


def cumulative(z: float) -> float:
    return (1 + erf(z / sqrt(2))) / 2


def density(z: float) -> float:
    return exp(-z * z / 2) / sqrt(2 * pi)


def written(digit: int, **fields: Any) -> np.ndarray:
    """Conductances [S] of many cells that were written to one digit of 2-bit cells."""
    hardware = array(bits=2, rows=1024, columns=1024, cell=cell(**fields))
    w = torch.full((300, 400), digit / 3, dtype=torch.float64)
    programmed = program(w, hardware, w_range=1.0, stream=digit)
    return (hardware.cell.g_min + hardware.step * programmed.digits[0, 0]).numpy().ravel()


def check(g: np.ndarray, mean: float, std: float) -> None:
    n = g.size
    assert abs(g.mean() - mean) <= 5 * g.std() / sqrt(n) + 1e-12
    fourth = ((g - g.mean()) ** 4).mean()
    error = sqrt(max(fourth - g.var() ** 2, 0.0) / n) / (2 * std) if std else 0.0
    assert abs(g.std() - std) <= 5 * error + 1e-12


STRONG = [
    ({"kind": "sqrt_range", "gamma": 7.0, "sigma": 0.1}, lambda g: 0.7 * sqrt((g - 1e-7) * 9.9e-6)),
    ({"kind": "proportional", "sigma": 0.5}, lambda g: 0.5 * g),
    ({"kind": "uniform", "sigma": 0.3}, lambda g: 0.3 * 9.9e-6),
    (POLYNOMIAL, lambda g: 1e-5 / 25e-6 * (0.26348e-6 + 1.9650e-6 * (g / 1e-5) - 1.1731e-6 * (g / 1e-5) ** 2)),
]


@pytest.mark.parametrize("ceiling", [None, CEILING])
@pytest.mark.parametrize("digit", [0, 1, 2, 3])
@pytest.mark.parametrize(("write_noise", "std"), STRONG, ids=[kind["kind"] for kind, _ in STRONG])
def test_written_conductances_are_a_censored_normal(
    write_noise: Any, std: Any, digit: int, ceiling: float | None
) -> None:
    target = 1e-7 + digit * 3.3e-6
    g = written(digit, write_noise=write_noise, g_ceiling=ceiling)
    check(g, *censored(target, std(target), 0.0, float("inf") if ceiling is None else ceiling))


@pytest.mark.parametrize("digit", [0, 2])
def test_lognormal(digit: int) -> None:
    target, variance = 1e-7 + digit * 3.3e-6, LOGNORMAL["sigma"] ** 2
    mean, std = target * exp(variance / 2), target * sqrt(exp(variance) * (exp(variance) - 1))
    check(written(digit, write_noise=LOGNORMAL), mean, std)
    predicted = noise.write_std(torch.tensor(target, dtype=torch.float64), cell(write_noise=LOGNORMAL))
    assert float(predicted) == pytest.approx(std, rel=1e-12)


def test_sqrt_range_is_silent_at_g_min_and_gamma_0_everywhere() -> None:
    w = torch.tensor([[0.0, 1.0, -1.0, 0.3]])
    noisy = program(w, array(cell=cell(write_noise=SQRT_RANGE)), stream=1)
    assert bool((noisy.digits[:, :, 0, 0] == 0).all())
    assert bool((noisy.digits[1, :, 0, 1] == 0).all())
    assert bool((noisy.digits[0, :, 0, 2] == 0).all())
    assert bool((noisy.digits[0, :, 0, 1] != 3).all())
    still = program(w, array(cell=cell(write_noise={**SQRT_RANGE, "gamma": 0.0})), stream=1)
    ideal = program(w, array(), stream=1)
    assert torch.equal(still.digits, ideal.digits)


@pytest.mark.parametrize(("microsiemens", "expected"), [(0, 0.26348), (12.5, 0.952705), (25, 1.05538)])
def test_programming_noise_of_phase_change_memory(microsiemens: float, expected: float) -> None:
    """Joshi et al. 2020, by hand: 0.26348 + 1.9650 / 2 - 1.1731 / 4 = 0.952705 uS at half of 25 uS."""
    g = torch.tensor(microsiemens * 1e-6, dtype=torch.float64)
    pcm = cell(g_min=0.0, g_max=25e-6, write_noise=POLYNOMIAL)
    assert float(noise.write_std(g, pcm)) == pytest.approx(expected * 1e-6, rel=1e-6)
    half = cell(g_min=0.0, g_max=12.5e-6, write_noise=POLYNOMIAL)
    assert float(noise.write_std(g / 2, half)) == pytest.approx(expected / 2 * 1e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("relative", "q"),
    [(1.0, 0.0088), (0.01, 0.0088 / 10**-1.3), (1e-4, 0.2), (0.0, 0.2)],
    ids=["full", "1 %", "tiny", "zero"],
)
def test_read_noise_of_phase_change_memory(relative: float, q: float) -> None:
    """After 20 s: sqrt(ln(20 s / 500 ns)) = 4.18383; of cells that have drifted to half of what they were."""
    pcm = cell(g_min=0.0, g_max=25e-6, read_noise=FLICKER)
    written = torch.tensor(relative * 25e-6, dtype=torch.float64)
    std = noise.read_std(written / 2, pcm, age=20.0, written=written)
    assert float(std) == pytest.approx(relative * 12.5e-6 * q * 4.18383, rel=1e-5)
    assert float(noise.read_std(written, pcm, age=0.0)) == 0
    assert log((20 + 250e-9) / 500e-9) == pytest.approx(4.18383**2, rel=1e-5)
