"""What pairs hold on average: closed forms against many writes.

Measured moments lie within 5 standard errors of the closed form: a false alarm once in 1.7 million comparisons, of
which there are some 4,000; seeds are fixed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ohmformer.array import held_moments, write_folded
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.schema import replace
from tests.build import LOGNORMAL, NONE, PCM_DRIFT, PIECES, POLYNOMIAL, TABLE, array, cell

DRAWS = 20_000
NOISES: list[dict[str, Any]] = [
    NONE,
    {"kind": "sqrt_range", "sigma": 1.2},
    {"kind": "proportional", "sigma": 0.6},
    {"kind": "uniform", "sigma": 0.3},
    POLYNOMIAL,
    PIECES,
    TABLE,
    LOGNORMAL,
]


def compare(hardware: Crossbar, max_code: int | None = None) -> None:
    """Write every code with both signs many times."""
    mean, variance = held_moments(hardware, max_code)
    codes = torch.arange(1.0 - len(mean), len(mean), dtype=torch.float64)
    held = write_folded(
        codes[:, None].expand(-1, DRAWS), hardware, stream=1, w_range=float(hardware.max_code), max_code=max_code
    ).values
    mean, variance = torch.cat([-mean[1:].flip(0), mean]), torch.cat([variance[1:].flip(0), variance])
    error = (variance / DRAWS).sqrt()
    assert bool(((held.mean(1) - mean).abs() <= 5 * error + 1e-9).all())
    squares = (held - mean[:, None]) ** 2
    assert bool(((squares.mean(1) - variance).abs() <= 5 * squares.std(1) / DRAWS**0.5 + 1e-9).all())


@pytest.mark.parametrize("base", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("write_noise", NOISES, ids=[kind["kind"] for kind in NOISES])
@pytest.mark.parametrize("ceiling", [None, 1.2e-5])
@pytest.mark.slow
def test_they_are_those_of_many_writes(write_noise: dict[str, Any], base: int | None, ceiling: float | None) -> None:
    compare(array(bits=4, radix=base, cell=cell(write_noise=write_noise, g_ceiling=ceiling)))


@pytest.mark.parametrize("base", [None, 1, 3])
@pytest.mark.parametrize("write_noise", NOISES[1:], ids=[kind["kind"] for kind in NOISES[1:]])
@pytest.mark.slow
def test_verified_writes_leave_less(write_noise: dict[str, Any], base: int | None) -> None:
    write_verify = {"writes": [2, 7], "tolerance": 0.15}
    compare(array(bits=4, radix=base, write_verify=write_verify, cell=cell(write_noise=write_noise)))


@pytest.mark.parametrize("base", [None, 1])
@pytest.mark.parametrize("write_noise", NOISES[1:4], ids=[kind["kind"] for kind in NOISES[1:4]])
@pytest.mark.slow
def test_copies_share_the_variance_and_keep_the_mean(write_noise: dict[str, Any], base: int | None) -> None:
    write_verify = {"writes": [2, 7], "tolerance": 0.15}
    one = array(bits=4, radix=base, write_verify=write_verify, cell=cell(write_noise=write_noise))
    three = replace(one, "redundancy", 3)
    compare(three)
    (mean, variance), (same, third) = held_moments(one), held_moments(three)
    torch.testing.assert_close(same, mean)
    torch.testing.assert_close(third, variance / 3)


@pytest.mark.parametrize("base", [None, 1, 2])
def test_fewer_slices_spell_codes_in_their_own_way(base: int | None) -> None:
    """A code that is spread over two slices instead of four has larger digits."""
    hardware = array(radix=base, cell=cell(write_noise={"kind": "sqrt_range", "sigma": 1.2}))
    compare(hardware, max_code=5)
    whole, part = held_moments(hardware)[0], held_moments(hardware, 5)[0]
    assert torch.allclose(whole[:6], part) == (base is None)


@pytest.mark.parametrize("write_noise", [NONE, {"kind": "sqrt_range", "sigma": 0.6}, {"kind": "uniform", "sigma": 0.2}])
def test_stuck_cells_are_chances(write_noise: dict[str, Any]) -> None:
    device = cell(write_noise=write_noise, faults={"stuck_at_g_min": 0.1, "stuck_at_g_max": 0.05})
    compare(array(bits=4, radix=2, cell=device))


def test_the_clamp_at_zero_raises_the_mean() -> None:
    """Four digits of 1 at gamma sigma = 1.2, by hand: deviation 2.078 digits, 1.030 above the clamp: + 0.41 each."""
    mean, variance = held_moments(array(radix=1, cell=cell(write_noise={"kind": "sqrt_range", "sigma": 1.2})))
    assert float(mean[4] - 4) == pytest.approx(4 * 0.41, abs=0.02)
    assert float(variance[4]) < 4 * 1.2**2 * 3
    assert (float(mean[0]), float(variance[0])) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "max_code", "message"),
    [
        ({"encoding": "offset"}, None, "an 'offset' array has no magnitudes of its own"),
        ({"cell": cell(drift=PCM_DRIFT), "age": 100.0}, None, "the cells drift for age = 100 s.*; set age = 0"),
        ({}, 0, "max_code = 0: must be 1 to 255"),
        ({"radix": 1}, 13, "max_code = 13: must be 1 to 12"),
    ],
)
def test_what_has_no_closed_form_is_refused(fields: dict[str, Any], max_code: int | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        held_moments(array(**fields), max_code)


def test_drift_that_has_not_begun_is_none() -> None:
    assert torch.equal(held_moments(array(cell=cell(drift=PCM_DRIFT), age=20.0))[0], torch.arange(256).double())
