"""The policy of residual writing: against brute force, greedy rules, simulation, and writing at once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import ohmformer as of
from ohmformer.array import encoding
from ohmformer.array.codes.code_moments import held_moments
from ohmformer.array.residual.held_digits import outcomes
from ohmformer.array.residual.policy import Policy, policy
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import noise


def array(**changes: object) -> Crossbar:
    """An array of pairs of 2-bit cells, with four cells of one weight for each value."""
    crossbar = of.load("clipformer_tcad_2024").attention.key.array
    whole = {"radix": 1, "residual": {}, "cell.g_min": 0.0, **changes}
    for path, value in whole.items():
        crossbar = of.replace(crossbar, path, value)
    return crossbar


def sqrt_noise(sigma: float) -> dict[str, object]:
    return {"cell.write_noise": {"kind": "sqrt_range", "gamma": 1.0, "sigma": sigma}}


def held(crossbar: Crossbar, values: torch.Tensor, rules: Policy, seed: int = 7) -> torch.Tensor:
    """What cells hold of values [codes], one device at a time, with the choices of a policy."""
    random = torch.Generator().manual_seed(seed)
    cell, levels = crossbar.cell, encoding.level_conductances(crossbar)

    def normal() -> torch.Tensor:
        return torch.randn(values.shape, generator=random, dtype=torch.float64)

    rest, total = values.clone(), torch.zeros_like(values)
    for choice in rules.choices:
        place = (rest.abs() / choice.step).round().long().clamp(max=len(choice.digits) - 1)
        digit = choice.digits[place] * torch.where(rest < 0, -1, 1)
        sign, digit = torch.where(digit < 0, -1.0, 1.0).double(), digit.abs()
        used = noise.write(levels[digit].clone(), cell, normal())
        unused = levels[torch.zeros_like(digit)].clone()
        unused = unused if one_sided(crossbar) else noise.write(unused, cell, normal())
        h = (used - unused) / crossbar.step
        seen = h
        if rules.read_back is not None:
            std = noise.read_std(used, cell).square().add(noise.read_std(unused, cell).square()).sqrt()
            code = ((h + std / crossbar.step * normal()) / rules.read_back_step).round().long() - rules.lowest_code
            seen = rules.read_back[digit, code.clamp(0, rules.read_back.shape[1] - 1)]
        total += sign * choice.weight * h
        rest = rest - sign * choice.weight * seen
    return total


@pytest.mark.parametrize(
    ("base", "write_noise", "bits", "read_noise"),
    [
        (1, {"kind": "uniform", "sigma": 0.15}, "ideal", {"kind": "none"}),
        (2, {"kind": "uniform", "sigma": 0.15}, "ideal", {"kind": "uniform", "sigma": 0.05}),
        (4, {"kind": "uniform", "sigma": 0.1}, 6, {"kind": "none"}),
        (2, {"kind": "lognormal", "sigma": 0.3}, 6, {"kind": "uniform", "sigma": 0.05}),
        (1, {"kind": "lognormal", "sigma": 0.4}, 3, {"kind": "proportional", "sigma": 0.05}),
    ],
)
def test_stated_errors_are_those_of_simulated_devices(
    base: int, write_noise: dict[str, object], bits: object, read_noise: dict[str, object]
) -> None:
    """10,000 devices for each of 25 values: the sum of their square errors is known to 0.5 % of it (1 sigma)."""
    crossbar = array(
        **{"radix": base, "cell.g_min": 1e-6, "cell.write_noise": write_noise, "cell.read_noise": read_noise},
        residual={"bits": bits},
    )
    rules = policy(crossbar)
    top = int(crossbar.max_code / rules.step)
    index = np.linspace(top // 20, top, 25).astype(int)
    values = torch.from_numpy(index * rules.step).expand(10_000, -1).contiguous()
    error = values - held(crossbar, values, rules)
    square = error.square().mean(0).numpy()
    assert square.mean() == pytest.approx(rules.mean_square_error[index].mean(), rel=0.03)
    spread = np.sqrt(rules.mean_square_error[index] / 10_000)
    bias = (error.mean(0).numpy() - rules.mean_error[index]) / spread
    assert np.median(np.abs(bias)) < 3


def test_the_signal_to_noise_ratio_of_a_prototype_is_met() -> None:
    """Gaussian values, one range per 64, best range, exact read-back: figures of an independent coarse prototype [dB].

    A finer grid can only be better, and is by up to 6 dB where noise is weak and weights differ.
    """
    torch.manual_seed(0)
    values = torch.randn(500, 64, dtype=torch.float64)
    for sigma, expected, most in ((0.4, 19.1, 0.3), (0.6, 15.6, 0.3), (1.0, 11.9, 0.3), (1.4, 10.0, 0.4)):
        crossbar, best = array(**sqrt_noise(sigma)), -math.inf
        for share in np.arange(0.5, 1.3, 0.1):
            unit = values.abs().amax(1, keepdim=True) * share / crossbar.max_code
            got = held(crossbar, (values / unit).clamp(-crossbar.max_code, crossbar.max_code), policy(crossbar)) * unit
            best = max(best, 10 * math.log10(float(values.square().mean() / (values - got).square().mean())))
        assert best == pytest.approx(expected, abs=most)


def test_two_cells_of_exact_read_back_equal_brute_force() -> None:
    """All pairs of a first digit and of a rule for the second one, by enumeration over the outcomes of both."""
    crossbar = array(bits=4, bits_per_cell=2, radix=2, **sqrt_noise(0.5))
    rules = policy(crossbar)
    assert [choice.weight for choice in rules.choices] == [2.0, 1.0]
    by_digit = [outcomes(crossbar, digit) for digit in range(4)]
    for value in (0.0, 0.7, 2.2, 3.9, 6.1, 8.5):
        best = math.inf
        for sign, digit in itertools.product((1, -1), range(4)):
            first = by_digit[digit]
            rest = value - sign * 2 * first.mean
            options = [
                ((rest[:, None] - s * o.mean) ** 2 + o.variance) @ o.probability for o in by_digit for s in (1, -1)
            ]
            best = min(best, float(first.probability @ np.min(options, axis=0)))
        stated = np.interp(value, np.arange(len(rules.mean_square_error)) * rules.step, rules.mean_square_error)
        assert stated == pytest.approx(best, rel=2e-3, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.2])
@pytest.mark.parametrize("base", [1, 2, 3])
def test_it_is_at_least_as_good_as_the_greedy_rule(sigma: float, base: int) -> None:
    """The greedy rule writes the nearest digit of each cell for what is missing."""
    crossbar = array(radix=base, **sqrt_noise(sigma))
    rules = policy(crossbar)
    greedy = Policy(
        tuple(
            type(choice)(
                choice.weight,
                choice.step,
                (torch.arange(len(choice.digits)) * choice.step / choice.weight).round().clamp(max=3).long(),
            )
            for choice in rules.choices
        ),
        None,
        0.0,
        0,
        rules.step,
        rules.mean_error,
        rules.mean_square_error,
    )
    values = torch.linspace(-crossbar.max_code, crossbar.max_code, 201, dtype=torch.float64).expand(500, -1)
    best, simple = ((values - held(crossbar, values, each)).square().mean() for each in (rules, greedy))
    assert best <= simple * 1.01


def test_a_useless_read_back_is_never_worse_than_writing_at_once() -> None:
    """A read-back of one bit beyond the window tells nothing; then the digits are those of the best code."""
    noisy = {"cell.write_noise": {"kind": "uniform", "sigma": 0.2}, "cell.g_min": 1e-6}
    blind = policy(array(residual={"bits": 1, "range": 16}, **noisy))
    crossbar = array(**noisy)
    mean, variance = held_moments(of.replace(crossbar, "residual", None))
    values = np.arange(0, crossbar.max_code + 1e-9, 0.25)
    at_once = ((mean.numpy()[None] - values[:, None]) ** 2 + variance.numpy()[None]).min(axis=1)
    stated = np.interp(values, np.arange(len(blind.mean_square_error)) * blind.step, blind.mean_square_error)
    assert (stated <= at_once * 1.01).all()


def test_exact_cells_hold_the_value_to_half_a_digit() -> None:
    """Without noise, the last cell rounds what is missing."""
    crossbar = array(radix=None, bits=8, **{"cell.write_noise": {"kind": "none"}})
    values = torch.linspace(-255, 255, 511, dtype=torch.float64)
    assert float((values - held(crossbar, values, policy(crossbar))).abs().max()) <= 0.5 + 2 / 32
