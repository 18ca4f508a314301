"""Compiled writes give what the plain code gives with the same random numbers."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmformer.array.codes.codec import Codec
from ohmformer.array.crossbar import write, write_request
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.kernels.writes import cell_writes
from ohmformer.array.spec import Crossbar, analog
from ohmformer.streams import SampleStreams, Stream, Streams, TokenStreams
from tests.build import FLICKER, PCM_DRIFT, PROPORTIONAL, SQRT_RANGE, UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
HARDWARE: dict[str, dict[str, Any]] = {
    "one half with noise": {"cell": cell(write_noise=SQRT_RANGE)},
    "clamped at a ceiling": {"cell": cell(g_ceiling=1e-5, write_noise={**SQRT_RANGE, "gamma": 3.0})},
    "both halves with noise": {"cell": cell(write_noise=UNIFORM)},
    "one cell per value": {"cell": cell(write_noise=UNIFORM), "bits_per_cell": 6},
    "copies": {"cell": cell(write_noise=SQRT_RANGE), "redundancy": 2},
    "digits of equal weight": {"cell": cell(write_noise=SQRT_RANGE), "bits": 3, "radix": 1},
    "uneven levels": {"cell": cell(write_noise=UNIFORM, level_conductances=(1e-7, 2e-6, 3e-6, 1e-5))},
}
READS = [PROPORTIONAL, {"kind": "uniform", "sigma": 0.03}, {"kind": "sqrt", "sigma": 0.03}]
SAMPLES = tuple(Stream(3, name, kernels="compiled") for name in "abc")
STREAMS: dict[str, Streams] = {
    "one": Stream(5, kernels="compiled"),
    "samples": SampleStreams(SAMPLES),
    "lengths": SampleStreams(SAMPLES, lengths=(5, 2, 4)),
    "tokens": TokenStreams(SAMPLES, numbers=((0, 1, 2, 3, 4), (-1, 7, 8, 9, 10), (1, 2, 3, 4, 5))),
}


def hardware(name: str, **changes: Any) -> Crossbar:
    return array(**{"bits": 6, **HARDWARE[name], **changes})


def codes(spec: Crossbar, shape: tuple[int, ...] = (3, 2, 5, 4)) -> Tensor:
    """Whole numbers, 0 and both ends among them."""
    drawn = torch.randint(-spec.max_code, spec.max_code + 1, shape, generator=torch.Generator().manual_seed(2))
    drawn.view(-1)[:3] = torch.tensor([0, spec.max_code, -spec.max_code])[: drawn.numel()]
    return drawn.float()


def both_ways(values: Tensor, spec: Crossbar, read_noise: bool, how: Any = write_folded, **options: Any) -> list[Any]:
    """The write by the loop and by the plain code."""
    assert cell_writes.fusible(write_request(values, spec, **options), read_noise)
    written, fusible = [], cell_writes.fusible
    try:
        for fuses in (fusible, lambda request, read_noise: False):
            cell_writes.fusible = fuses
            written.append(how(values, spec, **({"read_noise": read_noise} if how is write_folded else {}), **options))
    finally:
        cell_writes.fusible = fusible
    return written


def same(loop: Tensor, plain: Tensor) -> None:
    """Equal but for rounding: some dozen operations in float32 on what is as large as the largest value."""
    assert loop.shape == plain.shape
    torch.testing.assert_close(loop, plain, rtol=1e-5, atol=2e-6 * float(plain.abs().max()))


@pytest.mark.parametrize("major", ["outputs", "inputs"])
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", HARDWARE)
def test_folded_writes_are_those_of_the_plain_code(name: str, streams: str, major: str) -> None:
    spec = hardware(name)
    values = codes(spec, (3, 2, 5, 4) if major == "outputs" else (3, 2, 4, 5))
    options = {"stream": STREAMS[streams], "major": major}
    loop, plain = both_ways(values, spec, False, **options)
    assert not torch.allclose(plain.values, values, atol=0.01), "without noise the test would prove nothing"
    same(loop.values, plain.values)
    assert loop.variance is plain.variance is None
    assert loop.slices == plain.slices
    digits, expected = both_ways(values, spec, False, write, **options)
    same(digits.digits, expected.digits)


@pytest.mark.parametrize("read", READS, ids=lambda read: read["kind"])
@pytest.mark.parametrize("name", HARDWARE)
def test_variances_of_reads_are_those_of_the_plain_code(name: str, read: dict[str, Any]) -> None:
    spec = hardware(name)
    fields = {**spec.cell.model_dump(exclude={"read_noise"}), "read_noise": read}
    spec = spec.model_copy(update={"cell": cell(**fields)})
    options = {"stream": STREAMS["samples"], "codec": Codec(spec), "w_range": torch.full((5, 1), 80.0)}
    loop, plain = both_ways(codes(spec), spec, True, **options)
    same(loop.values, plain.values)
    same(loop.variance, plain.variance)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 130), st.sampled_from(["outputs", "inputs"]))
def test_samples_and_sizes_change_no_bit(B: int, N: int, d: int, major: str) -> None:
    spec = hardware("both halves with noise")
    values = codes(spec, (B, 1, N, d))
    whole = write_folded(values, spec, read_noise=False, stream=SampleStreams(SAMPLES[:B]), major=major).values
    for b in range(B):
        alone = SampleStreams(SAMPLES[b : b + 1])
        assert torch.equal(
            write_folded(values[b : b + 1], spec, read_noise=False, stream=alone, major=major).values[0], whole[b]
        )


@pytest.mark.parametrize("kind", ["torch", "drift", "silent", "analog", "reads", "offset", "double", "verify"])
def test_other_hardware_and_streams_take_the_plain_code(kind: str) -> None:
    noisy = hardware("one half with noise")
    specs = {
        "drift": array(cell=cell(write_noise=SQRT_RANGE, drift=PCM_DRIFT), age=1e4),
        "silent": array(),
        "analog": analog(noisy),
        "reads": array(cell=cell(write_noise=SQRT_RANGE, read_noise=FLICKER), age=1e4),
        "offset": array(encoding="offset", cell=cell(write_noise=UNIFORM)),
        "verify": array(cell=cell(write_noise=UNIFORM), write_verify={"writes": 3, "tolerance": 0.05}),
    }
    stream = Stream(1) if kind == "torch" else STREAMS["one"]
    spec, values = specs.get(kind, noisy), torch.ones(2, 3, dtype=torch.float64 if kind == "double" else torch.float32)
    codec = Codec(noisy, rounded=False) if kind == "analog" else None
    request = write_request(values, spec, stream=stream, codec=codec)
    assert not cell_writes.fusible(request, read_noise=kind == "reads")
