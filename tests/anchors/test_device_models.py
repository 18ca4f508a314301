"""Numbers that other simulators and papers give for real devices, against the cells of the library.

T1 is a draw of noise in a tutorial of CrossSim. All others are deviations, drift and read noise of published models at
conductances that their sources do not state: they show that no number was lost on the way into a cell.
"""

from __future__ import annotations

import math

import pytest
import torch

from ohmformer.array.crossbar import program
from ohmformer.device import drift, noise
from ohmformer.device.spec import Cell
from ohmformer.schema import load
from tests.build import array

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0


def deviations(cell: Cell, shares: tuple[float, ...] = SHARES) -> list[float]:
    """Standard deviations of a write [uS] at shares of G_max."""
    g = torch.tensor(shares, dtype=torch.float64) * cell.g_max
    return [1e6 * value for value in noise.write_std(g, cell).tolist()]


def left(cell: Cell, share: float, age: float) -> float:
    """What is left of a conductance at an age, with the mean exponent."""
    g = torch.tensor([share * cell.g_max], dtype=torch.float64)
    return float(drift.drift(g, g, cell, torch.zeros_like(g), age=age) / g)


def read(cell: Cell, share: float, age: float) -> float:
    """Standard deviation of a read as a share of the present conductance."""
    g = torch.tensor([share * cell.g_max], dtype=torch.float64)
    return float(noise.read_std(g, cell, age=age, written=g) / g)


def dft_error(points: int, ratio: float, sigma: float, encoding: str) -> float:
    """Mean absolute error of the complex weights of a discrete Fourier transform, with proportional write noise.

    Weights of 8 bits in one slice. CrossSim subtracts an offset in digital logic, so reference columns play no part.
    """
    phase = 2 * math.pi / points * torch.outer(*[torch.arange(points, dtype=torch.float64)] * 2)
    hardware = array(
        rows=points, columns=points, encoding=encoding, bits=8 if encoding == "offset" else 7,
        bits_per_cell=8 if encoding == "offset" else 7,
        cell=Cell(r_on="1 kohm", on_off_ratio=ratio, write_noise={"kind": "proportional", "sigma": sigma}),  # type: ignore[call-arg,arg-type]
    )  # fmt: skip
    squares = torch.zeros_like(phase)
    for stream, weights in enumerate((phase.cos(), -phase.sin())):
        programmed = program(weights, hardware, w_range=1.0, stream=stream)
        cells = programmed.digits[:, 0]
        codes = cells[0] - (cells[1] if encoding == "differential" else 2.0 ** (hardware.bits - 1))
        squares += (codes * programmed.unit - weights).square()
    return float(squares.sqrt().mean())


@pytest.mark.parametrize(
    ("points", "ratio", "sigma", "encoding", "reported"),
    [
        (64, 1000, 0.25, "differential", 0.21637),
        (64, 1000, 0.25, "offset", 0.34244),
    ],
)
def test_t1_errors_of_fourier_weights_in_the_tutorial_of_crosssim(
    points: int, ratio: float, sigma: float, encoding: str, reported: float
) -> None:
    """One draw there and one here: within 3 %, since a draw varies by 1 %.

    docs/validation.md also has the tutorial's results for 256 points, three of which are missed: no single setting
    known here explains all four.
    """
    assert dft_error(points, ratio, sigma, encoding) == pytest.approx(reported, rel=0.03)


def test_t2_phase_change_memory_as_aihwkit_has_it() -> None:
    cell = load(Cell, "pcm_joshi_2020")
    assert deviations(cell) == pytest.approx([0.2635, 0.4482, 0.6814, 0.9527, 1.0774, 1.0554], abs=1e-4)
    for share, expected in ((0.25, (0.7751, 0.6635, 0.4969)), (1.0, (0.7751, 0.6635, 0.4969)),
                            (0.1, (0.7317, 0.6047, 0.4242))):  # fmt: skip
        found = [left(cell, share, age) for age in (HOUR, DAY, YEAR)]
        assert found == pytest.approx(expected, abs=1e-3)
    for share, expected in ((1.0, (0.0368, 0.0419, 0.0448)), (0.5, (0.0578, 0.0658, 0.0702)),
                            (0.1, (0.1645, 0.1873, 0.2000))):  # fmt: skip
        found = [read(cell, share, age) for age in (20.0, 3620.0, DAY)]
        assert found == pytest.approx(expected, abs=2e-4)


def test_t3_phase_change_memory_as_crosssim_has_it_lies_within_9_percent() -> None:
    cell, other = load(Cell, "pcm_joshi_2020_crosssim"), load(Cell, "pcm_joshi_2020")
    by_hand = [-0.00178767 * g**2 + 0.07585724 * g + 0.28638599 for g in (25 * share for share in SHARES)]
    assert deviations(cell) == pytest.approx(by_hand, rel=1e-9)
    ratios = [one / two for one, two in zip(deviations(cell), deviations(other), strict=True)]
    assert 0.91 <= min(ratios) < max(ratios) <= 1.09


@pytest.mark.parametrize(
    ("name", "t0", "expected"),
    [
        ("pcm_hermes_2023_two_devices", 300.0, [0.1660, 0.5577, 0.8888, 0.9910, 0.9124, 1.0927]),
        ("pcm_hermes_2023_one_device", 200.0, [0.1578, 0.3693, 0.6145, 0.8653, 0.9748, 1.0076]),
    ],
)
def test_t4_hermes(name: str, t0: float, expected: list[float]) -> None:
    """Drift and read noise against the formulas of aihwkit, at points that the tables do not have: within 3 %."""
    cell = load(Cell, name)
    assert deviations(cell) == pytest.approx(expected, abs=6e-5)
    two = "two" in name
    for share in (0.017, 0.066, 0.13, 0.27, 0.35, 0.55, 0.95):
        low = min(max(-0.0387 * math.log(share) - 0.0182, 0.072), 0.13)
        nu = low if share < 0.0945 else -0.0436 * share**2 - 0.0126 * share + 0.0736
        assert math.log(left(cell, share, 50 * t0)) == pytest.approx(-nu * math.log(50), rel=0.03)
        if two:
            low, high = (
                -0.0117 * math.log(share) - 0.0069,
                0.0069 * share**3 - 0.028 * share**2 + 0.0211 * share + 0.0123,
            )
            q = min(max(low, 0.015), 0.04) if share < 0.16 else high
        else:
            low = -0.0078 * math.log(share) + 0.0038
            high = 0.0664 * share**3 - 0.1352 * share**2 + 0.0768 * share + 0.0088
            q = min(max(low, 0.0179), 0.04) if share < 0.1591 else high
        growth = math.sqrt(math.log((DAY + 512e-9) / (2 * 512e-9)))
        assert read(cell, share, DAY) == pytest.approx(q * growth, rel=0.03)


def test_t5_two_readings_of_neurram_and_the_rram_of_milo() -> None:
    aihwkit, crosssim = load(Cell, "rram_neurram_2022_aihwkit"), load(Cell, "rram_neurram_2022_crosssim")
    quartics: dict[float, list[float]] = {
        1.0: [0.348, 16.030, -43.853, 45.393, -16.815],
        DAY: [0.701, 22.086, -50.773, 47.095, -16.458],
        2 * DAY: [0.782, 20.274, -43.507, 37.062, -11.934],
    }
    for age, quartic in quartics.items():
        by_hand = [sum(c * share**k for k, c in enumerate(quartic)) for share in SHARES]
        assert deviations(aihwkit.at_age(age)) == pytest.approx(by_hand, rel=1e-9)
    g = [share * 39.26 for share in SHARES]
    cubic = [1.536e-4 * x**3 - 1.167e-2 * x**2 + 2.374e-1 * x + 1.053 for x in g]
    assert deviations(crosssim) == pytest.approx(cubic, rel=1e-8)
    first = deviations(aihwkit, tuple(x / 40 for x in g))
    ratios = [one / two for one, two in zip(deviations(crosssim), first, strict=True)]
    assert ratios[0] == pytest.approx(3, rel=0.02)
    assert all(0.81 <= ratio <= 1.19 for ratio in ratios[2:5])
    milo = load(Cell, "rram_milo_2021")
    assert (milo.g_min, milo.g_max) == pytest.approx((50e-6, 225e-6), rel=1e-9)
    assert deviations(milo, (50 / 225, 1.0)) == pytest.approx([4.782 - 0.009107 * 50, 4.782 - 0.009107 * 225], abs=1e-3)


def test_t6_the_cells_of_analog_foundation_models() -> None:
    cell = load(Cell, "pcm_analog_foundation_models_2025")
    percent = [100 * value / 180 for value in deviations(cell)]
    assert percent == pytest.approx([0, 3.10, 4.35, 4.69, 5.49, 10.67], abs=0.01)
    below, above = deviations(cell, (0.5999 / 180, 0.6001 / 180))
    assert (below, 100 * above / 180) == (0.0, pytest.approx(1.51, abs=0.005))


TENTHS = tuple(n / 10 for n in range(11))


@pytest.mark.parametrize(
    ("name", "cubic"),
    [
        ("pcm_hermes_2023_two_devices", (0.16603222, 4.71806468, -8.48101252, 4.68961419)),
        ("pcm_hermes_2023_one_device", (0.15781817, 2.32443916, -2.16310839, 0.68841818)),
    ],
)
def test_write_noise_of_hermes_at_every_tenth_of_its_range(name: str, cubic: tuple[float, ...]) -> None:
    by_hand = [sum(c * share**k for k, c in enumerate(cubic)) for share in TENTHS]
    assert deviations(load(Cell, name), TENTHS) == pytest.approx(by_hand, rel=1e-8)


@pytest.mark.parametrize("age", [1.0, 60.0, HOUR, 10 * HOUR, DAY, 1.5 * DAY, 2 * DAY])
def test_neurram_between_the_times_of_its_source(age: float) -> None:
    """aihwkit interpolates the coefficients linearly in the logarithm of time."""
    quartics = ((0.348, 16.030, -43.853, 45.393, -16.815), (0.701, 22.086, -50.773, 47.095, -16.458),
                (0.782, 20.274, -43.507, 37.062, -11.934))  # fmt: skip
    (t0, earlier), (t1, later) = ((1.0, quartics[0]), (DAY, quartics[1])) if age <= DAY else (
        (DAY, quartics[1]), (2 * DAY, quartics[2]))  # fmt: skip
    part = math.log(age / t0) / math.log(t1 / t0)
    between = [(1 - part) * a + part * b for a, b in zip(earlier, later, strict=True)]
    by_hand = [max(0.0, sum(c * share**k for k, c in enumerate(between))) for share in TENTHS]
    assert deviations(load(Cell, "rram_neurram_2022_aihwkit").at_age(age), TENTHS) == pytest.approx(by_hand, rel=1e-8)


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0])
def test_exponents_and_read_noise_of_phase_change_memory_at_further_conductances(share: float) -> None:
    """Means are -0.0155 ln x + 0.0244 from 0.049 to 0.1, spreads -0.0125 ln x - 0.0059 from 0.008 to 0.045."""
    cell = load(Cell, "pcm_joshi_2020")
    mean = min(max(-0.0155 * math.log(share) + 0.0244, 0.049), 0.1)
    spread = min(max(-0.0125 * math.log(share) - 0.0059, 0.008), 0.045)
    g = torch.full((3,), share * cell.g_max, dtype=torch.float64)
    eps = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    found = (drift.drift(g, g, cell, eps, age=HOUR) / g).log() / -math.log(HOUR / 20.0)
    assert found.tolist() == pytest.approx([abs(mean + spread * e) for e in (-1, 0, 2)], rel=1e-6)
    q = min(0.2, 0.0088 / share**0.65)
    growth = math.sqrt(math.log((HOUR + 250e-9) / (2 * 250e-9)))
    assert read(cell, share, HOUR) == pytest.approx(q * growth, rel=1e-6)


def test_analog_foundation_models_just_beside_their_borders() -> None:
    cell = load(Cell, "pcm_analog_foundation_models_2025")
    middle = (2.5797410660159494, 0.22419685954327148, -0.00371581208142707, 2.939751381126213e-05)
    upper = (2.110295720240385, 0.2453487119885723, -0.003054993405157235, 1.2329755395573392e-05)
    for g, piece in ((0.3, (0.0,)), (0.7, middle), (20.0, middle), (52.4, middle), (52.6, upper), (180.0, upper)):
        by_hand = sum(c * g**k for k, c in enumerate(piece))
        assert deviations(cell, (g / 180,)) == pytest.approx([by_hand], rel=1e-6)


TIME_CONSTANTS = {
    "gain_cell_leroux_2025": 5e-3,
    "gain_cell_igzo_2022": 1e4,
    "gain_cell_igzo_2022_85c": 7e3,
    "gain_cell_ito_2022": 2250.0,
    "gain_cell_ito_2022_85c": 425.0,
}
"""Cell -> retention time that its source states [s]."""


@pytest.mark.parametrize("name", TIME_CONSTANTS)
def test_gain_cells_lose_their_charge_with_their_time_constant(name: str) -> None:
    cell, tau = load(Cell, name), TIME_CONSTANTS[name]
    assert not drift.drifts(cell, 0.0)
    for ages in (0.1, 1.0, 3.0):
        assert left(cell, 0.7, ages * tau) == pytest.approx(math.exp(-ages), rel=1e-12)
