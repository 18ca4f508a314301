"""Values that are written residually: against a program that knows devices one by one, at every level."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import ohmformer as of
from ohmformer.array import crossbar
from ohmformer.array.aging.unaged import write_unaged
from ohmformer.array.codes.code_moments import held_moments, moments_of_values
from ohmformer.array.codes.codec import Codec
from ohmformer.array.event_counter import counting
from ohmformer.array.folded import fold
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.multiply import mvm
from ohmformer.array.residual.policy import policy
from ohmformer.array.spec import Crossbar, analog
from ohmformer.streams import Stream, TokenStreams
from tests.array.residual.test_policy import array

Numbers = npt.NDArray[np.float64]
N = 3_000
VALUES = (0.0, 1.3, -7.7, 20.6)
KS = math.sqrt(-math.log(1e-6 / 2) / 2 * 2 / N)
"""Largest distance of two distributions of N values: a false alarm in 1e6."""
WRITE = {"kind": "uniform", "sigma": 0.17}
READ = {"kind": "uniform", "sigma": 0.06}
G_MIN, G_MAX = 2e-6, 21e-6


def pairs(**changes: Any) -> Crossbar:
    """Pairs of 2-bit cells of radix 2 with write noise."""
    whole = {"radix": 2, "cell.g_max": G_MAX, "cell.g_min": G_MIN, "cell.write_noise": WRITE}
    return array(**(whole | changes))


def of_devices(value: float, crossbar: Crossbar, *, reads: float, seed: int) -> Numbers:
    """What N values hold after each device was written and read back by itself [codes].

    Args:
        value: the value [codes].
        crossbar: its choices of digits are taken from here, as its policy states them.
        reads: standard deviation of one read [S].
        seed: of the noise.
    """
    random, rules, step = np.random.default_rng(seed), policy(crossbar), (G_MAX - G_MIN) / 3

    def written(digit: Numbers) -> Numbers:
        g = G_MIN + step * digit + 0.17 * (G_MAX - G_MIN) * random.normal(size=N)
        return np.maximum(g, 0.0)

    rest, total = np.full(N, value), np.zeros(N)
    for choice in rules.choices:
        place = np.minimum(np.round(np.abs(rest) / choice.step), len(choice.digits) - 1).astype(int)
        signed = choice.digits.numpy()[place] * np.where(rest < 0, -1, 1)
        sign, digit = np.where(signed < 0, -1.0, 1.0), np.abs(signed)
        used, unused = written(digit), written(np.zeros(N))
        held = (used - unused) / step
        seen = held
        if rules.read_back is not None:
            noisy = (used + reads * random.normal(size=N) - unused - reads * random.normal(size=N)) / step
            code = np.round(noisy / rules.read_back_step).astype(int) - rules.lowest_code
            seen = rules.read_back.numpy()[digit, np.clip(code, 0, rules.read_back.shape[1] - 1)]
        total += sign * choice.weight * held
        rest = rest - sign * choice.weight * seen
    return total


def distance(a: Numbers, b: Numbers) -> float:
    """Largest distance of two empirical distributions."""
    grid = np.sort(np.concatenate([a, b]))
    return float(np.abs(np.searchsorted(np.sort(a), grid) / len(a) - np.searchsorted(np.sort(b), grid) / len(b)).max())


def of_products(crossbar: Crossbar, level: str) -> Numbers:
    """[V, N] what products with one driven row say that the cells hold [codes]."""
    codes = torch.tensor(VALUES).repeat_interleave(N)[:, None]
    held = crossbar_write(codes, crossbar)
    y = mvm(torch.ones(1, 1), held, level=level, x_range=1.0, signed=False, stream=Stream(5))  # type: ignore[arg-type]
    return (y[0] / held.unit[0, 0]).double().numpy().reshape(len(VALUES), N)


def crossbar_write(codes: torch.Tensor, array: Crossbar, seed: int = 3) -> Any:
    return crossbar.write(codes, array, stream=Stream(seed))


@pytest.mark.parametrize("level", ["cell", "array", "noise"])
@pytest.mark.parametrize("noisy", [False, True])
def test_products_have_the_distribution_of_single_devices(level: str, noisy: bool) -> None:
    """Exact read-backs, and read-backs of 5 bits with read noise, which also acts on the product itself."""
    changes: dict[str, Any] = {"cell.read_noise": READ, "residual": {"bits": 5, "range": 1.4}} if noisy else {}
    array, reads = pairs(**changes), 0.06 * (G_MAX - G_MIN) if noisy else 0.0
    got = of_products(array, level)
    random, step = np.random.default_rng(8), (G_MAX - G_MIN) / 3
    for row, value in enumerate(VALUES):
        expected = of_devices(value, array, reads=reads, seed=row)
        if noisy and level != "noise":
            bits = array.inputs.bits
            weights = np.array([choice.weight for choice in policy(array).choices])
            errors = random.normal(size=(N, 2, len(weights), bits)) * reads / step
            expected += ((errors[:, 0] - errors[:, 1]) * 2.0 ** np.arange(bits) / (2.0**bits - 1)).sum(-1) @ weights
        both = np.stack([got[row], expected])
        spread = math.sqrt(both.var() * 2 / N)
        assert abs(both[0].mean() - both[1].mean()) < 5 * spread
        assert both[0].var() == pytest.approx(both[1].var(), rel=0.25)
        assert distance(both[0], both[1]) < KS


def test_moments_are_those_that_cells_hold() -> None:
    """Mean within 5 standard errors, variance within 6: 20,000 values each; for either sign."""
    array = pairs(**{"cell.read_noise": READ, "residual": {"bits": 6}})
    values = torch.linspace(-1, 1, 9, dtype=torch.float64) * array.max_code
    held = write_folded(values.expand(20_000, -1), array, stream=Stream(1)).values / (1 / array.max_code)
    mean, variance = moments_of_values(values, array)
    assert ((held.mean(0) - mean).abs() < 5 * (variance / 20_000).sqrt()).all()
    assert ((held.var(0) / variance - 1).abs() < 6 * 0.02).all()


KINDS: dict[str, dict[str, Any]] = {
    "levels": {"radix": None, "levels": 3},
    "uneven levels": {"cell.level_conductances": [G_MIN, 4e-6, 9e-6, G_MAX]},
    "ceiling": {"cell.g_ceiling": 23e-6},
    "reads in proportion, from zero": {"cell.g_min": 0.0, "cell.read_noise": {"kind": "proportional", "sigma": 0.05}},
    "wear": {
        "cell.endurance": 1e6,
        "cell.wear": {"kind": "weibull", "stuck_at_g_max": 0.4, "w": 0.08, "n0": 1e3},
        "writes": 3e5,
    },
    "faults": {"cell.faults": {"stuck_at_g_min": 0.02, "stuck_at_g_max": 0.02}},
    "one bit": {"residual": {"bits": 1}},
    "a small range": {"residual": {"bits": 6, "range": 0.01}},
    "analog pairs": {"subtract": "analog", "residual": {"bits": 6}},
    "a measured cell": {"cell": of.load_cell("rram_neurram_2022")},
    "a measured cell of PCM": {"cell": of.load_cell("pcm_hermes_2023_one_device"), "residual": {"bits": 6}},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_moments_hold_for_all_kinds_of_cells(kind: str) -> None:
    """Mean within 5.5 standard errors, variance within 7 %: 8,000 values around each of eight, and 8,000 zeros.

    Values differ, since the mean of a single one may lie beside a jump between two digits.
    """
    array = pairs(**KINDS[kind])
    random = torch.Generator().manual_seed(0)
    values = torch.rand(8_000, 8, generator=random, dtype=torch.float64) / 4 + torch.arange(-4, 4) / 4
    values = torch.cat([values, torch.zeros(8_000, 1)], dim=1) * array.max_code
    held = write_folded(values, array, stream=Stream(1), read_noise=False).values * array.max_code
    mean, variance = moments_of_values(values, array)
    errors = held - mean
    assert (errors.mean(0).abs() < 5.5 * (variance.mean(0) / 8_000).sqrt()).all()
    assert float(errors.square().mean() / variance.mean()) == pytest.approx(1, rel=0.07)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"redundancy": 2},
        {"cell.read_noise": READ, "residual": {"bits": 4}},
        {"cell.faults": {"stuck_at_g_min": 0.03, "stuck_at_g_max": 0.02}, "cell.read_noise": READ},
        {"cell.drift": {"kind": "power_law", "nu": 0.05, "nu_std": 0.02, "t0": 1.0}, "age": 1e4},
        {"cell.drift": {"kind": "power_law", "nu": 0.05, "t0": 1.0}, "age": 1e4, "drift_compensation": "column"},
        {"radix": None, "cell.write_noise": {"kind": "lognormal", "sigma": 0.3}},
        {"peripherals.read_voltage": 0.2, "cell.write_noise": {"kind": "none"}},
    ],
)
def test_folded_cells_are_those_that_are_kept(changes: dict[str, Any]) -> None:
    array = pairs(**changes)
    codes = torch.randn(70, 9, generator=torch.Generator().manual_seed(0)).mul(8).clamp(-20, 20)
    for max_code in (None, 20):
        options: dict[str, Any] = {"stream": Stream(4), "max_code": max_code}
        kept, folded = fold(crossbar.write(codes, array, **options)), write_folded(codes, array, **options)
        if array.drift_compensation != "none":  # a factor of all values, which is multiplied in another order
            assert torch.allclose(kept.values, folded.values, rtol=1e-5)
            continue
        assert torch.equal(kept.values, folded.values)
        assert (kept.variance is None and folded.variance is None) or torch.equal(kept.variance, folded.variance)


@pytest.mark.parametrize("noisy", [False, True])
def test_cells_that_are_read_at_several_ages_are_written_alike(noisy: bool) -> None:
    """What was written is read back before it drifts, so it does not depend on the age."""
    changes: dict[str, Any] = {"cell.drift": {"kind": "power_law", "nu": 0.1, "nu_std": 0.05, "t0": 1.0}}
    changes |= {"cell.read_noise": READ, "residual": {"bits": 6}} if noisy else {}
    codes = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).mul(8).clamp(-20, 20)
    kept = write_unaged(codes, pairs(**changes), drifts=True, stream=Stream(4))
    for age in (0.0, 1e3):
        expected = crossbar.write(codes, pairs(**changes, age=age), stream=Stream(4)).digits
        got = kept.at(torch.full((1, 5, 1), age, dtype=torch.float64)).digits
        assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_tokens_draw_the_noise_of_their_numbers() -> None:
    """Three tokens that are written together, and one by one; read-backs with noise."""
    array = pairs(**{"cell.read_noise": READ, "residual": {"bits": 6}})
    codes = torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(0)).mul(8).clamp(-20, 20)

    def written(first: int, last: int) -> torch.Tensor:
        streams = TokenStreams((Stream(1),), numbers=(tuple(range(first, last)),))
        return write_folded(codes[:, :, first:last], array, stream=streams).values

    assert torch.equal(written(0, 3), torch.cat([written(n, n + 1) for n in range(3)], dim=2))


def test_exact_cells_hold_values_to_half_a_digit() -> None:
    array = pairs(**{"cell.write_noise": {"kind": "none"}, "radix": None})
    values = torch.linspace(-255, 255, 1001)[:, None]
    held = write_folded(values, array).values * 255
    assert float((held - values).abs().max()) <= 0.5 + 1 / 32 + 1e-3


def test_values_are_not_rounded_but_clipped() -> None:
    array = pairs()
    values = torch.tensor([[0.1234, -0.5, 1.7]])
    assert torch.allclose(Codec(array).codes(values, torch.ones(1, 1)), torch.tensor([[5.553, -22.5, 45.0]]))
    assert analog(array).residual is None


def test_one_cell_for_a_value_holds_the_best_code() -> None:
    """Nothing is left to correct, so each digit is the one with the least mean square error."""
    array = pairs(bits=2, bits_per_cell=2, radix=None)
    assert len(policy(array).choices) == 1
    plain = of.replace(array, "residual", None)
    values = np.linspace(0, 3, 31)
    mean, variance = (t.numpy() for t in held_moments(plain))
    best = ((values[:, None] - mean) ** 2 + variance).min(1)
    rules = policy(array)
    stated = np.interp(values, np.arange(len(rules.mean_square_error)) * rules.step, rules.mean_square_error)
    assert stated == pytest.approx(best, rel=1e-3)


def test_every_cell_is_written_once_and_all_but_the_last_read_back() -> None:
    array = pairs()
    with counting() as counts:
        write_folded(torch.ones(5, 7), array)
    assert (counts.cell_writes, counts.cell_reads, counts.adc_conversions) == (35 * 4 * 2, 35 * 3 * 2, 35 * 3 * 2)


def test_without_residual_nothing_changes() -> None:
    plain, codes = of.replace(pairs(), "residual", None), torch.arange(-45.0, 46.0)[:, None]
    assert torch.equal(write_folded(codes, plain).values, fold(crossbar.write(codes, plain)).values)
    with pytest.raises(of.BadInput, match="codes must be numbers within 45"):
        write_folded(codes * 2, pairs())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("encoding", "offset", "residual: an 'offset' array has no second half"),
        ("write_verify", {"writes": 4, "tolerance": 0.1}, "residual: cells are written once"),
        ("wires", {"row": 0.1, "column": 0.1}, "residual: a read-back through wires"),
        ("peripherals.input_noise", 0.01, "residual: a read-back with peripherals.input_noise = 0.01"),
        ("redundancy", 300, "residual: the largest code, 45, times redundancy = 300 is above 10,000"),
        ("residual.bits", 13, "residual.bits"),
        ("residual.bits", 0, "residual.bits"),
        ("residual.range", 0.0, "residual.range"),
        ("residual.range", math.nan, "residual.range"),
        ("residual.bit", 4, "residual.bit: is not a key"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(path: str, value: object, message: str) -> None:
    array = pairs(radix=None) if path == "encoding" else pairs()
    with pytest.raises(of.BadInput) as fault:
        of.replace(array, path, value)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_many_levels_are_refused() -> None:
    with pytest.raises(of.BadInput, match="residual: a cell has 128 levels, above 64"):
        pairs(radix=None, bits=10, bits_per_cell=7)


def test_moments_of_codes_are_refused() -> None:
    with pytest.raises(of.BadInput, match="held_moments: cells of an array with residual hold any value"):
        held_moments(pairs())
