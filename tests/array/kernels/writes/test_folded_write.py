"""Folded writes give the same by the kernel as by the plain code, with the same random numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ohmformer.array.codes.codec import Codec
from ohmformer.array.crossbar import write_request
from ohmformer.array.folded import Folded
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.kernels.writes import folded_write
from ohmformer.array.spec import Crossbar, analog
from ohmformer.streams import SampleStreams, Stream, Streams, TokenStreams, backends
from tests.build import PCM_DRIFT, SQRT_RANGE, UNIFORM, array, cell
from tests.gpu.kernels import KERNEL_DEVICE, needs_triton, sizes_compiled

FAR = cell(g_min=6e-6, g_max=1e-5, g_ceiling=3e-5, write_noise={"kind": "uniform", "sigma": 0.02})
HARDWARE: dict[str, dict[str, Any]] = {
    "one half with noise": {"cell": cell(write_noise=SQRT_RANGE)},
    "clamped at a ceiling": {"cell": cell(g_ceiling=1e-5, write_noise={**SQRT_RANGE, "gamma": 3.0})},
    "both halves with noise": {"cell": FAR},
    "copies": {"cell": cell(write_noise=SQRT_RANGE), "redundancy": 2},
    "digits of equal weight": {"cell": cell(write_noise=SQRT_RANGE), "bits": 3, "radix": 1},
}
SAMPLES = tuple(Stream(3, name) for name in "abc")
STREAMS: dict[str, Streams] = {
    "one": Stream(5),
    "samples": SampleStreams(SAMPLES),
    "lengths": SampleStreams(SAMPLES, lengths=(5, 2, 4)),
    "tokens": TokenStreams(SAMPLES, numbers=((0, 1, 2, 3, 4), (-1, 7, 8, 9, 10), (1, 2, 3, 4, 5))),
}


def hardware(name: str) -> Crossbar:
    return array(**{"bits": 6, **HARDWARE[name]})


def codes(spec: Crossbar) -> Tensor:
    """[3, 2, 5, 4] whole numbers, 0 and both ends among them."""
    drawn = torch.randint(-spec.max_code, spec.max_code + 1, (3, 2, 5, 4), generator=torch.Generator().manual_seed(2))
    drawn[0, 0, 0, :3] = torch.tensor([0, spec.max_code, -spec.max_code])
    return drawn.float().to(KERNEL_DEVICE)


def both_ways(monkeypatch: pytest.MonkeyPatch, spec: Crossbar, **options: Any) -> list[Folded]:
    """The write by the kernel and by the plain code."""
    monkeypatch.setattr(backends, "backend_of", lambda *_: "philox_kernel")
    written, values = [], codes(spec)
    for fuses in (True, False):
        if not fuses:
            monkeypatch.setattr(folded_write, "fusible", lambda request, read_noise: False)
        else:
            assert folded_write.fusible(write_request(values, spec, **options), read_noise=False)
        written.append(write_folded(values, spec, read_noise=False, **options))
    return written


def same(fused: Folded, plain: Folded, of: Tensor) -> None:
    assert not torch.allclose(plain.values, of, atol=0.01), "without noise the test would prove nothing"
    torch.testing.assert_close(fused.values, plain.values, rtol=1e-4, atol=1e-4)
    assert fused.values.shape == plain.values.shape
    assert fused.slices == plain.slices
    assert torch.equal(fused.unit, plain.unit)


@needs_triton
@pytest.mark.parametrize("name", HARDWARE)
def test_the_kernel_writes_what_the_plain_code_writes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    spec = hardware(name)
    same(*both_ways(monkeypatch, spec, stream=STREAMS["samples"]), codes(spec))


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("major", ["outputs", "inputs"])
@pytest.mark.parametrize("halves", ["one half with noise", "both halves with noise"])
@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_all_kinds_and_both_orders(
    monkeypatch: pytest.MonkeyPatch, name: str, halves: str, major: str
) -> None:
    spec = hardware(halves)
    streams = STREAMS[name]
    if major == "inputs" and name in ("lengths", "tokens"):
        streams = SampleStreams(SAMPLES, lengths=(4, 2, 3)) if name == "lengths" else replaced(streams)
    same(*both_ways(monkeypatch, spec, stream=streams, major=major), codes(spec))


def replaced(streams: Streams) -> TokenStreams:
    """The streams of four tokens in place of five."""
    assert isinstance(streams, TokenStreams)
    return TokenStreams(streams.streams, numbers=tuple(numbers[:4] for numbers in streams.numbers))


@needs_triton
def test_values_have_units_and_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = hardware("one half with noise")
    fused, plain = both_ways(monkeypatch, spec, stream=1, codec=Codec(spec), w_range=torch.full((5, 1), 80.0))
    torch.testing.assert_close(fused.values, plain.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["cpu", "drift", "silent", "analog", "reads", "offset"])
def test_other_hardware_and_devices_take_the_plain_code(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    noisy = hardware("one half with noise")
    specs = {
        "drift": array(cell=cell(write_noise=SQRT_RANGE, drift=PCM_DRIFT), age=1e4),
        "silent": array(),
        "analog": analog(noisy),
        "reads": array(cell=cell(write_noise=SQRT_RANGE, read_noise={"kind": "proportional", "sigma": 0.05})),
        "offset": array(encoding="offset", cell=cell(write_noise=UNIFORM)),
    }
    if kind != "cpu":
        monkeypatch.setattr(backends, "backend_of", lambda *_: "philox_kernel")
    request = write_request(torch.ones(2, 3), specs.get(kind, noisy), stream=1)
    assert not folded_write.fusible(request, read_noise=kind == "reads")


@pytest.mark.slow
@needs_triton
def test_the_kernel_compiles_for_a_gpu() -> None:
    tensors = dict.fromkeys(("out", "codes", "normals", "tables"), "*fp32")
    numbers = dict.fromkeys(("low", "high", "copies"), "fp32")
    sizes = dict.fromkeys(("magnitudes", "size", "slice_step", "pair_step", "row", "row_step"), "i32")
    cases = [
        ({**tensors, **numbers, **sizes}, {"SLICES": slices, "PAIRS": pairs, "BLOCK": 1024})
        for slices, pairs in ((3, False), (4, True))
    ]
    ones = dict.fromkeys(("magnitudes", "size", "slice_step", "pair_step", "row", "row_step"), 1)
    cases.append(({**tensors, **numbers, **sizes}, {**ones, "SLICES": 2, "PAIRS": True, "BLOCK": 1024}))
    assert min(sizes_compiled("ohmformer.array.kernels.writes.folded_write_kernel", "fold_slices", cases)) > 1_000
