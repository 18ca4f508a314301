"""Reads on matrix units: the numbers of the plain code, a noise of the right size, and the same bits in any batch."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch import Tensor

import ohmformer as of
from ohmformer.array import converters, fold, mvm, program
from ohmformer.array.crossbar import write
from ohmformer.array.folded import folded_product
from ohmformer.array.kernels import reads as plain_reads
from ohmformer.array.kernels.amx import reads
from ohmformer.array.spec import Crossbar
from ohmformer.streams import PaddedStreams, SampleStreams, Stream, TokenStreams
from tests.array.kernels.test_reads import HARDWARE, hardware, operands
from tests.build import UNIFORM, array, cell
from tests.gpu.kernels import needs_amx

pytestmark = needs_amx
SAMPLES = tuple(Stream(3, name, kernels="amx") for name in "ab")
STREAMS = {
    "samples": SampleStreams(SAMPLES),
    "padded": PaddedStreams(SAMPLES, places=3, rows=((0, 1, 2), (1,)), columns=(5, 4)),
    "tokens": TokenStreams(SAMPLES, numbers=((0, 1, 2), (-1, 7, 8)), growing=True),
}
NOISES = [{"kind": "uniform", "sigma": 0.1}, {"kind": "proportional", "sigma": 0.2}, {"kind": "sqrt", "sigma": 0.1}]
LARGEST_ERROR = 2.0**-8 + 1e-5
"""Of the standard deviation of a read, as a share of it."""


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", HARDWARE)
def test_conversions_are_those_in_float32(name: str, streams: str) -> None:
    spec, noisy = hardware(name), "cell" in HARDWARE[name]
    x, w = operands(spec)
    span = converters.adc_range(spec, signed=True, calibrated=None)
    how: dict[str, Any] = {"signed": True, "stream": STREAMS[streams] if noisy else None, "span": span}
    programmed = write(w, spec, stream=1)
    tiled, plain = reads.converted_product(x, programmed, **how), plain_reads.converted_product(x, programmed, **how)
    equal = torch.isclose(tiled, plain, rtol=1e-5, atol=1e-4)
    assert equal.float().mean() > (0.8 if noisy else 0.99)  # a current near the middle of two codes may get the other
    assert (tiled - plain).abs().max() <= 0.25 * plain.abs().max()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NOISES), st.integers(2, 8), st.integers(1, 40), st.integers(1, 300), st.integers(1, 200))
def test_the_size_of_read_noise_is_off_by_less_than_the_stated_bound(
    noise: dict[str, Any], bits: int, M: int, O: int, I: int
) -> None:
    spec = array(rows=64, bits=4, inputs={"kind": "amplitude", "bits": bits}, cell=cell(read_noise=noise))
    generator = torch.Generator().manual_seed(M + O + I)
    top = spec.max_input(signed=True)
    codes = torch.randint(-top, top + 1, (2, M, I), generator=generator).float()
    cells = fold(program(torch.randn(O, I, generator=generator), spec, stream=1))
    quiet = reads.folded_product(codes, cells, 1.0)
    found = (reads.folded_product(codes, cells, 1.0, stream=STREAMS["samples"]) - quiet).double()
    exact = folded_product(codes, cells, spec, STREAMS["samples"]).double() - codes @ cells.values.mT
    rounding = 1e-5 * (codes.abs() @ cells.values.abs().mT)
    assert bool(((found - exact).abs() <= LARGEST_ERROR * exact.abs() + rounding).all())


@pytest.mark.parametrize("noise", NOISES[1:])
def test_the_size_of_the_noise_of_many_cells_is_hardly_off(noise: dict[str, Any]) -> None:
    spec = array(
        rows=128, bits=4, inputs={"kind": "amplitude", "bits": 8}, cell=cell(read_noise=noise, write_noise=UNIFORM)
    )
    codes = torch.randint(-100, 101, (1, 200, 128), generator=torch.Generator().manual_seed(1)).float()
    cells = fold(program(torch.randn(200, 128, generator=torch.Generator().manual_seed(2)), spec, stream=1))
    assert cells.variance is not None
    exact = (codes.double().square() @ cells.variance.double().mT).sqrt()
    rounded = codes.square().bfloat16().double() @ cells.variance.bfloat16().double().mT
    wrong = rounded.sqrt() / exact - 1
    assert wrong.abs().max() < 2e-3
    assert wrong.mean().abs() < 5e-4
    quiet = reads.folded_product(codes, cells, 1.0)
    stream = SampleStreams((SAMPLES[0],))
    found = reads.folded_product(codes, cells, 1.0, stream=stream).double() - quiet
    expected = rounded.sqrt() * stream.child("read").normal(*quiet.shape, like=quiet)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(quiet.abs().max()))


def random_case(seed: int) -> tuple[Crossbar, Tensor, Tensor]:
    """Hardware, a vector of inputs for many reads, and a matrix."""
    generator = torch.Generator().manual_seed(seed)
    spec = array(
        rows=(16, 32)[seed % 2],
        bits=4,
        inputs={"kind": "amplitude", "bits": 3 + seed % 6},
        adc={"bits": (5, 7, 12)[seed % 3]},
        subtract=("analog", "digital")[seed // 3 % 2],
        cell=cell(read_noise=NOISES[seed % 3]),
    )
    x = torch.randn(1, 40, generator=generator).expand(4000, 40)
    return spec, x, torch.randn(3, 40, generator=generator)


@pytest.mark.parametrize("seed", range(6))
def test_reads_have_the_distribution_of_reads_device_by_device(seed: int) -> None:
    spec, x, w = random_case(seed)
    programmed = program(w, spec, stream=2)
    cells = mvm(x, programmed, level="cell", stream=Stream(5))
    tiled = mvm(x, programmed, level="array", stream=Stream(6, kernels="amx"))
    for a, b in zip(cells.T.double(), tiled.T.double(), strict=True):
        spread = float(a.std())
        assert abs(float(a.mean() - b.mean())) < 5 * spread * (2 / len(a)) ** 0.5
        assert float(b.var() / a.var()) == pytest.approx(1, abs=0.15)
        assert ks_2samp(a.numpy().round(3), b.numpy().round(3)).pvalue > 1e-4


@pytest.mark.parametrize("adc", [{"bits": 6}, {}])
def test_a_sample_has_the_same_bits_in_any_batch_order_and_thread(adc: dict[str, Any]) -> None:
    spec = array(rows=32, bits=4, adc=adc, inputs={"kind": "amplitude", "bits": 8}, cell=cell(read_noise=NOISES[2]))
    x = torch.randn(5, 37, 70)
    programmed = program(torch.randn(45, 70), spec, stream=1)
    folded, names = fold(programmed), [Stream(9, n, kernels="amx") for n in range(5)]

    def product(rows: list[int]) -> Tensor:
        streams = SampleStreams(tuple(names[n] for n in rows))
        if adc:
            return mvm(x[rows], programmed, x_range=3.0, stream=streams)
        codes = (x[rows] * 40).round()
        return reads.folded_product(codes, folded, 0.1, stream=streams)

    whole, before = product([0, 1, 2, 3, 4]), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with ThreadPoolExecutor(3) as pool:
            batches = [[3], [4, 0], [2, 1, 3], [0, 1, 2, 3, 4]] * 3
            for rows, found in zip(batches, pool.map(product, batches), strict=True):
                assert torch.equal(found, whole[rows])
    finally:
        torch.set_num_threads(before)


def test_what_was_arranged_for_a_matrix_is_kept_beside_it() -> None:
    cells = fold(program(torch.randn(4, 8), array(), stream=1))
    reads.folded_product(torch.ones(1, 1, 8), cells, 1.0)
    kept = dict(cells._kept)
    reads.folded_product(torch.ones(3, 2, 8), cells, 1.0)
    assert dict(cells._kept) == kept
    assert len(kept) == 1


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e-18])
def test_numbers_that_are_too_small_for_tiles_are_multiplied_in_float32(size: float) -> None:
    """Tiles would give no noise at 1e-9, and zeros at 1e-18."""
    read_noise = {"kind": "proportional", "sigma": 0.3}
    hardware = of.load("generic_amplitude")
    for part in ("attention", "projection"):
        noisy = array(inputs={"kind": "amplitude", "bits": 8}, bits=4, cell=cell(read_noise=read_noise))
        hardware = of.replace(hardware, f"{part}.array", noisy)
    linear, x = torch.nn.Linear(64, 48, bias=False), torch.randn(2, 5, 64) * size
    torch.nn.init.normal_(linear.weight, std=size)
    level: of.Level = "noise" if size < 1e-10 else "array"
    found = []
    for kernels in ("compiled", "amx"):
        model = of.convert(copy.deepcopy(linear), hardware, sample=x, kernels=kernels, level=level)  # type: ignore[arg-type]
        with torch.no_grad(), of.samples(range(2)):
            found.append(model(x).double() / size**2)
    plain, tiled = found
    assert float(plain.std()) > 1
    torch.testing.assert_close(tiled, plain, rtol=1e-2, atol=1e-2 * float(plain.std()))
