"""Compiled residual writing gives what the plain code gives with the same random numbers, and its distribution."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ohmformer as of
from ohmformer.array.crossbar import write, write_request
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.kernels.writes import residual_writes
from ohmformer.array.multiply import mvm
from ohmformer.array.spec import Crossbar
from ohmformer.streams import SampleStreams, Stream
from ohmformer.streams.backends import Kernels
from tests.array.kernels.writes.test_cell_writes import SAMPLES, STREAMS
from tests.build import FLICKER, PCM_DRIFT, PROPORTIONAL, SQRT_RANGE, UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
READ = {"kind": "uniform", "sigma": 0.06}
CELLS: dict[str, dict[str, Any]] = {
    "one half with noise": {"write_noise": SQRT_RANGE},
    "both halves with noise": {"write_noise": UNIFORM},
    "clamped at a ceiling": {"g_ceiling": 1e-5, "write_noise": {**SQRT_RANGE, "gamma": 3.0}},
    "uneven levels": {"write_noise": UNIFORM, "level_conductances": (1e-7, 2e-6, 3e-6, 1e-5)},
    "noisy read-backs": {"write_noise": UNIFORM, "read_noise": READ},
    "read-backs in proportion": {"write_noise": SQRT_RANGE, "read_noise": PROPORTIONAL},
}
ARRAYS: dict[str, dict[str, Any]] = {
    "radix 2": {"radix": 2},
    "digits of equal weight": {"radix": 1},
    "base 4": {},
    "copies": {"redundancy": 2},
    "one cell for a value": {"bits": 2},
    "16 levels": {"bits_per_cell": 4},
    "read-backs of 5 bits": {"radix": 2, "residual": {"bits": 5}},
    "read-backs of 1 bit": {"residual": {"bits": 1, "range": 0.7}},
}


def hardware(of_cell: str, of_array: str) -> Crossbar:
    return array(**{"residual": {}, "bits": 6, **ARRAYS[of_array], "cell": cell(**CELLS[of_cell])})


def values(spec: Crossbar, shape: tuple[int, ...] = (3, 2, 5, 4)) -> Tensor:
    """Numbers in codes, 0 and both ends among them."""
    drawn = (torch.rand(shape, generator=torch.Generator().manual_seed(2)) - 0.5) * 2 * spec.max_code
    drawn.view(-1)[:3] = torch.tensor([0.0, spec.max_code, -spec.max_code])[: drawn.numel()]
    return drawn


def both_ways(wanted: Tensor, spec: Crossbar, how: Any, **options: Any) -> list[Any]:
    """The write by the loop and by the plain code."""
    assert residual_writes.fusible(write_request(wanted, spec, **options))
    found, fusible = [], residual_writes.fusible
    try:
        for fuses in (fusible, lambda request: False):
            residual_writes.fusible = fuses
            found.append(how(wanted, spec, **options))
    finally:
        residual_writes.fusible = fusible
    return found


def same(loop: Tensor, plain: Tensor) -> None:
    """Equal but for rounding, and for at most one value in a thousand, whose cells got other digits by rounding."""
    assert loop.shape == plain.shape
    differ = ~torch.isclose(loop, plain, rtol=2e-5, atol=5e-6 * float(plain.abs().max()))
    assert int(differ.sum()) <= loop.numel() // 1000


COMBINATIONS = [pair for pair in product(CELLS, ARRAYS) if pair != ("uneven levels", "16 levels")]


@pytest.mark.parametrize(("of_cell", "of_array"), COMBINATIONS)
def test_cells_hold_what_the_plain_code_writes(of_cell: str, of_array: str) -> None:
    spec = hardware(of_cell, of_array)
    wanted, options = values(spec, (3, 2, 70, 40)), {"stream": STREAMS["samples"]}
    loop, plain = both_ways(wanted, spec, write_folded, **options)
    same(loop.values, plain.values)
    assert loop.slices == plain.slices
    assert not torch.allclose(plain.values, wanted, atol=0.01), "without noise the test would prove nothing"
    if spec.cell.read_noise.exact:
        assert loop.variance is plain.variance is None
    else:
        same(loop.variance, plain.variance)
    digits, expected = both_ways(wanted, spec, write, **options)
    same(digits.digits, expected.digits)


@pytest.mark.parametrize("major", ["outputs", "inputs"])
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("of_cell", ["one half with noise", "noisy read-backs"])
def test_streams_and_axes_are_those_of_the_plain_code(of_cell: str, streams: str, major: str) -> None:
    spec = hardware(of_cell, "radix 2")
    wanted = values(spec, (3, 2, 5, 4) if major == "outputs" else (3, 2, 4, 5))
    wide = torch.linspace(1.0, 2.0, wanted.shape[-2])[:, None]
    options = {"stream": STREAMS[streams], "major": major, "max_code": 40, "w_range": wide}
    wanted = wanted.clamp(-40, 40)
    loop, plain = both_ways(wanted, spec, write_folded, **options)
    same(loop.values, plain.values)
    assert (loop.variance is None) == (plain.variance is None)
    if loop.variance is not None:
        same(loop.variance, plain.variance)
    digits, expected = both_ways(wanted, spec, write, **options)
    same(digits.digits, expected.digits)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 130), st.sampled_from(["outputs", "inputs"]))
def test_samples_and_sizes_change_no_bit(B: int, N: int, d: int, major: str) -> None:
    spec = hardware("noisy read-backs", "radix 2")
    wanted = values(spec, (B, 1, N, d))
    whole = write_folded(wanted, spec, stream=SampleStreams(SAMPLES[:B]), major=major)
    for b in reversed(range(B)):
        alone = write_folded(wanted[b : b + 1], spec, stream=SampleStreams(SAMPLES[b : b + 1]), major=major)
        assert torch.equal(alone.values[0], whole.values[b])
        assert alone.variance is not None
        assert whole.variance is not None
        assert torch.equal(alone.variance[0], whole.variance[b])


N = 4_000
KS = math.sqrt(-math.log(1e-7 / 2) / N)
"""Largest distance of two distributions of N values: a false alarm in 1e7."""


def distance(a: Tensor, b: Tensor) -> float:
    """Largest distance of two empirical distributions."""
    grid, a, b = torch.cat([a, b]).sort().values, a.sort().values, b.sort().values
    shares = [torch.searchsorted(each, grid, right=True).double() / len(each) for each in (a, b)]
    return float((shares[0] - shares[1]).abs().max())


def alike(a: Tensor, b: Tensor, *, means_alone: bool = False) -> None:
    """Means and mean squares of two samples of errors differ by less than 5.5 standard errors; so do distributions.

    Each of these tests raises a false alarm less than once in ten million runs.
    """
    for x, y in ((a, b),) if means_alone else ((a, b), (a.square(), b.square())):
        assert abs(x.mean() - y.mean()) < 5.5 * ((x.var() + y.var()) / N).sqrt()
    assert means_alone or distance(a, b) < KS


@pytest.mark.parametrize("of_array", ["radix 2", "base 4", "16 levels", "read-backs of 5 bits"])
@pytest.mark.parametrize("of_cell", ["one half with noise", "both halves with noise", "noisy read-backs"])
def test_the_distribution_is_that_of_level_cell_with_plain_kernels(of_cell: str, of_array: str) -> None:
    """4,000 values around each of five: a single one may lie beside a jump between two digits."""
    spec = hardware(of_cell, of_array)
    middle = torch.tensor([0.0, 0.11, -0.37, 0.62, -0.93]) * spec.max_code
    wanted = (middle[:, None] + torch.linspace(-0.5, 0.5, N)).reshape(-1, 1)

    def products(kernels: Kernels, level: str, seed: int) -> Tensor:
        held = write(wanted, spec, stream=Stream(seed, kernels=kernels))
        how: dict[str, Any] = {"x_range": 1.0, "signed": False, "stream": Stream(seed + 1, kernels=kernels)}
        y = mvm(torch.ones(1, 1), held, level=level, **how)  # type: ignore[arg-type]
        return (y[0] / held.unit[0, 0]).double().view(5, N)

    loop, plain = products("compiled", "noise", 11), products("torch", "cell", 21)
    for wanted_row, a, b in zip(wanted.view(5, N), loop, plain, strict=True):
        # cycles of level `cell` read anew, so with read noise only the mean is that of one read
        alike(a - wanted_row, b - wanted_row, means_alone=not spec.cell.read_noise.exact)


@pytest.mark.parametrize("of_array", ["radix 2", "read-backs of 5 bits"])
def test_what_noisy_read_backs_leave_has_the_distribution_of_plain_kernels(of_array: str) -> None:
    """Of what cells hold."""
    spec = hardware("noisy read-backs", of_array)
    wanted = (torch.tensor([0.0, -0.37, 0.62]) * spec.max_code)[:, None].expand(3, N).reshape(-1, 1)
    errors = [
        write_folded(wanted, spec, stream=Stream(seed, kernels=kernels), read_noise=False).values.view(3, N).double()
        for seed, kernels in ((5, "compiled"), (6, "torch"))
    ]
    for a, b in zip(*errors, strict=True):
        alike(a, b)


def test_weak_noise_leaves_what_exact_cells_leave() -> None:
    """Half a digit of the last cell, and the resolution of the policy."""
    spec = hardware("one half with noise", "base 4")
    spec = of.replace(spec, "cell.write_noise.sigma", 1e-6)
    wanted = values(spec, (2, 1, 300, 40))
    held = write_folded(wanted, spec, stream=SampleStreams(SAMPLES[:2]), w_range=63.0, read_noise=False).values
    assert float((held - wanted).abs().max()) <= 0.5 + 1 / 32 + 1e-3


@pytest.mark.parametrize("kind", ["torch", "drift", "silent", "reads", "double", "feedback", "faults", "at once"])
def test_other_hardware_and_streams_take_the_plain_code(kind: str) -> None:
    noisy = {"write_noise": SQRT_RANGE}
    specs = {
        "drift": array(cell=cell(**noisy, drift=PCM_DRIFT), age=1e4, residual={}),
        "silent": array(residual={}),
        "reads": array(cell=cell(**noisy, read_noise=FLICKER), residual={}),
        "feedback": array(cell=cell(**noisy), residual={"feedback": True}),
        "faults": array(cell=cell(**noisy, faults={"kind": "stuck_at", "stuck_at_g_min": 0.1}), residual={}),
        "at once": array(cell=cell(**noisy)),
    }
    spec = specs.get(kind, hardware("one half with noise", "base 4"))
    codes = torch.ones(2, 3, dtype=torch.float64 if kind == "double" else torch.float32)
    request = write_request(codes, spec, stream=Stream(1) if kind == "torch" else STREAMS["one"])
    assert not residual_writes.fusible(request)
    assert write_folded(codes, spec, stream=STREAMS["one"]).values.isfinite().all()
