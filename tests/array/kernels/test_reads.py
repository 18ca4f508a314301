"""Compiled reads and conversions give what the plain code gives with the same random numbers."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmformer.array import converters, multiply
from ohmformer.array.crossbar import write
from ohmformer.array.kernels import reads
from ohmformer.array.spec import Crossbar
from ohmformer.streams import PaddedStreams, SampleStreams, Stream, TokenStreams
from tests.array.kernels.test_converted_sum import HARDWARE as PLAIN_HARDWARE
from tests.build import UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
HARDWARE = {**PLAIN_HARDWARE, "one bit": {"adc": {"bits": 1}, "inputs": {"bits": 2}}}
SAMPLES = tuple(Stream(3, name, kernels="compiled") for name in "ab")
STREAMS = {
    "samples": SampleStreams(SAMPLES),
    "padded": PaddedStreams(SAMPLES, places=3, rows=((0, 1, 2), (1,)), columns=(5, 4)),
    "tokens": TokenStreams(SAMPLES, numbers=((0, 1, 2), (-1, 7, 8)), growing=True),
}


def hardware(name: str) -> Crossbar:
    return array(rows=8, columns=8, bits=4, **HARDWARE[name])


def operands(spec: Crossbar, inputs: int = 20, M: int = 3, O: int = 5) -> tuple[Tensor, Tensor]:
    """Input codes [2, 1, M, I] and matrix codes [2, 1, O, I]."""
    generator = torch.Generator().manual_seed(4)
    top = spec.max_input(signed=True)
    x = torch.randint(-top, top + 1, (2, 1, M, inputs), generator=generator).float()
    w = torch.randint(-spec.max_code, spec.max_code + 1, (2, 1, O, inputs), generator=generator).float()
    return x, w


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", HARDWARE)
def test_conversions_are_those_of_the_plain_code(name: str, streams: str) -> None:
    spec, stream = hardware(name), STREAMS[streams] if "cell" in HARDWARE[name] else None
    x, w = operands(spec)
    programmed = write(w, spec, stream=1)
    span = converters.adc_range(spec, signed=True, calibrated=None)
    assert reads.fusible(x, programmed, "compiled")
    how: dict[str, Any] = {"signed": True, "stream": stream, "span": span}
    loop, plain = reads.converted_product(x, programmed, **how), multiply.converted_product(x, programmed, **how)
    assert plain.abs().max() > 1
    # Without noise currents are whole or the same numbers, and so are codes; with it rounding could move one code.
    torch.testing.assert_close(loop, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


def test_a_matrix_that_all_samples_share_and_values_that_are_no_numbers() -> None:
    spec = hardware("analog subtraction")
    x, w = operands(spec)
    programmed = write(w[0, 0], spec, stream=1)
    span = converters.adc_range(spec, signed=True, calibrated=None)
    how: dict[str, Any] = {"signed": True, "stream": SampleStreams(SAMPLES), "span": span}
    x = x.squeeze(1)
    x[1, 0, 0] = torch.nan
    loop, plain = reads.converted_product(x, programmed, **how), multiply.converted_product(x, programmed, **how)
    assert torch.equal(loop.isnan(), plain.isnan())
    assert bool(loop[1, 0].isnan().all())
    torch.testing.assert_close(loop[0], plain[0], rtol=1e-5, atol=1e-5 * float(plain[0].abs().max()))


def factors(M: int, O: int, I: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Results [2, 1, M, O], factors [2, 1, M, I] on variances, and variances [2, 1, O, I]."""
    generator = torch.Generator().manual_seed(M)
    of = [torch.rand(2, 1, *shape, generator=generator) for shape in ((M, O), (M, I), (O, I))]
    return of[0], of[1], of[2]


@pytest.mark.parametrize("streams", STREAMS)
def test_noise_is_that_of_the_plain_code(streams: str) -> None:
    y, power, variance = factors(3, 5)
    std = (power @ variance.transpose(-2, -1)).sqrt()
    expected = y + std * STREAMS[streams].normal(*y.shape, like=y)
    assert reads.add_noise_(y, power, variance, STREAMS[streams])
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 2), st.integers(1, 60), st.integers(1, 130))
def test_samples_and_sizes_draw_the_same_noise(b: int, M: int, O: int) -> None:
    y, power, variance = factors(M, O)
    whole, alone = y.clone(), y[b - 1 : b].clone()
    reads.add_noise_(whole, power, variance, SampleStreams(SAMPLES))
    reads.add_noise_(alone, power[b - 1 : b], variance[b - 1 : b], SampleStreams(SAMPLES[b - 1 : b]))
    # Variances are products, which may round in another way in another batch.
    torch.testing.assert_close(alone[0], whole[b - 1], rtol=1e-6, atol=1e-6)


def test_scratch_of_inference_serves_outside_of_it() -> None:
    for context in (torch.inference_mode, torch.no_grad):
        with context():
            assert reads.add_noise_(*factors(70, 80), SampleStreams(SAMPLES))


@pytest.mark.parametrize("kind", ["torch", "double", "gaps"])
def test_other_results_keep_their_values(kind: str) -> None:
    streams = SampleStreams((Stream(1), Stream(2))) if kind == "torch" else SampleStreams(SAMPLES)
    y, *others = (t.double() if kind == "double" else t for t in factors(4, 4))
    y = y.transpose(-2, -1) if kind == "gaps" else y
    before = y.clone()
    assert not reads.add_noise_(y, *others, streams)
    assert torch.equal(y, before)


@pytest.mark.parametrize("kind", ["torch", "offset", "peripherals", "ideal", "many bits", "double", "autocast"])
def test_other_hardware_takes_the_plain_code(kind: str) -> None:
    specs = {
        "offset": array(encoding="offset", adc={"bits": 4}, cell=cell(write_noise=UNIFORM)),
        "peripherals": array(adc={"bits": 4}, peripherals={"output_noise": 0.01}),
        "ideal": array(),
    }
    spec = specs.get(kind, hardware("bit serial"))
    if kind == "many bits":
        spec = spec.model_copy(update={"adc": spec.adc.model_copy(update={"bits": 21})})
    programmed = write(operands(spec)[1], spec, stream=1)
    codes = torch.zeros(1, dtype=torch.float64 if kind == "double" else torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        assert not reads.fusible(codes, programmed, "torch" if kind == "torch" else "compiled")
