"""Products with converters give the same by the kernel as by the plain code, with the same random numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ohmformer.array import converters, multiply
from ohmformer.array.crossbar import write
from ohmformer.array.kernels import converted_sum
from ohmformer.array.spec import Crossbar
from ohmformer.streams import PaddedStreams, SampleStreams, Stream, TokenStreams, backends
from tests.build import SQRT_RANGE, UNIFORM, array, cell
from tests.gpu.kernels import KERNEL_DEVICE, needs_triton, sizes_compiled

READ = cell(write_noise=SQRT_RANGE, read_noise={"kind": "proportional", "sigma": 0.05})
HARDWARE: dict[str, dict[str, Any]] = {
    "bit serial": {"inputs": {"bits": 3}, "adc": {"bits": 6}},
    "amplitude, read noise": {"inputs": {"kind": "amplitude", "bits": 5}, "adc": {"bits": 5}, "cell": READ},
    "analog subtraction": {"adc": {"bits": 5}, "inputs": {"bits": 2}, "subtract": "analog", "cell": READ},
    "one copy of two": {"adc": {"bits": 7}, "inputs": {"bits": 2}, "redundancy": 2, "cell": READ},
    "given range": {"adc": {"bits": 4, "range": {"kind": "given", "high": 0.2}}, "inputs": {"bits": 2}},
}
SAMPLES = tuple(Stream(3, name) for name in "ab")
STREAMS = {
    "samples": SampleStreams(SAMPLES),
    "padded": PaddedStreams(SAMPLES, places=3, rows=((0, 1, 2), (1,)), columns=(5, 4)),
    "tokens": TokenStreams(SAMPLES, numbers=((0, 1, 2), (-1, 7, 8)), growing=True),
}


def hardware(name: str) -> Crossbar:
    return array(rows=8, columns=8, bits=4, **HARDWARE[name])


def operands(spec: Crossbar, inputs: int = 20) -> tuple[Tensor, Tensor]:
    """Input codes [2, 1, 3, I] and matrix codes [2, 1, 5, I]."""
    generator = torch.Generator().manual_seed(4)
    top = spec.max_input(signed=True)
    x = torch.randint(-top, top + 1, (2, 1, 3, inputs), generator=generator).float()
    w = torch.randint(-spec.max_code, spec.max_code + 1, (2, 1, 5, inputs), generator=generator).float()
    return x.to(KERNEL_DEVICE), w.to(KERNEL_DEVICE)


def both_ways(monkeypatch: pytest.MonkeyPatch, spec: Crossbar, streams: Any, span: Any = None) -> list[Tensor]:
    """The product by the kernel and by the plain code."""
    monkeypatch.setattr(backends, "backend_of", lambda *_: "philox_kernel")
    x, w = operands(spec)
    programmed = write(w, spec, stream=1)
    span = converters.adc_range(spec, signed=True, calibrated=None) if span is None else span
    assert converted_sum.fusible(x, programmed)
    fused = multiply.converted_product(x, programmed, signed=True, stream=streams, span=span)
    monkeypatch.setattr(converted_sum, "fusible", lambda codes, programmed: False)
    return [fused, multiply.converted_product(x, programmed, signed=True, stream=streams, span=span)]


@needs_triton
@pytest.mark.parametrize("name", HARDWARE)
def test_the_kernel_gives_what_the_plain_code_gives(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    streams = STREAMS["samples"] if "cell" in HARDWARE[name] else None
    fused, plain = both_ways(monkeypatch, hardware(name), streams)
    assert plain.abs().max() > 1
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("name", STREAMS)
def test_reads_draw_the_same_numbers_for_samples_padding_and_tokens(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fused, plain = both_ways(monkeypatch, hardware("amplitude, read noise"), STREAMS[name])
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-4 * float(plain.abs().max()))


@needs_triton
def test_a_calibrated_range_may_be_a_tensor_for_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = hardware("bit serial")
    low, high = torch.tensor([-3.0, 0.0]), torch.tensor([9.0, 11.5])
    fused, plain = both_ways(monkeypatch, spec, None, span=(low, high))
    assert plain.abs().max() > 1
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-4 * float(plain.abs().max()))


@needs_triton
def test_values_that_are_no_numbers_stay_visible() -> None:
    from ohmformer.array.kernels import converted_sum_kernel

    total, currents = torch.zeros(3), torch.tensor([[1.0, float("nan"), 2.0], [1.0, 2.0, 2.0]])
    total, currents = total.to(KERNEL_DEVICE), currents.to(KERNEL_DEVICE)
    converted_sum_kernel.add_converted(total, currents, None, None, (0.0, 1.0, -4, 4), 1.0)
    assert total.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["cpu", "offset", "peripherals", "ideal"])
def test_other_hardware_and_devices_take_the_plain_code(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    specs = {
        "cpu": hardware("bit serial"),
        "offset": array(encoding="offset", adc={"bits": 4}, cell=cell(write_noise=UNIFORM)),
        "peripherals": array(adc={"bits": 4}, peripherals={"output_noise": 0.01}),
        "ideal": array(),
    }
    programmed = write(operands(specs[kind])[1].cpu(), specs[kind], stream=1)
    if kind != "cpu":
        monkeypatch.setattr(backends, "backend_of", lambda *_: "philox_kernel")
    assert not converted_sum.fusible(torch.zeros(1), programmed)


def test_half_precision_and_autocast_take_the_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = hardware("bit serial")
    programmed = write(operands(spec)[1].cpu(), spec, stream=1)
    monkeypatch.setattr(backends, "backend_of", lambda *_: "philox_kernel")
    assert converted_sum.fusible(torch.zeros(1), programmed)
    assert not converted_sum.fusible(torch.zeros(1, dtype=torch.float64), programmed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not converted_sum.fusible(torch.zeros(1), programmed)


@pytest.mark.slow
@needs_triton
def test_the_kernel_compiles_for_a_gpu() -> None:
    tensors = dict.fromkeys(("total", "currents", "variance", "normals"), "*fp32")
    numbers = dict.fromkeys(("zero", "step", "lowest", "highest", "weight"), "fp32")
    types = {**tensors, **numbers, "blocks": "i32", "size": "i32"}
    cases = [(types, {"NOISY": noisy, "BLOCK": 1024}) for noisy in (False, True)]
    cases.append((types, {"blocks": 1, "size": 1, "NOISY": True, "BLOCK": 1024}))  # numbers that are 1 are constants
    sizes = sizes_compiled("ohmformer.array.kernels.converted_sum_kernel", "sum_converted", cases)
    assert min(sizes) > 1_000
